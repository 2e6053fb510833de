//! What the adapter reaches with the simplest of work: a copy, and a large matrix product through this library's own
//! linear layer. All other rows are compared with these.

use freeguide::Result;
use freeguide::ops::linear;
use freeguide::tensor::DType;

use crate::harness::{Bench, Recorder};
use crate::row::{Row, Work};

const FAMILY: &str = "ceiling";

fn copied_elements(bench: &Bench) -> usize {
    let limit = bench.gpu.capabilities().limits.max_storage_buffer_binding_size as usize;
    let wanted = if bench.is_software() { 64 << 20 } else { 512 << 20 };
    wanted.min(limit / 256 * 256) / 4
}

fn side(bench: &Bench) -> usize {
    if bench.is_software() { 512 } else { 4096 }
}

fn copy(r: &mut Recorder, elements: usize) -> Result<()> {
    let x = r.random(&[elements], DType::F32)?;
    r.cx.copy(&x).map(drop)
}

fn matmul(r: &mut Recorder, side: usize, dtype: DType) -> Result<()> {
    let (x, w) = (r.random(&[side, side], dtype)?, r.random(&[side, side], dtype)?);
    linear(&mut r.cx, &x, &w, None).map(drop)
}

pub fn run(bench: &mut Bench) {
    let elements = copied_elements(bench);
    let work = Work::Bytes(8.0 * elements as f64);
    bench.measure(FAMILY, "copy", format!("{} MiB", elements >> 18), DType::F32, work, |r| copy(r, elements));
    let side = side(bench);
    for &dtype in bench.dtypes() {
        let work = Work::Flops(2.0 * (side as f64).powi(3));
        bench.measure(FAMILY, "matmul", format!("{side}³"), dtype, work, |r| matmul(r, side, dtype));
    }
}

/// Rates of the copy in GB/s and of the matrix products in TFLOP/s.
pub struct Ceilings {
    copy: f64,
    matmul: Vec<(DType, f64)>,
}

impl Ceilings {
    /// The one that a row is compared with; none for images.
    pub fn of(&self, row: &Row) -> Option<f64> {
        match row.work {
            Work::Images(_) => None,
            Work::Bytes(_) => Some(self.copy),
            Work::Flops(_) => {
                let (_, rate) =
                    self.matmul.iter().find(|(dtype, _)| *dtype == row.dtype).unwrap_or(&self.matmul[0]);
                Some(*rate)
            }
        }
    }
}

/// From the rows, and measured now where the filter left them out.
pub fn of(bench: &Bench, rows: &[Row]) -> Ceilings {
    let known = |name: &str, dtype: DType| {
        let is = |row: &&Row| row.bench == format!("{FAMILY}/{name}") && row.dtype == dtype;
        rows.iter().find(is).map(|row| row.rate().0)
    };
    let elements = copied_elements(bench);
    let copy = known("copy", DType::F32)
        .unwrap_or_else(|| 8e-9 * elements as f64 / bench.quickly(|r| copy(r, elements)));
    let side = side(bench);
    let matmul = bench.dtypes().iter().map(|&dtype| {
        let measure = || 2e-12 * (side as f64).powi(3) / bench.quickly(|r| matmul(r, side, dtype));
        (dtype, known("matmul", dtype).unwrap_or_else(measure))
    });
    Ceilings { copy, matmul: matmul.collect() }
}
