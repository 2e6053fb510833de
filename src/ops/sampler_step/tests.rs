use super::*;
use crate::diffusion::moves::{ancestral, ddim, ddim_reverse, dpmpp_2m_sde, heun, walk};
use crate::diffusion::{BetaSchedule, DiscreteSchedule, Level, LevelSource, Move, Prediction};
use crate::ops::{advance, step_times};
use crate::random::fill_normal;
use crate::testing::{Array, Golden, download, gpu};

/// How one golden step is taken.
struct Taken<'a> {
    moves: &'a [Move],
    /// Which of `moves` each sample takes.
    which: Vec<u32>,
    prediction: Prediction,
    variance: Variance,
    clip: Clip,
    guided: bool,
}

/// The next latents, in N, C, H, W.
fn take(golden: &Golden, schedule: &str, noise: Option<&str>, step: &Taken<'_>) -> Array {
    let mut cx = Context::new(gpu());
    let upload = |name: &str, cx: &Context| golden.array(name).nhwc().upload(cx, DType::F32);
    let z = upload(&format!("{schedule}.x_t"), &cx);
    let mut out = golden.array("model_out").nhwc();
    if !step.variance.is_learned() {
        out = Array::new(&[6, 4, 4, 3], out.data.chunks(6).flat_map(|six| six[..3].to_vec()).collect());
    }
    let out = out.upload(&cx, DType::F32);
    let gradient = upload("cond_grad", &cx);
    let noise = match noise {
        Some(name) => upload(name, &cx),
        None => cx.constant_f32("no noise", &[6, 4, 4, 3], &[0.0; 288]).unwrap(),
    };
    let rows: Vec<StepRow> = step.moves.iter().map(|m| StepRow::new(m, step.prediction).unwrap()).collect();
    let steps = move_table(&cx, &rows).unwrap();
    let counter = cx.constant_u32("counter", &[6], &step.which).unwrap();
    let guidance = cx.constant_f32("w", &[1], &[0.0]).unwrap();
    let step = SamplerStep {
        z: &z,
        out: &out,
        steps: &steps,
        counter: &counter,
        guidance: &guidance,
        noise: StepNoise::Given(&noise),
        variance: step.variance,
        clip: step.clip,
        gradient: step.guided.then_some(&gradient),
        previous: None,
    };
    sampler_step(&mut cx, step).unwrap();
    let plan = cx.finish("step").unwrap();
    plan.run().unwrap();
    download(&plan, &z).permute(&[0, 3, 1, 2])
}

fn process(schedule: &str) -> DiscreteSchedule {
    DiscreteSchedule::new(schedule.parse::<BetaSchedule>().unwrap(), 1000).unwrap()
}

/// Moves run from noisy to clean, so step t of T is move T - 1 - t.
fn which(golden: &Golden, name: &str, steps: usize) -> Vec<u32> {
    golden.f64s(name).into_iter().map(|t| (steps - 1 - t as usize) as u32).collect()
}

#[test]
fn single_steps_match_the_reference() {
    let golden = Golden::open("diffusion_steps");
    for schedule in ["linear", "cosine"] {
        let whole = process(schedule);
        let (prediction, variance) = (Prediction::Eps, Variance::LearnedRange);
        let chain = ancestral(&whole, 1.0, variance);
        let levels = LevelSource::Discrete(whole.clone(), 1.0).own(0);
        let deterministic = ddim(&levels, 0.0).unwrap();
        let noisy = ddim(&levels, 0.7).unwrap();
        let noise = Some("step_noise");
        for (name, moves, noise, clip, guided) in [
            ("p_sample", &chain, noise, Clip::Static, false),
            ("p_sample_cond", &chain, noise, Clip::Static, true),
            ("p_mean", &chain, None, Clip::Static, false),
            ("p_mean_noclip", &chain, None, Clip::None, false),
            ("ddim_eta0", &deterministic, noise, Clip::Static, false),
            ("ddim_eta07", &noisy, noise, Clip::Static, false),
            ("ddim_cond", &deterministic, noise, Clip::Static, true),
        ] {
            let which = which(&golden, "t", 1000);
            // DDIM's variance is its own.
            let learned = name.starts_with("p_");
            let variance = if learned { variance } else { Variance::Small };
            let step = Taken { moves, which, prediction, variance, clip, guided };
            golden.check(&format!("{schedule}.{name}"), &take(&golden, schedule, noise, &step), DType::F32);
        }
        // The reverse runs from clean to noisy: move t is step t.
        let back = ddim_reverse(&levels);
        let which = golden.f64s("t_reverse").into_iter().map(|t| t as u32).collect();
        let (variance, clip, guided) = (Variance::Small, Clip::Static, false);
        let step = Taken { moves: &back, which, prediction, variance, clip, guided };
        let got = take(&golden, schedule, None, &step);
        golden.check(&format!("{schedule}.ddim_reverse"), &got, DType::F32);
    }
}

