//! Whole eight-step loops with a network against the reference, the noise being given.

use super::networks::Fixed;
use super::other::Other;
use super::settled::Settled;
use super::slots::{self, Slots};
use super::step::{Combine, StepRecorder, Which};
use super::{ClassifierGuide, Guide, Networks, SamplerOptions};
use crate::diffusion::{
    BetaSchedule, Clip, DiscreteSchedule, LevelSource, Method, Prediction, Process, SamplerKind, Variance,
};
use crate::io::SafetensorsFile;
use crate::model::golden::golden_network;
use crate::model::{KeptVector, load_values};
use crate::nn::unet::QkvLayout;
use crate::nn::unet::tests::small;
use crate::nn::{Classifier, UNetConfig, Weights};
use crate::tensor::{DType, Tensor};
use crate::testing::{Array, Golden, download, gpu, tolerance};

struct Loop {
    name: &'static str,
    respacing: &'static str,
    kind: SamplerKind,
    variance: Variance,
    /// w; the other half has label 0.
    guided: Option<f32>,
    /// Whether the classifier guides, with scale 2.
    classifier: bool,
}

/// 2·log p(y given z) by the golden classifier, summed.
struct GoldenClassifier {
    network: Classifier,
    weights: Weights,
}

impl GoldenClassifier {
    fn new() -> Self {
        let config = UNetConfig {
            out_channels: 10,
            channel_mult: vec![1.0, 1.0],
            qkv_order: QkvLayout::Legacy,
            num_classes: None,
            ..small()
        };
        let network = Classifier::new(&config).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/classifier.safetensors");
        let values = load_values(&SafetensorsFile::open(path).unwrap(), network.parameters(), "w.").unwrap();
        let arena = network.parameters().arena(gpu(), "weights", 1).unwrap();
        arena.write(gpu(), 0, &values).unwrap();
        let weights = arena.weights(network.parameters(), 0);
        GoldenClassifier { network, weights }
    }

    fn guide(&self) -> ClassifierGuide<'_> {
        ClassifierGuide { network: &self.network, weights: self.weights.clone(), scale: 2.0 }
    }
}

/// The latents after each move, N, C, H, W; and, for each of `seeds`, those of a loop in which every number was moved by
/// `rounding`, up or down, before every move.
fn run(golden: &Golden, case: &Loop, rounding: f32, seeds: &[u64]) -> Vec<Vec<Array>> {
    let schedule = DiscreteSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
    let process = Process {
        levels: LevelSource::Discrete(schedule, 1.0),
        prediction: Prediction::Eps,
        variance: Variance::LearnedRange,
    };
    let respacing = Some(case.respacing.parse().unwrap());
    let method = Method { kind: Some(case.kind), respacing, ..Method::default() };
    let (moves, variance) = process.moves(&method, 1, 0.0).unwrap();
    assert_eq!(variance, case.variance);
    let told: Vec<f64> = moves.iter().map(|step| step.level.time).collect();
    if let Some(want) = golden.try_f64s(&format!("{}.t_model", case.name)) {
        assert_eq!(told, want);
    }

    let (unet, arena) = golden_network();
    let (classifier, weights) = (GoldenClassifier::new(), arena.weights(unet.parameters(), 0));
    let guide = classifier.guide();
    let guide = case.classifier.then_some(&guide as &dyn Guide);
    let networks = Networks { guide, ..Networks::of(&unet, &weights) };
    let options =
        SamplerOptions { method, variance_exponent: 0.0, guided: false, ..SamplerOptions::new(2, 1) };
    // The product's own step, but for the noise.
    let mut settled = Settled::new(&networks, &process, options).unwrap();
    if case.guided.is_some() {
        // The network has no null class; the reference's other half is class 0.
        settled.others = vec![Other { class: Some(0), tokens: true, vector: KeptVector::Whole }];
    }
    let noise = slots::empty(gpu(), "noise", &[2, 16, 16, 3], DType::F32).unwrap();
    let slots = Slots { noise: Some(noise), ..Slots::new(gpu(), &networks, &settled).unwrap() };
    let write = |to: &Tensor, bytes: &[u8]| slots::write(gpu(), to, bytes).unwrap();
    let mut labels: Vec<u32> = golden.f64s("in.y").into_iter().map(|y| y as u32).collect();
    slots.wanted.iter().for_each(|wanted| write(wanted, bytemuck::cast_slice(&labels)));
    labels.resize(slots.rows.as_ref().unwrap().len(), 0);
    write(slots.rows.as_ref().unwrap(), bytemuck::cast_slice(&labels));
    write(&slots.weight, bytemuck::bytes_of(&case.guided.unwrap_or(0.0)));
    let fixed = Fixed::new(gpu(), &networks, &settled, &slots).unwrap();
    let recorder = StepRecorder {
        gpu: gpu(),
        name: "golden",
        evaluations: &fixed.evaluations(gpu(), &settled, &slots).unwrap(),
        mixed: 1,
        combine: Combine::InStep,
        guide: networks.guide,
        walk: &settled.walk,
        slots: &slots,
        clip: Clip::Static,
        fast: false,
    };
    let plan = recorder.step(Which::All).unwrap();

    let all = golden.array("noise");
    let follow = |seed: Option<u64>| {
        let mut now = golden.array("xT");
        write(&slots.counter, &[0; 4]);
        let moves = (0..moves.len()).map(|k| {
            if let Some(seed) = seed {
                let signs = Array::random(&now.shape, 100 * seed + k as u64).map(f32::signum);
                now = now.zip(&signs, |z, sign| z + rounding * sign);
            }
            write(&slots.z, bytemuck::cast_slice(&now.clone().nhwc().data));
            let own = Array::new(&[2, 3, 16, 16], all.data[k * 1536..][..1536].to_vec()).nhwc();
            write(slots.noise.as_ref().unwrap(), bytemuck::cast_slice(&own.data));
            plan.run().unwrap();
            now = download(&plan, &slots.z).permute(&[0, 3, 1, 2]);
            now.clone()
        });
        moves.collect()
    };
    [None].into_iter().chain(seeds.iter().copied().map(Some)).map(follow).collect()
}

