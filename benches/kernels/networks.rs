//! Whole networks: an evaluation, a sampler's step, a training step. On GPUs also the network of the `imagenet64`
//! preset, in the sizes that fit one GPU.

use freeguide::data::{Batch, Dataset};
use freeguide::diffusion::{Clip, ContinuousSchedule, Guidance};
use freeguide::gpu::{Gpu, Plan};
use freeguide::nn::unet::Pass;
use freeguide::nn::{Arena, UNet};
use freeguide::random::init_uniform;
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::shape::Extent;
use freeguide::tensor::{Context, DType, Precision};
use freeguide::train::{Preset, TrainOptions, TrainState, TrainStep};
use freeguide::{Error, Result};

use crate::harness::{Bench, Planned, Recorder, Timed};
use crate::row::{self, Work};

impl Planned for Sampler {
    fn plan(&self) -> &Plan {
        self.step_plan()
    }
}

impl Planned for TrainStep {
    fn plan(&self) -> &Plan {
        TrainStep::plan(self)
    }
}

/// A network, the batches it is evaluated in, and the batch it is trained with.
pub struct Case {
    pub name: &'static str,
    preset: &'static str,
    batches: &'static [usize],
    train: usize,
}

const ON_SOFTWARE: &[Case] = &[Case { name: "digits", preset: "digits", batches: &[16], train: 32 }];

const ON_GPU: &[Case] = &[
    Case { name: "digits", preset: "digits", batches: &[64], train: 32 },
    Case { name: "imagenet64", preset: "imagenet64", batches: &[2, 16, 64], train: 32 },
    Case { name: "cifar", preset: "cifar10", batches: &[1, 128], train: 128 },
];

/// The largest network for such a device.
pub fn largest(software: bool) -> &'static Case {
    if software { &ON_SOFTWARE[0] } else { &ON_GPU[1] }
}

impl Case {
    /// The network as it is trained in these benchmarks: one microbatch a step.
    pub fn options(&self, dtype: DType) -> Result<TrainOptions> {
        let digits = Dataset::open("digits", None)?;
        let mut options = Preset::named(self.preset)?.options(&digits, 0);
        let unet = &mut options.unet;
        match self.name {
            "imagenet64" => {
                (unet.sample_size, unet.in_channels, unet.out_channels) = (Extent::square(64), 3, 3);
                unet.attention_resolutions = vec![32, 16, 8];
                unet.num_classes = Some(1000);
            }
            // The network of DDPM's size that other engines are timed with: two blocks a level, attention at 16.
            "cifar" => {
                (unet.sample_size, unet.in_channels, unet.out_channels) = (Extent::square(32), 3, 3);
                unet.layers_per_block = 2;
                unet.attention_resolutions = vec![16];
            }
            _ => {}
        }
        (options.batch, options.microbatch) = (self.train, self.train);
        // A rate of learning from the first image on.
        options.warmup_images = 0;
        options.precision = if dtype == DType::F16 { Precision::F16 } else { Precision::F32 };
        Ok(options)
    }
}

/// The network with random weights everywhere: initial ones have layers of zeros.
pub fn network(gpu: &Gpu, options: &TrainOptions) -> Result<(UNet, Arena)> {
    let unet = UNet::new(&options.unet)?;
    let arena = unet.parameters().arena(gpu, "weights", 1)?;
    let specs = unet.parameters().specs().iter().enumerate();
    let values: Vec<Vec<f32>> = specs.map(|(i, spec)| init_uniform(7, i as u64, spec.len(), 0.03)).collect();
    arena.write(gpu, 0, &values)?;
    Ok((unet, arena))
}

fn forward(r: &mut Recorder, options: &TrainOptions, batch: usize, dtype: DType, fast: bool) -> Result<()> {
    r.cx.set_fast(fast);
    let (unet, arena) = network(&r.cx.gpu().clone(), options)?;
    let config = &options.unet;
    let z = r.random(&config.shape().nhwc(batch), DType::F32)?;
    let times: Vec<f32> = (0..batch).map(|i| (i * 37 % 1000) as f32).collect();
    let time = r.cx.constant_f32("times", &[batch], &times)?;
    let labels: Vec<u32> = (0..batch).map(|i| (i % 10) as u32).collect();
    let labels = r.cx.constant_u32("labels", &[batch], &labels)?;
    let weights = arena.weights(unet.parameters(), 0).fixed_in(r.cx.gpu(), dtype)?;
    unet.forward(&mut r.cx, &weights, &z, &time, Some(&labels), &Pass::inference(dtype)).map(drop)
}

