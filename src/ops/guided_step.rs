//! The fused step of guided ancestral sampling (CFG, Algorithm 2, lines 3-6): combine, x̂, clip, mean and noise at once.
//!
//!   eps̃ = (1 + w) eps_c - w eps_∅,  x̂ = clip((z - σ eps̃)/α),  z ← `mean_z`·z + `mean_x`·x̂ + `noise_sd`·noise;
//!   z ← x̂ in the last step.
//!
//! z `[N, H, W, C]`, in place. The step's numbers come from a table on the device and a counter beside it, so one plan
//! replays for all steps; w and the seeds lie in buffers, so it replays for other guidance and other pictures too. The order
//! of operations is that of [`diffusion::reference::guided_step`](crate::diffusion::reference::guided_step).

use bytemuck::{Pod, Zeroable};

use super::dynamic_threshold::threshold_rows;
use super::noised::{expect, table};
use crate::diffusion::{Clip, StepScalars};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "guided_step";

const STEP: Kernel = Kernel::new(
    OP,
    wgsl!("guided_step"),
    "step",
    &[Access::Update, Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Read],
);
const STEP_PREVIEW: Kernel = Kernel::new(
    OP,
    wgsl!("guided_step"),
    "step_preview",
    &[
        Access::Update,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Write,
    ],
);
const MAGNITUDES: Kernel = Kernel::new(
    "guided_magnitudes",
    wgsl!("guided_step"),
    "magnitudes",
    &[Access::Update, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
);

/// Words of a row of the table of steps.
const ROW: usize = size_of::<StepScalars>() / 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    length: u32,
    channels: u32,
    pixels: u32,
    eps_channels: u32,
    samples: u32,
    pair: u32,
    clip: u32,
    rows: u32,
    steps: u32,
    stream: u32,
}

/// What a step reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct GuidedStep<'a> {
    /// `[N, H, W, C]` f32, replaced by the next latent.
    pub z: &'a Tensor,
    /// `[2N, H, W, E]` f32, the conditional predictions and then the unconditional ones; or `[N, H, W, E]`, one prediction
    /// that is used as it is. E is C, or 2C where the network predicts variances too; those are not read.
    pub eps: &'a Tensor,
    /// `[T, 12]` u32, from [`step_table`].
    pub steps: &'a Tensor,
    /// `[1]` u32, the step to take, counted from 0; see [`advance`](super::advance). T or more takes the last step.
    pub counter: &'a Tensor,
    /// f32; the first element is the guidance weight w (not the scale 1 + w). Not read when there is one prediction.
    pub guidance: &'a Tensor,
    /// `[N, 2]` u32: low and high half of each sample's own seed.
    pub seeds: &'a Tensor,
    /// What is done to x̂.
    pub clip: Clip,
    /// `[N, H, W, C]` f32 to receive x̂ after the clip.
    pub preview: Option<&'a Tensor>,
}

/// The steps of a sampler as kernels read them, `[T, 12]` u32: the words of [`StepScalars`].
pub fn step_table(cx: &Context, steps: &[StepScalars]) -> Result<Tensor> {
    cx.constant("steps", &[steps.len(), ROW], DType::U32, bytemuck::cast_slice(steps))
}

