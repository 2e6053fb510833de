//! What integration tests share: a device, a training small enough for a software adapter, and the program.

#![allow(dead_code, reason = "every test file uses a part of this")]

use std::path::Path;
use std::sync::Arc;

use freeguide::data::{Dataset, Image};
use freeguide::diffusion::{Guiders, Method};
use freeguide::gpu::{DeviceChoice, Gpu};
use freeguide::model::Model;
use freeguide::sample::{Request, Sampler, SamplerOptions, Uncond};
use freeguide::tensor::DType;
use freeguide::train::{Outcome, Preset, TrainOptions, Trainer};

/// The device. A test fails where there is none.
pub fn gpu() -> Gpu {
    Gpu::new_blocking(&DeviceChoice::Auto).expect("the tests need a GPU adapter")
}

/// The embedded digits.
pub fn digits() -> Arc<Dataset> {
    Arc::new(Dataset::open("digits", None).expect("the digits are part of the program"))
}

/// A training on the digits whose steps take milliseconds: 8 channels, batches of 8.
pub fn tiny(images: u64) -> TrainOptions {
    let mut options = Preset::named("digits").unwrap().options(&digits(), 0);
    options.unet.model_channels = 8;
    options.unet.norm_num_groups = 4;
    (options.batch, options.microbatch) = (8, 8);
    options.warmup_images = 64;
    options.images = images;
    options
}

/// Trains on the digits until the end.
pub fn train(gpu: &Gpu, options: &TrainOptions, dir: &Path) -> Trainer {
    let mut trainer = Trainer::open(gpu, digits(), options, dir).unwrap();
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    trainer
}

/// What samplers of these tests have in common: few steps, guided, f32.
pub fn sampler_options(batch: usize, steps: usize) -> SamplerOptions {
    SamplerOptions {
        batch,
        steps,
        method: Method::default(),
        variance_exponent: 0.3,
        clip: Default::default(),
        guided: true,
        guiders: Guiders::default(),
        uncond: Uncond::Null,
        two_pass: false,
        tokens: 77,
        dtype: DType::F32,
        fast: false,
        conditions: None,
        size: None,
    }
}

/// A sampler of a model.
pub fn sampler(gpu: &Gpu, model: &Model, options: SamplerOptions) -> Sampler {
    Sampler::new(gpu, &model.unet, &model.weights(), model.config.process().unwrap(), options).unwrap()
}

/// `seeds` pictures of each of `classes` classes, class by class.
pub fn requests(classes: u32, seeds: u64) -> Vec<Request> {
    let of = |class| (0..seeds).map(move |seed| Request::new(Some(class), seed));
    (0..classes).flat_map(of).collect()
}

/// Mean absolute difference of pictures, in steps of 1/255.
pub fn difference(a: &[Image], b: &[Image]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs: Vec<f64> = a
        .iter()
        .zip(b)
        .flat_map(|(a, b)| a.pixels.iter().zip(&b.pixels))
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs())
        .collect();
    pairs.iter().sum::<f64>() / pairs.len() as f64
}

/// Fails unless `name` holds the same bytes in both folders.
#[track_caller]
pub fn assert_same_file(name: &str, a: &Path, b: &Path) {
    let read = |dir: &Path| std::fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (a, b) = (read(a), read(b));
    let first = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    assert!(a == b, "{name}: {} and {} bytes, the first difference at {first}", a.len(), b.len());
}

#[cfg(feature = "cli")]
pub mod program {
    use std::process::{Command, Stdio};

    /// What `tiny` is on the command line.
    pub const TINY: &[&str] =
        &["--channels", "8", "--norm-groups", "4", "--batch", "8", "--microbatch", "8", "--warmup", "64"];

    /// How a run of the program ended.
    pub struct Finished {
        /// The exit code; `None` when a signal ended it.
        pub code: Option<i32>,
        pub stdout: String,
        pub stderr: String,
    }

    impl Finished {
        /// Fails with all that was said unless the exit code is `code`.
        #[track_caller]
        pub fn expect(self, code: i32) -> Finished {
            assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
            self
        }
    }

    /// The program with nothing to read from.
    pub fn freeguide() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freeguide"));
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end.
    pub fn run(arguments: &[&str]) -> Finished {
        let output = freeguide().args(arguments).output().expect("the program starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
