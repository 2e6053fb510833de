//! A picture is a function of the model, the seed, the class and the sampler's options: of nothing else.

mod common;

use std::path::Path;

use common::{gpu, requests, sampler_options};
use freeguide::diffusion::{Clip, ContinuousSchedule, Guidance};
use freeguide::gpu::Gpu;
use freeguide::model::{Checkpoint, Model};
use freeguide::nn::{UNet, Weights};
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::tensor::DType;
use rand::{RngExt, SeedableRng};

/// A network whose every weight matters; an untrained one would begin with layers of zeros.
struct Random {
    gpu: Gpu,
    unet: UNet,
    weights: Weights,
}

impl Random {
    fn new() -> Random {
        let (gpu, mut options) = (gpu(), common::tiny(8));
        options.unet.channel_mult = vec![1.0, 2.0];
        let unet = UNet::new(&options.unet).unwrap();
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let values: Vec<Vec<f32>> = unet
            .parameters()
            .specs()
            .iter()
            .map(|spec| (0..spec.len()).map(|_| rng.random_range(-0.25..0.25)).collect())
            .collect();
        let arena = unet.parameters().arena(&gpu, "weights", 1).unwrap();
        arena.write(&gpu, 0, &values).unwrap();
        let weights = arena.weights(unet.parameters(), 0);
        Random { gpu, unet, weights }
    }

    fn sampler(&self, options: SamplerOptions) -> Sampler {
        Sampler::new(&self.gpu, &self.unet, &self.weights, &ContinuousSchedule::default(), options).unwrap()
    }

    /// The bits of the requested pictures, in a sampler of `options`.
    fn bits(&self, options: SamplerOptions, guidance: Guidance, requests: &[Request]) -> Vec<Vec<u32>> {
        let sampler = self.sampler(options);
        bits_of(&sampler, guidance, requests)
    }
}

fn bits_of(sampler: &Sampler, guidance: Guidance, requests: &[Request]) -> Vec<Vec<u32>> {
    let mut pictures = Vec::new();
    for batch in requests.chunks(sampler.options().batch) {
        let mut run = sampler.start(batch, guidance).unwrap();
        (0..sampler.options().steps).for_each(|_| run.step().unwrap());
        assert!(run.finished() && run.step().unwrap_err().to_string().contains("complete"));
        let values = sampler.read(batch.len()).unwrap();
        assert!(values.iter().all(|x| x.is_finite()));
        pictures.extend(values.chunks(64).map(|picture| picture.iter().map(|x| x.to_bits()).collect()));
    }
    pictures
}

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

const STEPS: usize = 6;

#[test]
fn neither_the_batch_nor_the_neighbours_change_a_bit() {
    let random = Random::new();
    let all: Vec<Request> = (0..8).map(|i| Request::new(Some(i), 1000 + u64::from(i))).collect();
    let whole = random.bits(sampler_options(8, STEPS), w(1.5), &all);
    assert_ne!(whole[0], whole[1]);

    let one = random.bits(sampler_options(1, STEPS), w(1.5), &all);
    let three = random.bits(sampler_options(3, STEPS), w(1.5), &all);
    assert!(whole == one, "a batch of 8 and one by one");
    assert!(whole == three, "a batch of 8 and of 3, the last one not full");

    let sampler = random.sampler(sampler_options(8, STEPS));
    let backwards: Vec<Request> = all.iter().rev().cloned().collect();
    let mut turned = bits_of(&sampler, w(1.5), &backwards);
    turned.reverse();
    assert!(whole == turned, "other neighbours, other places");

    // Half the memory at a time, the same pictures.
    let two_pass = SamplerOptions { two_pass: true, ..sampler_options(3, STEPS) };
    assert!(whole == random.bits(two_pass, w(1.5), &all), "one batch of both conditions and two passes");

    // Two ways to say how strong.
    for scale in [2.5, 1.1, 0.3, -0.7] {
        let a = bits_of(&sampler, Guidance::from_scale(scale).unwrap(), &all);
        let b = bits_of(&sampler, w(scale - 1.0), &all);
        assert!(a == b, "scale {scale} and w = {}", scale - 1.0);
    }

    // Another seed, class or strength is another picture.
    for other in
        [Request { seed: 5, ..all[0].clone() }, Request { condition: Some(9).into(), ..all[0].clone() }]
    {
        assert_ne!(bits_of(&sampler, w(1.5), &[other])[0], whole[0]);
    }
    assert_ne!(bits_of(&sampler, w(1.25), &all[..1])[0], whole[0]);
}

