use super::*;
use crate::diffusion::{ContinuousSchedule, Guidance, StepCoefficients, ancestral_steps, reference};
use crate::ops::{advance, step_times};
use crate::random::fill_normal;
use crate::testing::{Array, download, dtypes, gpu, rungs};

struct Case {
    shape: [usize; 4],
    eps_channels: usize,
    pair: bool,
    w: f32,
    clip: Clip,
    /// The type of eps.
    dtype: DType,
}

/// Every rung with every type of eps.
fn ways() -> Vec<(Rung, DType)> {
    rungs().into_iter().flat_map(|rung| dtypes().into_iter().map(move |dtype| (rung, dtype))).collect()
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

fn check(rung: Rung, case: &Case, step: StepScalars) {
    let [n, h, w, _] = case.shape;
    let batch = if case.pair { 2 * n } else { n };
    let z = Array::random(&case.shape, 1).map(|z| 2.0 * z);
    let eps = Array::random(&[batch, h, w, case.eps_channels], 2).map(|eps| 2.0 * eps);
    for with_preview in [false, true] {
        let mut cx = Context::new(gpu());
        cx.set_rung(rung);
        let index = 2u32;
        let filler = StepCoefficients::last(1.0).scalars();
        let steps = step_table(&cx, &[filler, filler, step]).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[index]).unwrap();
        let halves: Vec<u32> = SEEDS[..n].iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
        let seeds = cx.constant_u32("seeds", &[n, 2], &halves).unwrap();
        let guidance = cx.constant_f32("w", &[1], &[case.w]).unwrap();
        let (z_, eps_) = (z.upload(&cx, DType::F32), eps.upload(&cx, case.dtype));
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
        let what = format!("{rung} {:?}, w {}, {}, lambda {}", case.shape, case.w, case.clip, step.log_snr);
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
                for (rung, dtype) in ways() {
                    check(rung, &Case { shape, eps_channels: shape[3], pair, w, clip, dtype }, step);
                }
            }
        }
    }
}

#[test]
fn variance_channels_are_passed_over() {
    let (clip, w) = (Clip::Static, 0.5);
    for (shape, pair) in
        [([2, 3, 5, 3], true), ([2, 4, 5, 3], true), ([3, 2, 2, 5], true), ([2, 6, 6, 4], false)]
    {
        for (rung, dtype) in ways() {
            check(rung, &Case { shape, eps_channels: 2 * shape[3], pair, w, clip, dtype }, steps()[1]);
        }
    }
}

/// Of several workgroups, the last one not whole.
#[test]
fn large_images_agree_too() {
    let clip = Clip::Dynamic { quantile: 0.995 };
    for (rung, dtype) in ways() {
        check(
            rung,
            &Case { shape: [3, 22, 26, 3], eps_channels: 3, pair: true, w: 2.0, clip, dtype },
            steps()[2],
        );
    }
}

/// One plan of one step, run T times, is the sampler's loop.
#[test]
fn one_plan_replays_for_all_steps() {
    let case = Case {
        shape: [2, 4, 4, 3],
        eps_channels: 3,
        pair: true,
        w: 1.0,
        clip: Clip::Static,
        dtype: DType::F32,
    };
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