/// Every mean and variance type; the variance from the difference that a noise of ones makes.
#[test]
fn every_mean_and_variance_type_matches_the_reference() {
    let golden = Golden::open("diffusion_steps");
    let mut seen = 0;
    for schedule in ["linear", "cosine"] {
        let whole = process(schedule);
        for (mean, prediction) in
            [("EPSILON", Prediction::Eps), ("START_X", Prediction::X0), ("PREVIOUS_X", Prediction::PreviousX)]
        {
            for (name, variance) in [
                ("LEARNED", Variance::Learned),
                ("FIXED_SMALL", Variance::Small),
                ("FIXED_LARGE", Variance::Large),
                ("LEARNED_RANGE", Variance::LearnedRange),
            ] {
                let key = format!("{schedule}.types.{mean}.{name}");
                let Some(mean) = golden.get(&format!("{key}.mean")) else { continue };
                seen += 1;
                let mut moves = ancestral(&whole, 1.0, variance);
                // The reference's variance at t = 0, where the move itself adds none.
                moves[999].noise_sd =
                    if variance.is_learned() { 1.0 } else { (0.5 * whole.posterior_log_variance(0)).exp() };
                let which = which(&golden, "t", 1000);
                let (clip, guided) = (Clip::Static, false);
                let step = Taken { moves: &moves, which, prediction, variance, clip, guided };
                let got = take(&golden, schedule, None, &step);
                got.check(&format!("{key}.mean"), &mean, DType::F32);
                if let Some(log_variance) = golden.get(&format!("{key}.log_variance")) {
                    let noise = golden.array("step_noise");
                    let with_noise = take(&golden, schedule, Some("step_noise"), &step);
                    let want = log_variance.zip(&noise, |v, noise| (0.5 * v).exp() * noise);
                    let got = with_noise.zip(&got, |a, b| a - b);
                    got.check_absolute(&format!("{key} noise"), &want, 1e-6);
                }
            }
        }
    }
    assert_eq!(seen, 4 + 12);
}

#[test]
fn respaced_steps_match_the_reference() {
    let golden = Golden::open("diffusion_steps");
    for schedule in ["linear", "cosine"] {
        for spec in ["ddim25", "25"] {
            let kept = process(schedule).respaced(&spec.parse().unwrap()).unwrap();
            let key = format!("{schedule}.spaced.{spec}");
            let told: Vec<f64> = golden.f64s("t_spaced").iter().map(|&t| kept.timestep(t as usize)).collect();
            assert_eq!(told, golden.f64s(&format!("{key}.t_model")));
            let chain = ancestral(&kept, 1.0, Variance::LearnedRange);
            let flow = ddim(&LevelSource::Discrete(kept, 1.0).own(0), 0.0).unwrap();
            for (name, moves, variance) in
                [("p_sample", &chain, Variance::LearnedRange), ("ddim", &flow, Variance::Small)]
            {
                let which = which(&golden, "t_spaced", 25);
                let (prediction, clip, guided) = (Prediction::Eps, Clip::Static, false);
                let step = Taken { moves, which, prediction, variance, clip, guided };
                let got = take(&golden, schedule, Some("step_noise"), &step);
                golden.check(&format!("{key}.{name}"), &got, DType::F32);
            }
        }
    }
}

