//! Mean squared error.  loss = weight·Σ_n mean_l (x[n,l] - t[n,l])²,  dx = -dt = dloss·weight·(2/L)·(x - t).
//!
//! x and t `[N, ..]` of one type, L elements a sample; the loss is one f32. Sums go block by block and then in a tree, so
//! a sample's loss does not depend on its batch.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::pack::choose;

const BLOCKS: Kernel =
    Kernel::new("mse", wgsl!("mse"), "blocks", &[Access::Read, Access::Read, Access::Write]);
const BLOCKS_PACKED: Kernel =
    Kernel::new("mse", wgsl!("mse"), "blocks_packed", &[Access::Read, Access::Read, Access::Write]);
const FOLD: Kernel = Kernel::new("mse_fold", wgsl!("mse"), "fold", &[Access::Read, Access::Write]);
const TOTAL: Kernel =
    Kernel::new("mse_total", wgsl!("mse"), "total", &[Access::Read, Access::Write, Access::Write]);
const GRADIENT: Kernel = Kernel::new(
    "mse_backward",
    wgsl!("mse"),
    "gradient",
    &[Access::Read, Access::Read, Access::Read, Access::Update],
);
const GRADIENT_PACKED: Kernel = Kernel::new(
    "mse_backward",
    wgsl!("mse"),
    "gradient_packed",
    &[Access::Read, Access::Read, Access::Read, Access::Update],
);

/// Elements of a sample that one workgroup sums, as in the shader.
const BLOCK: usize = 4096;

/// Blocks of a sample above which they are summed in parallel before the samples are.
const MANY: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    length: u32,
    blocks: u32,
    accumulate: u32,
    weight: f32,
    factor: f32,
    count: u32,
    pad: u32,
}

/// The mean over all elements, `[1]` of f32.
///
/// # Errors
/// [`Error::Shape`] when shapes or types differ, or there is no element.
pub fn mse(cx: &mut Context, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    check(prediction, target)?;
    let one = [1, prediction.len()];
    Ok(mse_per_sample(cx, &prediction.reshape(&one)?, &target.reshape(&one)?, 1.0)?.0)
}

/// (loss `[1]`, each sample's mean squared error `[N]`), both f32, with loss = `weight`·Σ of the samples' errors: 1/N for
/// the mean over a batch, less for one of several microbatches. Only the loss has gradients.
///
/// # Errors
/// As [`mse`].
pub fn mse_per_sample(
    cx: &mut Context,
    prediction: &Tensor,
    target: &Tensor,
    weight: f32,
) -> Result<(Tensor, Tensor)> {
    check(prediction, target)?;
    let samples = prediction.shape()[0];
    let length = prediction.len() / samples;
    let blocks = length.div_ceil(BLOCK);
    let params = Params {
        samples: samples as u32,
        length: length as u32,
        blocks: blocks as u32,
        accumulate: 0,
        weight,
        factor: 0.0,
        count: prediction.len() as u32,
        pad: 0,
    };
    let partial = cx.output("mse partial", &[samples, blocks], DType::F32)?;
    let per_sample = cx.output("mse per sample", &[samples], DType::F32)?;
    let loss = cx.output("mse", &[1], DType::F32)?;
    // The length alone decides how a sample is summed.
    let chosen = choose(cx, prediction.dtype(), &[length], &BLOCKS_PACKED, &BLOCKS);
    let launch = cx.launch(chosen.kernel).bind(prediction).bind(target).bind(&partial);
    launch.params(&params).variant(chosen.variant("")).over_groups(samples * blocks);
    let (mut sums, mut of_sums) = (partial.clone(), params);
    if blocks > MANY {
        sums = cx.output("mse folded", &[samples, 1], DType::F32)?;
        of_sums.blocks = 1;
        cx.launch(&FOLD).bind(&partial).bind(&sums).params(&params).over_groups(samples);
    }
    cx.launch(&TOTAL).bind(&sums).bind(&per_sample).bind(&loss).params(&of_sums).over_groups(1);
    cx.backward(&loss, &[prediction, target], {
        let (prediction, target) = (prediction.clone(), target.clone());
        move |cx, dloss| {
            let factor = (2.0 * f64::from(weight) / length as f64) as f32;
            for (input, factor) in [(&prediction, factor), (&target, -factor)] {
                if let Some(d) = cx.grad_target(input)? {
                    let chosen = choose(cx, input.dtype(), &[length], &GRADIENT_PACKED, &GRADIENT);
                    let count = input.len() / chosen.lanes;
                    let params = Params { accumulate: d.flag(), factor, count: count as u32, ..params };
                    let launch = cx.launch(chosen.kernel).bind(&prediction).bind(&target);
                    let launch = launch.bind(dloss).bind(&d.tensor).params(&params);
                    launch.variant(chosen.variant("")).over(count, chosen.size);
                }
            }
            Ok(())
        }
    });
    Ok((loss, per_sample))
}

