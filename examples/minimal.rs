//! A seven, guided with w = 2, from the embedded model: `cargo run --example minimal`, then look at `seven.png`.

use freeguide::diffusion::Guidance;
use freeguide::gpu::{DeviceChoice, Gpu};
use freeguide::io::write_png;
use freeguide::model::Model;
use freeguide::sample::{Request, Sampler, SamplerOptions};

fn main() -> freeguide::Result<()> {
    let gpu = Gpu::new_blocking(&DeviceChoice::Auto)?;
    let model = Model::digits(&gpu)?;
    let sampler = Sampler::of(&gpu, &model, SamplerOptions::of(&model.config, 1)?)?;
    let seven = Request::new(Some(7), 1);
    let images = sampler.sample(&[seven], Guidance::from_weight(2.0)?, || Ok(()))?;
    write_png("seven.png", &images[0], &[])
}