/// The reference's classifier-free step, its coefficients being given.
#[test]
fn a_classifier_free_step_matches_the_reference() {
    let golden = Golden::open("diffusion_steps");
    let coefficients = golden.f64s("cfg.coef");
    let moves: Vec<Move> = (0..6)
        .map(|n| {
            let [sigma, alpha, mean_z, mean_x, noise_sd] = [0, 1, 2, 3, 4].map(|i| coefficients[i * 6 + n]);
            Move {
                level: Level { alpha, sigma, time: 0.0 },
                mean_z,
                mean_x,
                mean_previous: 0.0,
                mean_gradient: 0.0,
                noise_sd,
                log_variances: None,
            }
        })
        .collect();
    let rows: Vec<StepRow> = moves.iter().map(|m| StepRow::new(m, Prediction::Eps).unwrap()).collect();
    let mut cx = Context::new(gpu());
    let conditional: Vec<f32> =
        golden.array("model_out").nhwc().data.chunks(6).flat_map(|six| six[..3].to_vec()).collect();
    let both = [conditional, golden.array("cfg.e_u").nhwc().data].concat();
    let z = golden.array("cosine.x_t").nhwc().upload(&cx, DType::F32);
    let out = cx.constant_f32("out", &[12, 4, 4, 3], &both).unwrap();
    let noise = golden.array("step_noise").nhwc().upload(&cx, DType::F32);
    let steps = move_table(&cx, &rows).unwrap();
    let counter = cx.constant_u32("counter", &[6], &[0, 1, 2, 3, 4, 5]).unwrap();
    let guidance = cx.constant_f32("w", &[1], &[1.5]).unwrap();
    let step = SamplerStep {
        z: &z,
        out: &out,
        steps: &steps,
        counter: &counter,
        guidance: &guidance,
        noise: StepNoise::Given(&noise),
        variance: Variance::Small,
        clip: Clip::Static,
        gradient: None,
        previous: None,
    };
    sampler_step(&mut cx, step).unwrap();
    let plan = cx.finish("step").unwrap();
    plan.run().unwrap();
    golden.check("cfg.out", &download(&plan, &z).permute(&[0, 3, 1, 2]), DType::F32);
}

