//! A network of one's own, trained on the digits and sampled with guiders: `cargo run --release --example own_network`, then
//! look at `own_network.png`.

use freeguide::data::{Crop, Dataset, Loader, LoaderOptions};
use freeguide::diffusion::{ContinuousSchedule, Guidance};
use freeguide::gpu::{DeviceChoice, Gpu};
use freeguide::io::{grid, write_png};
use freeguide::nn::layers::{Conv2d, Embedding, RowLinear};
use freeguide::nn::{About, ClassIn, Denoiser, Parameters, Pass, Takes, Told, Weights};
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::shape::Shape;
use freeguide::tensor::{Context, Tensor};
use freeguide::train::{Preset, TrainState, TrainStep};
use freeguide::{Error, Result, ops};

/// h = conv(z); three times h = h + conv(SiLU(h + time + class)); a convolution out.
#[rustfmt::skip]
struct Own { about: About, parameters: Parameters, time: RowLinear, class: Embedding, convs: [Conv2d; 5] }

impl Own {
    fn new(sample: Shape, classes: usize, width: usize) -> Own {
        let mut p = Parameters::default();
        let time = RowLinear::new(&mut p, "time", [64, width]);
        let class = Embedding::new(&mut p, "class", classes + 1, width); // the last row is for "no class"
        let widths = [sample.channels, width, width, width, width, sample.channels];
        let mut conv = |i| Conv2d::new(&mut p, &format!("conv.{i}"), [widths[i], widths[i + 1]], 3, i == 4);
        let convs = [conv(0), conv(1), conv(2), conv(3), conv(4)];
        let takes = Takes { class: Some(ClassIn::of(classes)), ..Takes::default() };
        let about = About { sample, out_channels: sample.channels, takes, divides: 1 };
        Own { about, parameters: p, time, class, convs }
    }
}

#[rustfmt::skip]
impl Denoiser for Own {
    fn about(&self) -> &About { &self.about }
    fn parameters(&self) -> &Parameters { &self.parameters }

    fn record(&self, cx: &mut Context, w: &Weights, z: &Tensor, time: &Tensor, told: Told<'_>, _: &Pass<'_>) -> Result<Tensor> {
        let rows = told.class.ok_or_else(|| Error::Config("this network takes a class".into()))?;
        let time = ops::timestep_embedding(cx, time, 64)?;
        let time = self.time.forward(cx, w, &time)?;
        let time = ops::repeat_batch(cx, &time, told.conditions)?;
        let class = self.class.forward(cx, w, rows)?;
        let both = ops::add(cx, &time, &class, 1.0)?;
        let h = self.convs[0].forward(cx, w, z)?;
        let mut h = ops::repeat_batch(cx, &h, told.conditions)?;
        for conv in &self.convs[1..4] {
            let x = ops::add_per_sample(cx, &h, &both)?;
            let x = ops::silu(cx, &x)?;
            h = conv.forward_add(cx, w, &x, &h)?;
        }
        self.convs[4].forward(cx, w, &h)
    }
}

fn main() -> Result<()> {
    let gpu = Gpu::new_blocking(&DeviceChoice::Auto)?;
    let data = std::sync::Arc::new(Dataset::open("digits", None)?);
    let options = Preset::named("digits")?.options(&data, 0);
    let network = Own::new(Shape::square(1, 8), 10, 32);
    let first = TrainStep::initial_optimizer_state(&options);
    let state = TrainState::new(&gpu, network.parameters(), 1, 0, &first)?;
    let step = TrainStep::record(&gpu, &network as &dyn Denoiser, &options, &state)?;
    let (image_size, crop) = (network.about.sample.extent, Crop::Center);
    let loader = Loader::new(data, LoaderOptions { image_size, crop, flip: false, seed: 0 });
    for images in (0..16_000).step_by(options.batch) {
        step.run(&loader.batch(images, options.batch)?)?.wait()?;
    }
    let weights = state.optimised.averages.weights(network.parameters(), 0);
    let guiders = "interval(lo=-4,hi=6)+rescale(0.5)".parse()?;
    let how = SamplerOptions { guiders, ..SamplerOptions::new(40, 48) };
    let sampler = Sampler::new(&gpu, &network, &weights, &ContinuousSchedule::default(), how)?;
    let of = |i: u32| Request::new(Some(i / 4), i.into());
    let images =
        sampler.sample(&(0..40).map(of).collect::<Vec<_>>(), Guidance::from_weight(1.5)?, || Ok(()))?;
    let rows: Vec<_> = images.chunks(8).map(<[_]>::to_vec).collect();
    write_png("own_network.png", &grid(&rows, 2, 4, &[], &[])?, &[])
}
