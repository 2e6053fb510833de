//! One benchmark's result, and what it is a rate of.

use freeguide::tensor::DType;

/// What a run has to do at the least, for its rate: multiplications and additions, bytes read and written once, or, of
/// whole networks, images.
#[derive(Clone, Copy)]
pub enum Work {
    Flops(f64),
    Bytes(f64),
    Images(usize),
}

/// One benchmark's result.
pub struct Row {
    pub bench: String,
    pub shape: String,
    pub dtype: DType,
    pub rung: String,
    pub seconds: f64,
    pub work: Work,
}

impl Row {
    /// A rate and its unit.
    pub fn rate(&self) -> (f64, &'static str) {
        match self.work {
            Work::Flops(flops) => (flops / self.seconds * 1e-12, "TFLOP/s"),
            Work::Bytes(bytes) => (bytes / self.seconds * 1e-9, "GB/s"),
            Work::Images(images) => (images as f64 / self.seconds, "images/s"),
        }
    }
}

pub fn dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::U32 => "u32",
    }
}