/// One plan of one move, run for all moves, against the host's loop: own noise, history, clips, guided output.
#[test]
fn one_plan_replays_for_all_moves() {
    let seeds = [5u64, 0x0123_4567_89ab_cdef];
    let shape = [2, 3, 5, 3];
    let levels: Vec<Level> = (0..6).map(|i| Level::continuous(-5.0 + 1.7 * f64::from(i))).collect();
    for (name, moves, multistep) in [
        ("ddim", ddim(&levels, 0.6).unwrap(), false),
        ("heun", heun(&levels), true),
        ("dpmpp-2m-sde", dpmpp_2m_sde(&levels, 1.0).unwrap(), true),
    ] {
        for (clip, pushed) in
            [(Clip::Static, false), (Clip::Dynamic { quantile: 0.8 }, true), (Clip::None, true)]
        {
            for prediction in [Prediction::Eps, Prediction::V] {
                let (start, fixed) = (Array::random(&shape, 1).map(|z| 2.0 * z), Array::random(&shape, 2));
                let push = Array::random(&shape, 3);
                let rows: Vec<StepRow> = moves.iter().map(|m| StepRow::new(m, prediction).unwrap()).collect();
                let mut cx = Context::new(gpu());
                let steps = move_table(&cx, &rows).unwrap();
                let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
                let halves: Vec<u32> = seeds.iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
                let seeds_ = cx.constant_u32("seeds", &[2, 2], &halves).unwrap();
                let guidance = cx.constant_f32("w", &[1], &[0.0]).unwrap();
                let times = cx.constant_f32("times", &[2], &[0.0; 2]).unwrap();
                let (z, gradient) = (start.upload(&cx, DType::F32), push.upload(&cx, DType::F32));
                let previous = cx.constant_f32("previous", &shape, &[0.0; 90]).unwrap();
                // The network's output depends on z: out = fixed + z/2.
                let fixed_ = fixed.upload(&cx, DType::F32);
                let half = crate::ops::scale(&mut cx, &z, 0.5).unwrap();
                let out = crate::ops::add(&mut cx, &fixed_, &half, 1.0).unwrap();
                step_times(&mut cx, &steps, &counter, &times).unwrap();
                if pushed {
                    guide_output(&mut cx, &out, &gradient, &steps, &counter).unwrap();
                }
                let step = SamplerStep {
                    z: &z,
                    out: &out,
                    steps: &steps,
                    counter: &counter,
                    guidance: &guidance,
                    noise: StepNoise::Seeds(&seeds_),
                    variance: Variance::Small,
                    clip,
                    gradient: None,
                    previous: multistep.then_some(&previous),
                };
                sampler_step(&mut cx, step).unwrap();
                advance(&mut cx, &counter).unwrap();
                let plan = cx.finish("sampler").unwrap();
                for m in &moves {
                    plan.run().unwrap();
                    assert_eq!(download(&plan, &times).data, [m.level.time as f32; 2]);
                }
                let got = download(&plan, &z).permute(&[0, 3, 1, 2]);
                let chw = |x: &Array, n: usize| -> Vec<f64> {
                    x.permute(&[0, 3, 1, 2]).data[n * 45..][..45].iter().map(|&x| x.into()).collect()
                };
                let mut want = Vec::new();
                for (n, &seed) in seeds.iter().enumerate() {
                    let (fixed, push) = (chw(&fixed, n), chw(&push, n));
                    let mut denoise = |z: &[f64], level: &Level| {
                        let (of_z, of_out) = prediction.x_factors(level.alpha, level.sigma, (0.0, 0.0));
                        // eps - σ g, as x̂ + σ² g/α.
                        let shift = if pushed { level.sigma.powi(2) / level.alpha } else { 0.0 };
                        let x = |i: usize| of_z * z[i] + of_out * (fixed[i] + 0.5 * z[i]) + shift * push[i];
                        let mut x: Vec<f64> = (0..z.len()).map(x).collect();
                        clip.apply(&mut x);
                        Ok(x)
                    };
                    let noise = |index: usize| -> Vec<f64> {
                        let noise = fill_normal(seed, index as u64, Stream::StepNoise, 45);
                        noise.into_iter().map(f64::from).collect()
                    };
                    want.extend(walk(&mut denoise, &moves, chw(&start, n), noise).unwrap());
                }
                let want = Array::new(&[2, 3, 3, 5], want.into_iter().map(|x| x as f32).collect());
                let what = format!("{name}, {prediction}, {clip}, pushed {pushed}");
                got.check_within(&what, &want, 2e-5);
            }
        }
    }
}

#[test]
fn misfits_are_errors() {
    let mut cx = Context::new(gpu());
    let z = Array::random(&[2, 4, 4, 3], 1).upload(&cx, DType::F32);
    let levels = [Level::continuous(0.0)];
    let rows: Vec<StepRow> =
        ddim(&levels, 0.0).unwrap().iter().map(|m| StepRow::new(m, Prediction::Eps).unwrap()).collect();
    let steps = move_table(&cx, &rows).unwrap();
    let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
    let w = cx.constant_f32("w", &[1], &[0.0]).unwrap();
    let step = SamplerStep {
        z: &z,
        out: &z,
        steps: &steps,
        counter: &counter,
        guidance: &w,
        noise: StepNoise::Given(&z),
        variance: Variance::LearnedRange,
        clip: Clip::None,
        gradient: None,
        previous: None,
    };
    let error = sampler_step(&mut cx, step).unwrap_err().to_string();
    assert!(error.contains("learned variances need 6 channels"), "{error}");
    let three = Array::random(&[3, 4, 4, 3], 1).upload(&cx, DType::F32);
    let step = SamplerStep { out: &three, variance: Variance::Small, ..step };
    assert!(sampler_step(&mut cx, step).unwrap_err().to_string().contains("its batch must be 2 or 4"));
    assert!(move_table(&cx, &[]).is_err());
    let row = StepRow::new(&ddim(&levels, 0.0).unwrap()[0], Prediction::PreviousX);
    assert!(row.unwrap_err().to_string().contains("ancestral"));
}
