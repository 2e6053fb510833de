//! An expression inside the kernels of a step: the same bits as the rule that it says, and as the combination made before.

use super::*;
use crate::diffusion::moves::{ddim, dpmpp_2m};
use crate::diffusion::{Clip, ContinuousSchedule, Level, Prediction, StepRow, Variance, ancestral_steps};
use crate::ops::{
    GuidedStep, SamplerStep, StepNoise, guided_step, guided_step_by, move_table, sampler_step,
    sampler_step_by, step_table,
};
use crate::testing::{Array, download, gpu};

/// Odd sizes, and one that the packed kernels take.
const SHAPES: [[usize; 4]; 3] = [[3, 1, 1, 7], [2, 3, 7, 1], [2, 8, 12, 3]];
/// Classifier-free guidance as the built-in rule has it.
const CFG: &str = "(1.0 + w) * eps_c + (-w) * eps_u";
const WEIGHT: f64 = 1.7;
/// The step under way.
const STEP: u32 = 2;

/// How the two predictions become one.
#[derive(Clone, Copy, PartialEq)]
enum Rule<'a> {
    BuiltIn,
    Before(&'a str),
    Inside(&'a str),
}

fn coefficients() -> Vec<StepCoefficients> {
    ancestral_steps(&ContinuousSchedule::new(-6.0, 6.0).unwrap(), 5, 0.3).unwrap()
}

struct World {
    cx: Context,
    z: Tensor,
    eps: Tensor,
    table: Tensor,
    counter: Tensor,
    guidance: Tensor,
    seeds: Tensor,
}

impl World {
    fn new(shape: [usize; 4], channels: usize, guiders: &Guiders, dtype: DType) -> World {
        let cx = Context::new(gpu());
        let [n, h, w, _] = shape;
        let rows = guider_table(guiders, WEIGHT, &coefficients());
        let seeds: Vec<u32> = (0..2 * n as u32).map(|i| 7 * i).collect();
        World {
            z: Array::random(&shape, 1).map(|z| 2.0 * z).upload(&cx, DType::F32),
            eps: Array::random(&[2 * n, h, w, channels], 2).upload(&cx, dtype),
            table: cx.constant_f32("guiders", &[coefficients().len(), GUIDER_ROW], &rows).unwrap(),
            counter: cx.constant_u32("counter", &[1], &[STEP]).unwrap(),
            guidance: cx.constant_f32("w", &[1], &[WEIGHT as f32]).unwrap(),
            seeds: cx.constant_u32("seeds", &[n, 2], &seeds).unwrap(),
            cx,
        }
    }

    /// What the step's kernel takes, and the guidance beside it.
    fn combined(&mut self, rule: Rule<'_>, guiders: &Guiders) -> (Tensor, Tensor) {
        match rule {
            Rule::BuiltIn => (self.eps.clone(), self.guidance.clone()),
            Rule::Inside(_) => (self.eps.clone(), self.table.clone()),
            Rule::Before(_) => {
                let World { cx, z, eps, table, counter, .. } = self;
                let made = guided_eps(cx, guiders, Guided { z, eps, table, counter }, None).unwrap();
                (made, self.guidance.clone())
            }
        }
    }
}

fn guiders(rule: Rule<'_>) -> Guiders {
    match rule {
        Rule::BuiltIn => Guiders::default(),
        Rule::Before(text) | Rule::Inside(text) => format!("expression({text})").parse().unwrap(),
    }
}

/// z, x̂ and the number of dispatches of a step of Algorithm 2.
fn ancestral(rule: Rule<'_>, shape: [usize; 4], clip: Clip, dtype: DType) -> (Array, Array, usize) {
    let guiders = guiders(rule);
    let mut world = World::new(shape, shape[3], &guiders, dtype);
    let (eps, guidance) = world.combined(rule, &guiders);
    let World { mut cx, z, counter, seeds, .. } = world;
    let scalars: Vec<_> = coefficients().iter().map(StepCoefficients::scalars).collect();
    let steps = step_table(&cx, &scalars).unwrap();
    let preview = cx.constant_f32("preview", z.shape(), &vec![0.0; z.len()]).unwrap();
    let step = GuidedStep {
        z: &z,
        eps: &eps,
        steps: &steps,
        counter: &counter,
        guidance: &guidance,
        seeds: &seeds,
        clip,
        preview: Some(&preview),
    };
    match rule {
        Rule::Inside(text) => guided_step_by(&mut cx, step, text).unwrap(),
        _ => guided_step(&mut cx, step).unwrap(),
    }
    let plan = cx.finish("step").unwrap();
    plan.run().unwrap();
    (download(&plan, &z), download(&plan, &preview), plan.labels().count())
}

#[test]
fn cfg_as_an_expression_has_the_bits_of_the_built_in_rule() {
    for shape in SHAPES {
        for clip in [Clip::None, Clip::Static] {
            for dtype in crate::testing::dtypes() {
                let built_in = ancestral(Rule::BuiltIn, shape, clip, dtype);
                let inside = ancestral(Rule::Inside(CFG), shape, clip, dtype);
                assert!(built_in == inside, "{shape:?} {clip} {dtype:?}");
            }
        }
    }
}

#[test]
fn any_expression_inside_the_step_is_that_before_it_and_a_dispatch_less() {
    for text in [
        "eps_c + w * tanh(eps_c - eps_u)",
        "mix(eps_u, eps_c, step(0.3, progress)) + z * sigma * alpha - 0.01 * log_snr",
        // An index, so compiled with its checks.
        "array(eps_c, eps_u)[i32(w)]",
    ] {
        for shape in SHAPES {
            let (z, x, dispatches) = ancestral(Rule::Before(text), shape, Clip::Static, DType::F32);
            let inside = ancestral(Rule::Inside(text), shape, Clip::Static, DType::F32);
            inside.0.check_within(text, &z, 1e-6);
            inside.1.check_within(text, &x, 1e-6);
            assert_eq!(inside.2 + 1, dispatches, "{text}");
        }
    }
}

/// z and the x̂ kept for the next move, of each kernel of `sampler_step`.
fn moved(rule: Rule<'_>, shape: [usize; 4], variance: Variance, kernel: &str) -> (Array, Option<Array>) {
    let guiders = guiders(rule);
    let channels = if variance.is_learned() { 2 * shape[3] } else { shape[3] };
    let mut world = World::new(shape, channels, &guiders, DType::F32);
    let (mut out, guidance) = world.combined(rule, &guiders);
    if matches!(rule, Rule::Before(_)) && variance.is_learned() {
        out = put_guided(&mut world.cx, &world.eps, &out).unwrap();
    }
    let World { mut cx, z, counter, seeds, .. } = world;
    let levels: Vec<Level> = coefficients().iter().map(|step| Level::continuous(step.log_snr)).collect();
    let moves = if kernel == "multistep" { dpmpp_2m(&levels) } else { ddim(&levels, 0.5).unwrap() };
    let rows: Vec<StepRow> = moves.iter().map(|step| StepRow::new(step, Prediction::Eps).unwrap()).collect();
    let steps = move_table(&cx, &rows).unwrap();
    let noise = Array::random(&shape, 5).upload(&cx, DType::F32);
    let previous = (kernel == "multistep").then(|| Array::random(&shape, 6).upload(&cx, DType::F32));
    let step = SamplerStep {
        z: &z,
        out: &out,
        steps: &steps,
        counter: &counter,
        guidance: &guidance,
        noise: if kernel == "given" { StepNoise::Given(&noise) } else { StepNoise::Seeds(&seeds) },
        variance,
        clip: Clip::Static,
        gradient: None,
        previous: previous.as_ref(),
    };
    match rule {
        Rule::Inside(text) => sampler_step_by(&mut cx, step, text).unwrap(),
        _ => sampler_step(&mut cx, step).unwrap(),
    }
    let plan = cx.finish("move").unwrap();
    plan.run().unwrap();
    (download(&plan, &z), previous.map(|previous| download(&plan, &previous)))
}

#[test]
fn every_kernel_of_a_move_takes_an_expression() {
    let other = "eps_c + w * tanh(eps_c - eps_u) * progress";
    for shape in SHAPES {
        for kernel in ["step", "multistep", "given"] {
            for variance in [Variance::Small, Variance::LearnedRange] {
                let run = |rule| moved(rule, shape, variance, kernel);
                assert!(run(Rule::BuiltIn) == run(Rule::Inside(CFG)), "{kernel} on {shape:?}");
                let (before, inside) = (run(Rule::Before(other)), run(Rule::Inside(other)));
                inside.0.check_within(kernel, &before.0, 1e-6);
                assert_ne!(inside.0, run(Rule::BuiltIn).0);
            }
        }
    }
}

#[test]
fn what_a_rule_cannot_be_recorded_with_is_refused() {
    let refused = |clip, one: bool, text: &str| {
        let World { mut cx, z, eps, table, counter, seeds, .. } =
            World::new([2, 3, 7, 1], 1, &Guiders::default(), DType::F32);
        let scalars: Vec<_> = coefficients().iter().map(StepCoefficients::scalars).collect();
        let steps = step_table(&cx, &scalars).unwrap();
        let (eps, guidance) = (if one { &z } else { &eps }, &table);
        let (z, steps, counter, seeds) = (&z, &steps, &counter, &seeds);
        let step = GuidedStep { z, eps, steps, counter, guidance, seeds, clip, preview: None };
        guided_step_by(&mut cx, step, text).unwrap_err().to_string()
    };
    let dynamic = Clip::Dynamic { quantile: 0.9 };
    assert!(refused(dynamic, false, "eps_c").contains("dynamic threshold"));
    assert!(refused(Clip::Static, true, "eps_c").contains("twice as many"));
    assert!(refused(Clip::Static, false, "strength[0]").contains("strength"));
}
