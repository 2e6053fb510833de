//! What a student is taught, or a step of its teacher on the way there.
//!
//!   o = (1 + w) out_c - w out_u, or out;  x̂ = clip(x_z·z + x_out·o);  y = of_z·z + of_x·x̂ + of_start·start
//!
//! with numbers of each sample ([`TeacherRow`]): a guided teacher's output in the student's terms (arXiv 2210.03142, section
//! 3.1), a deterministic step of a teacher, or the picture that two of those lead to in one (arXiv 2202.00512, algorithm 2).
//! Targets are data: there is no gradient.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::diffusion::TeacherRow;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Write};

const OP: &str = "teacher_move";

const FORWARD: Kernel = Kernel::new(OP, wgsl!("teacher_move"), "forward", &[Read, Read, Read, Read, Write]);

/// Words of a row.
const ROW: usize = size_of::<TeacherRow>() / 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    length: u32,
    channels: u32,
    out_channels: u32,
    other: u32,
    pad: [u32; 3],
}

/// What the move reads.
#[derive(Clone, Copy, Debug)]
pub struct TeacherMove<'a> {
    /// `[N, H, W, C]` f32: where the teacher was evaluated.
    pub z: &'a Tensor,
    /// Its output there, f32: `[N, H, W, E]`, or `[2N, H, W, E]` with the unconditional half behind the conditional one.
    /// Channels past C are variances, which are handed on as they are.
    pub out: &'a Tensor,
    /// `[N, H, W, C]` f32: where the student stands.
    pub start: &'a Tensor,
    /// `[N, 8]` f32: the words of [`TeacherRow`].
    pub rows: &'a Tensor,
}

/// y `[N, H, W, E]` f32.
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`TeacherMove`] says; [`Error::Config`] when a gradient
/// would be wanted.
pub fn teacher_move(cx: &mut Context, inputs: TeacherMove<'_>) -> Result<Tensor> {
    let TeacherMove { z, out, start, rows } = inputs;
    let ([n, h, w, c], [m, _, _, e]) = (z.nhwc(OP)?, out.nhwc(OP)?);
    expect(OP, "z", z, z.shape(), DType::F32)?;
    expect(OP, "out", out, &[m, h, w, e], DType::F32)?;
    expect(OP, "start", start, z.shape(), DType::F32)?;
    expect(OP, "rows", rows, &[n, ROW], DType::F32)?;
    if (m != n && m != 2 * n) || e < c || n == 0 {
        let what = format!("outputs {:?} do not fit latents {:?}", out.shape(), z.shape());
        return Err(Error::shape(OP, what));
    }
    if [z, out, start].into_iter().any(|tensor| cx.needs_grad(tensor)) {
        return Err(Error::Config("teacher_move has no gradient: a teacher does not learn".into()));
    }
    let y = cx.output(OP, &[n, h, w, e], DType::F32)?;
    let params = Params {
        count: y.len() as u32,
        length: (h * w * e) as u32,
        channels: c as u32,
        out_channels: e as u32,
        other: if m == n { 0 } else { y.len() as u32 },
        pad: [0; 3],
    };
    let launch = cx.launch(&FORWARD).bind(z).bind(out).bind(start).bind(rows).bind(&y);
    launch.params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, forward, gpu};

    fn rows() -> Vec<TeacherRow> {
        let row = |x_z, x_out, bound| TeacherRow { x_z, x_out, bound, ..TeacherRow::default() };
        vec![
            TeacherRow { of_z: 0.3, of_x: -1.7, of_start: 0.4, w: 1.5, ..row(1.2, -0.8, 1.0) },
            TeacherRow { of_z: -0.5, of_x: 0.9, of_start: 0.0, w: 0.0, ..row(0.0, 1.0, f32::MAX) },
            TeacherRow { of_z: 1.1, of_x: 2.0, of_start: -1.0, w: 4.0, ..row(22026.0, -22026.0, 1.0) },
        ]
    }

    #[test]
    fn matches_the_formula() {
        let (shape, rows) = ([3, 5, 7], rows());
        for (channels, out_channels, halves) in [(3, 3, 2), (3, 6, 2), (1, 1, 1), (2, 4, 1)] {
            let of = |n: usize, c: usize, seed| Array::random(&[n, shape[1], shape[2], c], seed);
            let (z, start) = (of(3, channels, 1), of(3, channels, 2));
            let out = of(3 * halves, out_channels, 3);
            let pixels = shape[1] * shape[2];
            let mut want = Vec::new();
            for i in 0..3 * pixels * out_channels {
                let (pixel, channel) = (i / out_channels, i % out_channels);
                let row = rows[pixel / pixels];
                let conditional = f64::from(out.data[i]);
                if channel >= channels {
                    want.push(conditional as f32);
                    continue;
                }
                let (w, at) = (f64::from(row.w), pixel * channels + channel);
                let o = match halves {
                    1 => conditional,
                    _ => (1.0 + w) * conditional - w * f64::from(out.data[out.data.len() / 2 + i]),
                };
                let [z, start] = [&z, &start].map(|array| f64::from(array.data[at]));
                let bound = f64::from(row.bound);
                let x = (f64::from(row.x_z) * z + f64::from(row.x_out) * o).clamp(-bound, bound);
                want.push(
                    (f64::from(row.of_z) * z + f64::from(row.of_x) * x + f64::from(row.of_start) * start)
                        as f32,
                );
            }
            let want = Array::new(&[3, shape[1], shape[2], out_channels], want);
            let mut cx = Context::new(gpu());
            let table = cx.constant("rows", &[3, ROW], DType::F32, bytemuck::cast_slice(&rows)).unwrap();
            let [z, out, start] = [&z, &out, &start].map(|array| array.upload(&cx, DType::F32));
            let inputs = TeacherMove { z: &z, out: &out, start: &start, rows: &table };
            let y = teacher_move(&mut cx, inputs).unwrap();
            forward(&[z.clone(), out.clone(), start.clone(), table.clone()], cx, &y)
                .check_absolute("target", &want, 2e-5);
        }
    }

    #[test]
    fn misfits_and_gradients_are_refused() {
        let mut cx = Context::with_tape(gpu());
        let z = Array::random(&[2, 3, 3, 2], 1).upload(&cx, DType::F32);
        let table = cx.constant_f32("rows", &[2, ROW], &[0.0; 2 * ROW]).unwrap();
        for shape in [[3, 3, 3, 2], [2, 3, 3, 1], [2, 3, 4, 2]] {
            let out = Array::random(&shape, 2).upload(&cx, DType::F32);
            let inputs = TeacherMove { z: &z, out: &out, start: &z, rows: &table };
            assert!(teacher_move(&mut cx, inputs).is_err(), "{shape:?}");
        }
        cx.watch(&z);
        let error =
            teacher_move(&mut cx, TeacherMove { z: &z, out: &z, start: &z, rows: &table }).unwrap_err();
        assert!(error.to_string().contains("gradient"), "{error}");
    }
}