/// What a network's output is rounded by.
const EPS_ROUNDING: f32 = 1.2e-6;

fn largest(x: &Array) -> f32 {
    x.data.iter().fold(0f32, |m, x| m.max(x.abs()))
}

/// The last latents, sample by sample, against the reference. `rounding` is what eps may be off by in every step; latents
/// that are moved by as much show what comes of it, and twice that is allowed. Each number has a sign of its own, as rounding
/// has, for what decides may be a single one. Returns how many samples hardly answered.
fn check_final(golden: &Golden, case: &Loop, rounding: f32, seeds: &[u64]) -> usize {
    let loops = run(golden, case, rounding, seeds);
    let ends: Vec<Array> = loops.into_iter().map(|mut moves| moves.pop().unwrap()).collect();
    let want = golden.array(&format!("{}.final", case.name));
    let mut strict = 0;
    for n in 0..2 {
        let sample = |x: &Array| Array::new(&[768], x.data[n * 768..][..768].to_vec());
        let got = sample(&ends[0]);
        let change_of = |moved: &Array| largest(&got.zip(&sample(moved), |a, b| a - b));
        let change = ends[1..].iter().map(change_of).fold(0f32, f32::max);
        strict += usize::from(change < 3e-4);
        let name = format!("{}.final of sample {n}", case.name);
        got.check_absolute(&name, &sample(&want), (2.0 * change).max(1e-5));
    }
    strict
}

#[test]
fn loops_follow_the_reference() {
    let golden = Golden::open("sample_loops");
    let ancestral = Loop {
        name: "ancestral",
        respacing: "8",
        kind: SamplerKind::Ancestral,
        variance: Variance::LearnedRange,
        guided: None,
        classifier: false,
    };
    let (kind, variance) = (SamplerKind::Ddim, Variance::Small);
    let ddim = Loop { name: "ddim", respacing: "ddim8", kind, variance, guided: None, classifier: false };
    for case in [&ancestral, &ddim] {
        let want = golden.array(&format!("{}.traj", case.name));
        let loops = run(&golden, case, EPS_ROUNDING, &[1]);
        for (k, (got, moved)) in loops[0].iter().zip(&loops[1]).enumerate() {
            let want = Array::new(&[2, 3, 16, 16], want.data[k * 1536..][..1536].to_vec());
            let usual = tolerance(DType::F32) * largest(&want);
            let change = largest(&got.zip(moved, |a, b| a - b));
            got.check_absolute(&format!("{} after move {k}", case.name), &want, (2.0 * change).max(usual));
        }
    }
    for (name, case) in [("guided", &ancestral), ("ddim_guided", &ddim)] {
        let case = Loop { name, classifier: true, ..*case };
        assert_eq!(
            check_final(&golden, &case, EPS_ROUNDING, &[1]),
            2,
            "{name}: all samples are well conditioned"
        );
    }
    // Guided are 2.5 of one and 1.5 of the other. At the first step 1/α is 20,000: where an x̂ = (z - σ·eps)/α there is not
    // clipped, the rounding of eps decides it, and the whole sample follows.
    let case = Loop { name: "cfg", guided: Some(1.5), ..ancestral };
    assert!(check_final(&golden, &case, 3.5e-6, &[1, 2]) > 0, "no sample is well conditioned");
}