/// Records the step.
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`GuidedStep`] says.
pub fn guided_step(cx: &mut Context, step: GuidedStep<'_>) -> Result<()> {
    let GuidedStep { z, eps, steps, counter, guidance, seeds, clip, preview } = step;
    let [n, h, w, c] = z.nhwc(OP)?;
    expect(OP, "z", z, &[n, h, w, c], DType::F32)?;
    let [batch, .., eps_channels] = eps.nhwc(OP)?;
    if (batch != n && batch != 2 * n) || (eps_channels != c && eps_channels != 2 * c) {
        let what =
            format!("z is {:?} but eps {:?}: its batch must be {n} or {}", z.shape(), eps.shape(), 2 * n);
        return Err(Error::shape(OP, format!("{what}, its channels {c} or {}", 2 * c)));
    }
    expect(OP, "eps", eps, &[batch, h, w, eps_channels], DType::F32)?;
    expect(OP, "steps", steps, &[steps.shape().first().copied().unwrap_or(1), ROW], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    expect(OP, "seeds", seeds, &[n, 2], DType::U32)?;
    if guidance.is_empty() || guidance.dtype() != DType::F32 || steps.is_empty() {
        let what =
            format!("needs a weight in f32 and a step, got {:?}, {:?}", guidance.shape(), steps.shape());
        return Err(Error::shape(OP, what));
    }
    if let Some(preview) = preview {
        expect(OP, "preview", preview, z.shape(), DType::F32)?;
    }

    let length = h * w * c;
    let blocks = length.div_ceil(4);
    let mut params = Params {
        count: (n * blocks) as u32,
        blocks: blocks as u32,
        length: length as u32,
        channels: c as u32,
        pixels: (h * w) as u32,
        eps_channels: eps_channels as u32,
        samples: n as u32,
        pair: u32::from(batch != n),
        clip: 0,
        rows: 0,
        steps: steps.shape()[0] as u32,
        stream: Stream::StepNoise as u32,
    };
    let mut strength = guidance.clone();
    match clip {
        Clip::None => {}
        Clip::Static => params.clip = 1,
        Clip::Dynamic { quantile } => {
            let magnitudes = cx.output("guided magnitudes", &[n, length], DType::F32)?;
            let of_all = Params { count: z.len() as u32, ..params };
            let launch = cx.launch(&MAGNITUDES).bind(z).bind(eps).bind(steps).bind(counter).bind(guidance);
            launch.bind(&magnitudes).params(&of_all).over(z.len(), 64);
            strength = threshold_rows(cx, &magnitudes, guidance, quantile)?;
            (params.clip, params.rows) = (2, 1);
        }
    }
    let table = table(cx)?;
    let kernel = if preview.is_some() { &STEP_PREVIEW } else { &STEP };
    let mut launch = cx.launch(kernel).bind(z).bind(eps).bind(steps).bind(counter).bind(&strength);
    launch = launch.bind(seeds).bind(&table);
    if let Some(preview) = preview {
        launch = launch.bind(preview);
    }
    launch.params(&params).variant(clip).over(params.count as usize, 64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{ContinuousSchedule, Guidance, StepCoefficients, ancestral_steps, reference};
    use crate::ops::{advance, step_times};
    use crate::random::fill_normal;
    use crate::testing::{Array, download, gpu};

    struct Case {
        shape: [usize; 4],
        eps_channels: usize,
        pair: bool,
        w: f32,
        clip: Clip,
    }

    const SEEDS: [u64; 3] = [5, 0x0123_4567_89ab_cdef, u64::MAX];

    /// One sample in C, H, W order, in f64; the first C channels.
    fn sample(x: &Array, n: usize, channels: usize) -> Vec<f64> {
        let chw = x.permute(&[0, 3, 1, 2]);
        let (whole, pixels) = (chw.data.len() / chw.shape[0], chw.shape[2] * chw.shape[3]);
        chw.data[n * whole..][..channels * pixels].iter().map(|&x| f64::from(x)).collect()
    }

    /// What the reference makes of the same numbers: the scalars as rounded for the kernel.
    fn expected(case: &Case, z: &Array, eps: &Array, step: &StepScalars, index: u64) -> (Array, Array) {
        let [n, h, w, c] = case.shape;
        let rounded = StepCoefficients {
            log_snr: step.log_snr.into(),
            alpha: step.alpha.into(),
            sigma: step.sigma.into(),
            inverse_alpha: step.inverse_alpha.into(),
            mean_z: step.mean_z.into(),
            mean_x: step.mean_x.into(),
            noise_sd: step.noise_sd.into(),
            time_embedding: step.time_embedding.into(),
            is_last: step.is_last == 1,
        };
        let (mut next, mut x_hat) = (Vec::new(), Vec::new());
        for (i, &seed) in SEEDS[..n].iter().enumerate() {
            let noise = fill_normal(seed, index, Stream::StepNoise, h * w * c);
            let noise: Vec<f64> = noise.into_iter().map(f64::from).collect();
            let (conditional, unconditional) = (sample(eps, i, c), sample(eps, (i + n) % eps.shape[0], c));
            let weight = if case.pair { case.w.into() } else { 0.0 };
            let (z, x) = reference::guided_step(
                &sample(z, i, c),
                &conditional,
                Some(&unconditional),
                &rounded,
                Guidance::from_weight(weight).unwrap(),
                case.clip,
                &noise,
            )
            .unwrap();
            next.extend(z.iter().map(|&z| z as f32));
            x_hat.extend(x.iter().map(|&x| x as f32));
        }
        let array = |data| Array::new(&[n, c, h, w], data).nhwc();
        (array(next), array(x_hat))
    }

    fn check(case: &Case, step: StepScalars) {
        let [n, h, w, _] = case.shape;
        let batch = if case.pair { 2 * n } else { n };
        let z = Array::random(&case.shape, 1).map(|z| 2.0 * z);
        let eps = Array::random(&[batch, h, w, case.eps_channels], 2).map(|eps| 2.0 * eps);
        for with_preview in [false, true] {
            let mut cx = Context::new(gpu());
            let index = 2u32;
            let filler = StepCoefficients::last(1.0).scalars();
            let steps = step_table(&cx, &[filler, filler, step]).unwrap();
            let counter = cx.constant_u32("counter", &[1], &[index]).unwrap();
            let halves: Vec<u32> = SEEDS[..n].iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
            let seeds = cx.constant_u32("seeds", &[n, 2], &halves).unwrap();
            let guidance = cx.constant_f32("w", &[1], &[case.w]).unwrap();
            let (z_, eps_) = (z.upload(&cx, DType::F32), eps.upload(&cx, DType::F32));
            let preview = cx.constant_f32("preview", &case.shape, &vec![7.0; z.data.len()]).unwrap();
            let guided = GuidedStep {
                z: &z_,
                eps: &eps_,
                steps: &steps,
                counter: &counter,
                guidance: &guidance,
                seeds: &seeds,
                clip: case.clip,
                preview: with_preview.then_some(&preview),
            };
            guided_step(&mut cx, guided).unwrap();
            let plan = cx.finish("step").unwrap();
            plan.run().unwrap();
            let (next, x_hat) = expected(case, &z, &eps, &step, index.into());
            let what = format!("{:?}, w {}, {}, lambda {}", case.shape, case.w, case.clip, step.log_snr);
            // What a rounding of x̂ of 1e-6/α comes to in z'; a clip bounds x̂ and so its error.
            let unbounded = if case.clip == Clip::Static { 0.0 } else { step.mean_x * step.inverse_alpha };
            let allowed =
                if step.is_last == 1 { 1e-6 * (1.0 + step.inverse_alpha) } else { 1e-6 * (1.0 + unbounded) };
            download(&plan, &z_).check_absolute(&format!("z': {what}"), &next, allowed);
            if with_preview {
                let allowed = 1e-6 * (1.0 + step.inverse_alpha);
                download(&plan, &preview).check_absolute(&format!("x: {what}"), &x_hat, allowed);
            }
        }
    }

    fn steps() -> Vec<StepScalars> {
        let between = [(-20.0, -8.778), (-3.0, -2.5), (0.0, 5.0), (11.0, 20.0)];
        let between = between.map(|(low, high)| StepCoefficients::between(low, high, 0.3));
        between.iter().chain(&[StepCoefficients::last(20.0)]).map(StepCoefficients::scalars).collect()
    }

    #[test]
    fn agrees_with_the_reference() {
        for step in steps() {
            for clip in [Clip::None, Clip::Static, Clip::Dynamic { quantile: 0.9 }] {
                for (shape, pair, w) in [
                    ([3, 5, 7, 3], true, 1.5),
                    ([2, 8, 8, 3], true, -0.3),
                    ([2, 4, 4, 1], false, 9.0),
                    ([1, 1, 1, 2], true, 0.3),
                ] {
                    check(&Case { shape, eps_channels: shape[3], pair, w, clip }, step);
                }
            }
        }
    }

    #[test]
    fn variance_channels_are_passed_over() {
        let clip = Clip::Static;
        check(&Case { shape: [2, 3, 5, 3], eps_channels: 6, pair: true, w: 0.5, clip }, steps()[1]);
    }

    /// One plan of one step, run T times, is the sampler's loop.
    #[test]
    fn one_plan_replays_for_all_steps() {
        let case = Case { shape: [2, 4, 4, 3], eps_channels: 3, pair: true, w: 1.0, clip: Clip::Static };
        let table: Vec<StepScalars> = ancestral_steps(&ContinuousSchedule::default(), 6, 0.3)
            .unwrap()
            .iter()
            .map(StepCoefficients::scalars)
            .collect();
        let (start, eps) = (Array::random(&case.shape, 1), Array::random(&[4, 4, 4, 3], 2));
        let mut cx = Context::new(gpu());
        let steps = step_table(&cx, &table).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
        let seeds = cx.constant_u32("seeds", &[2, 2], &[5, 0, 0x89ab_cdef, 0x0123_4567]).unwrap();
        let guidance = cx.constant_f32("w", &[1], &[case.w]).unwrap();
        let times = cx.constant_f32("times", &[4], &[0.0; 4]).unwrap();
        let (z, eps_) = (start.upload(&cx, DType::F32), eps.upload(&cx, DType::F32));
        step_times(&mut cx, &steps, &counter, &times).unwrap();
        let (clip, preview) = (case.clip, None);
        let guided = GuidedStep {
            z: &z,
            eps: &eps_,
            steps: &steps,
            counter: &counter,
            guidance: &guidance,
            seeds: &seeds,
            clip,
            preview,
        };
        guided_step(&mut cx, guided).unwrap();
        advance(&mut cx, &counter).unwrap();
        let plan = cx.finish("sampler").unwrap();
        let mut want = start;
        for (index, step) in table.iter().enumerate() {
            plan.run().unwrap();
            want = expected(&case, &want, &eps, step, index as u64).0;
            assert_eq!(download(&plan, &times).data, [step.time_embedding; 4]);
            download(&plan, &z).check_absolute(&format!("z after step {index}"), &want, 1e-5);
        }
        assert_eq!(download(&plan, &counter).data, [6.0]);
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let z = Array::random(&[2, 4, 4, 3], 1).upload(&cx, DType::F32);
        let eps = Array::random(&[3, 4, 4, 3], 1).upload(&cx, DType::F32);
        let steps = step_table(&cx, &self::steps()).unwrap();
        let word = cx.constant_u32("word", &[1], &[0]).unwrap();
        let w = cx.constant_f32("w", &[1], &[0.0]).unwrap();
        let (clip, preview) = (Clip::Static, None);
        let step = GuidedStep {
            z: &z,
            eps: &eps,
            steps: &steps,
            counter: &word,
            guidance: &w,
            seeds: &word,
            clip,
            preview,
        };
        let error = guided_step(&mut cx, step).unwrap_err().to_string();
        assert!(error.contains("its batch must be 2 or 4"), "{error}");
        let error = guided_step(&mut cx, GuidedStep { eps: &z, ..step }).unwrap_err().to_string();
        assert!(error.contains("seeds must be [2, 2]"), "{error}");
        let error = guided_step(&mut cx, GuidedStep { eps: &z, steps: &w, ..step }).unwrap_err().to_string();
        assert!(error.contains("steps must be"), "{error}");
    }
}