fn check(prediction: &Tensor, target: &Tensor) -> Result<()> {
    let like = |x: &Tensor| format!("{:?} {:?}", x.shape(), x.dtype());
    if prediction.shape() != target.shape() || prediction.dtype() != target.dtype() {
        let what = format!("the prediction is {} but the target {}", like(prediction), like(target));
        return Err(Error::shape("mse", what));
    }
    if prediction.is_empty() || prediction.shape().is_empty() || prediction.dtype() == DType::U32 {
        return Err(Error::shape("mse", format!("expected [N, ..] of floats, got {}", like(prediction))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::backprop;
    use crate::testing::{Array, Golden, check_gradients, download, dtypes, forward_backward, gpu};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        let [x, target, gy] = ["x", "target", "gy"].map(|name| golden.array(&format!("mse.a.{name}")));
        for dtype in dtypes() {
            let gy = gy.reshape(&[1]);
            let inputs = [x.clone(), target.clone()];
            let (y, grads) = forward_backward(dtype, &inputs, &gy, |cx, x| mse(cx, &x[0], &x[1]));
            golden.check_as("mse.a.y", &y, dtype, |want| want.reshape(&[1]));
            golden.check("mse.a.dx", &grads[0], dtype);
            golden.check("mse.a.dtarget", &grads[1], dtype);
        }
    }

    /// Two samples of three blocks each, the last one not whole; of odd length, of whole packs, and of so many blocks
    /// that they are folded.
    #[test]
    fn sums_samples_of_several_blocks() {
        let shapes = [[2, 53, 61, 3], [2, 53, 61, 8], [2, 300, 301, 3]];
        for (dtype, shape) in dtypes().into_iter().flat_map(|d| shapes.map(|s| (d, s))) {
            let (x, t) = (Array::random(&shape, 1), Array::random(&shape, 2));
            let length = x.data.len() / 2;
            let mut cx = Context::with_tape(gpu());
            let (xt, tt) = (x.upload(&cx, dtype), t.upload(&cx, dtype));
            cx.watch(&xt);
            let (loss, samples) = mse_per_sample(&mut cx, &xt, &tt, 0.125).unwrap();
            backprop(&mut cx, &loss).unwrap();
            let dx = cx.grad(&xt).unwrap();
            for kept in [&loss, &samples, &dx] {
                cx.keep(kept);
            }
            let plan = cx.finish("mse").unwrap();
            plan.run().unwrap();
            let squares = x.zip(&t, |x, t| (x - t) * (x - t)).data;
            let mean = |s: &[f32]| (s.iter().map(|&x| f64::from(x)).sum::<f64>() / length as f64) as f32;
            let means: Vec<f32> = squares.chunks(length).map(mean).collect();
            let want = Array::new(&[1], vec![0.125 * (means[0] + means[1])]);
            download(&plan, &samples).check("samples", &Array::new(&[2], means), DType::F32);
            download(&plan, &loss).check("loss", &want, DType::F32);
            let want = x.zip(&t, |x, t| 0.25 / length as f32 * (x - t));
            // In f16 such gradients are subnormal: what loss scaling is for.
            let allowed = if dtype == DType::F32 { 1e-10 } else { 4e-8 };
            download(&plan, &dx).check_absolute("dx", &want, allowed);
        }
    }

    #[test]
    fn gradients_accumulate() {
        let x = [Array::random(&[3, 5, 7], 1), Array::random(&[3, 5, 7], 2)];
        check_gradients(&x, |cx, x| {
            let whole = mse(cx, &x[0], &x[1])?;
            let (weighted, _) = mse_per_sample(cx, &x[1], &x[0], 0.7)?;
            crate::ops::add(cx, &whole, &weighted, 1.0)
        });
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[3, 5], 1).upload(&cx, DType::F32);
        let t = x.reshape(&[5, 3]).unwrap();
        assert!(mse(&mut cx, &x, &t).unwrap_err().to_string().contains("[5, 3]"));
    }
}