#[test]
fn plain_sampling_evaluates_once() {
    let random = Random::new();
    let (guided, single) = (
        random.sampler(sampler_options(4, STEPS)),
        random.sampler(SamplerOptions { guided: false, ..sampler_options(4, STEPS) }),
    );
    let two_pass = random.sampler(SamplerOptions { two_pass: true, ..sampler_options(4, STEPS) });
    let count = |sampler: &Sampler| {
        sampler.step_plan().labels().filter(|label| label.starts_with("attention")).count()
    };
    assert!(count(&single) > 0, "{:?}", single.step_plan().labels().collect::<Vec<_>>());
    assert_eq!((count(&guided), count(&two_pass)), (count(&single), 2 * count(&single)));
    // A batch of 2N takes more memory than one of N.
    assert!(guided.step_plan().bytes() > two_pass.step_plan().bytes());
    assert!(guided.step_plan().bytes() > 3 * single.step_plan().bytes() / 2);

    // With weight 0 on it, the unconditional half does not matter; and the other way round at w = -1.
    let all = requests(4, 1);
    assert!(!Sampler::needs_both(w(0.0)) && !Sampler::needs_both(w(-1.0)) && Sampler::needs_both(w(1e-9)));
    assert!(bits_of(&guided, w(0.0), &all) == bits_of(&single, w(0.0), &all), "w = 0");
    let none: Vec<Request> = all.iter().map(|request| Request::new(None, request.seed)).collect();
    let unconditional = bits_of(&single, w(-1.0), &all);
    assert!(unconditional == bits_of(&single, w(0.0), &none), "w = -1 looks at no class");
    assert!(unconditional == bits_of(&guided, w(-1.0), &all), "w = -1");
    assert_ne!(unconditional, bits_of(&single, w(0.0), &all));
    assert!(single.start(&all, w(1.0)).map(drop).unwrap_err().to_string().contains("guided sampler"));
    // One batch at a time.
    let mut first = single.start(&all, w(0.0)).unwrap();
    first.step().unwrap();
    let mut second = single.start(&all, w(0.0)).unwrap();
    assert!(first.step().unwrap_err().to_string().contains("other pictures were begun"));
    second.step().unwrap();
}

#[test]
fn every_clip_runs_and_keeps_its_range() {
    let random = Random::new();
    let all = requests(3, 1);
    let mut seen = Vec::new();
    for clip in ["none", "static", "dynamic", "dynamic:0.9"] {
        let clip: Clip = clip.parse().unwrap();
        let options = SamplerOptions { clip, ..sampler_options(3, STEPS) };
        let bits = random.bits(options.clone(), w(1.0), &all);
        assert!(
            bits == random.bits(SamplerOptions { batch: 1, ..options }, w(1.0), &all),
            "{clip} in batches of 1"
        );
        let largest = bits.iter().flatten().map(|&bits| f32::from_bits(bits).abs()).fold(0.0, f32::max);
        // The last step adds no noise, so what is clipped is the picture.
        assert!(clip == Clip::None || largest <= 1.0, "{clip}: {largest}");
        assert!(!seen.contains(&bits), "{clip} is another clip's picture");
        seen.push(bits);
    }
}

/// Matrices that lie on the device in f16 alone give the pictures of those that were narrowed there, and none in f32.
#[test]
fn weights_loaded_in_f16_draw_the_same_pictures() {
    let gpu = gpu();
    if !gpu.capabilities().f16 {
        let refused = Model::of_in(&gpu, digits_model(), DType::F16).err().expect("a device without f16");
        assert!(refused.to_string().contains("no f16"), "{refused}");
        return;
    }
    let [whole, narrow] =
        [DType::F32, DType::F16].map(|dtype| Model::of_in(&gpu, digits_model(), dtype).unwrap());
    assert_eq!(whole.checksum(), narrow.checksum());
    let pictures = |model: &Model, dtype| -> freeguide::Result<Vec<_>> {
        let options = SamplerOptions { steps: 4, dtype, ..SamplerOptions::of(&model.config, 2)? };
        let requests = [(Some(3), 1), (Some(8), 2)].map(|(class, seed)| Request::new(class, seed));
        Sampler::of(&gpu, model, options)?.sample(&requests, Guidance::from_weight(1.0)?, || Ok(()))
    };
    let wanted = pictures(&whole, DType::F16).unwrap();
    assert!(pictures(&narrow, DType::F16).unwrap() == wanted);
    assert!(pictures(&whole, DType::F32).unwrap() != wanted, "nothing was computed in f16");
    let refused = pictures(&narrow, DType::F32).unwrap_err().to_string();
    assert!(refused.contains("loaded in f16"), "{refused}");
    // What is read in f32 is as it was, and what was rounded is near.
    let values = (whole.values().unwrap(), narrow.values().unwrap());
    for ((spec, whole), narrow) in whole.unet.parameters().specs().iter().zip(values.0).zip(values.1) {
        let rounded = |x: &f32| f32::from(half::f16::from_f32(*x));
        let wanted: Vec<f32> = if spec.multiplies { whole.iter().map(rounded).collect() } else { whole };
        assert!(narrow == wanted, "{}", spec.name);
    }
}

fn digits_model() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/digits-model");
    Checkpoint::open(&path, None).unwrap()
}