/// 64 guided ancestral steps.
pub fn guided(batch: usize, dtype: DType) -> SamplerOptions {
    SamplerOptions {
        tokens: 77,
        batch,
        steps: 64,
        method: Default::default(),
        variance_exponent: 0.3,
        clip: Clip::Static,
        guided: true,
        guiders: Default::default(),
        uncond: Default::default(),
        two_pass: false,
        dtype,
        fast: false,
        conditions: None,
        size: None,
    }
}

fn sampler(gpu: &Gpu, options: &TrainOptions, batch: usize, dtype: DType) -> Result<Timed> {
    let (unet, arena) = network(gpu, options)?;
    let schedule = ContinuousSchedule::new(options.log_snr_min, options.log_snr_max)?;
    let weights = arena.weights(unet.parameters(), 0);
    let sampler = Sampler::new(gpu, &unet, &weights, &schedule, guided(batch, dtype))?;
    let requests: Vec<Request> = (0..batch).map(|i| Request::new(Some(i as u32 % 10), i as u64)).collect();
    sampler.start(&requests, Guidance::from_weight(1.0)?)?;
    Timed::whole(gpu, sampler)
}

fn train(gpu: &Gpu, options: &TrainOptions) -> Result<Timed> {
    let unet = UNet::new(&options.unet)?;
    let first = TrainStep::initial_optimizer_state(options);
    let state = TrainState::new(gpu, unet.parameters(), options.ema_rates.len(), options.seed, &first)?;
    let step = TrainStep::record(gpu, &unet, options, &state)?;
    let bytes = options.batch * options.unet.shape().len();
    let images = (0..bytes).map(|i| (i * 7919 % 251) as u8).collect();
    let labels = (0..options.batch).map(|i| i as u32 % 10).collect();
    step.run(&Batch { images, labels, first_image: 1, ..Batch::default() })?.wait()?;
    let cost = TrainStep::cost(gpu, &unet, options)?;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let (state, rest) = (gib(cost.state_bytes), gib(cost.activation_bytes));
    println!(
        "memory of the training step: {:.2} GiB, {state:.2} of it parameters and their state",
        state + rest
    );
    Timed::whole(gpu, step)
}

/// Multiplications and additions of an evaluation; 0 where operations do not count them.
fn forward_flops(gpu: &Gpu, options: &TrainOptions, batch: usize) -> Result<f64> {
    let unet = UNet::new(&options.unet)?;
    let mut cx = Context::new(gpu);
    let config = &options.unet;
    let shape = config.shape().nhwc(batch);
    let z = cx.output("z", &shape, DType::F32)?;
    let (time, labels) = (cx.output("t", &[batch], DType::F32)?, cx.output("c", &[batch], DType::U32)?);
    let arena = unet.parameters().arena(gpu, "weights", 1)?;
    let weights = arena.weights(unet.parameters(), 0);
    unet.forward(&mut cx, &weights, &z, &time, Some(&labels), &Pass::inference(DType::F32))?;
    Ok(cx.flops())
}

pub fn run(bench: &mut Bench) {
    for case in if bench.is_software() { ON_SOFTWARE } else { ON_GPU } {
        one(bench, case).unwrap_or_else(|error: Error| println!("{} is left out: {error}", case.name));
    }
}

fn one(bench: &mut Bench, case: &Case) -> Result<()> {
    let name = case.name;
    for &dtype in bench.dtypes() {
        let options = case.options(dtype)?;
        let flops = forward_flops(&bench.gpu, &options, 1)?;
        let work = |evaluations: f64, images: usize| match flops {
            0.0 => Work::Images(images),
            flops => Work::Flops(evaluations * images as f64 * flops),
        };
        for &batch in case.batches {
            let shape = format!("{name} {batch} images");
            bench.measure("unet", "forward", &shape, dtype, work(1.0, batch), |r| {
                forward(r, &options, batch, dtype, false)
            });
            if batch <= 2 {
                bench.measure("unet", "forward, fast", &shape, dtype, work(1.0, batch), |r| {
                    forward(r, &options, batch, dtype, true)
                });
            }
            // Guided: two evaluations.
            let label = format!("{shape} {}", row::dtype(dtype));
            bench.measure_plan("sampler", "step", label, dtype, work(2.0, batch), |gpu| {
                sampler(gpu, &options, batch, dtype)
            });
        }
        // A backward pass is two forward passes of work.
        let label = format!("{name} {} images {}", case.train, row::dtype(dtype));
        bench.measure_plan("train", "step", label, dtype, work(3.0, case.train), |gpu| train(gpu, &options));
    }
    Ok(())
}
