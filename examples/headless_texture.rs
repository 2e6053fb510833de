//! A program's frame loop without a window: every frame records a slice of a denoising step under a budget, draws the
//! picture as it stands into the program's texture, and submits. Prints how long frames took.
//!
//! `cargo run --release --example headless_texture -- [--adm] [--budget MS] [--f16] [--frames N] [--pace MS]`
//!
//! `--adm` samples the 64x64 network of ADM (296 million parameters, random ones) instead of the embedded digits.
//! `--pace` is the time between frames that the host keeps, as a display would: 16.67 by default, 0 for none.

use std::error::Error;
use std::time::{Duration, Instant};

use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::io::write_png;
use freeguide::model::{Model, ModelConfig};
use freeguide::session::{Request, Session, SessionOptions, Show};
use freeguide::tensor::DType;
use freeguide::wgpu;

const SIZE: u32 = 512;

/// The 64x64 class-conditional UNet of ADM (arXiv 2105.05233, table 4), with this library's schedule.
const ADM: &str = r#"{
    "_class_name": "FreeguideUNet",
    "unet": {
        "sample_size": 64, "in_channels": 3, "out_channels": 6, "model_channels": 192,
        "channel_mult": [1, 2, 3, 4], "layers_per_block": 3, "attention_resolutions": [32, 16, 8],
        "attention_head_dim": 64, "num_attention_heads": null, "qkv_order": "new", "norm_num_groups": 32,
        "dropout": 0.1, "resample": "resnet", "resnet_time_scale_shift": "scale_shift", "residual_scaling": false,
        "num_classes": 1000, "null_class": "learned"
    },
    "scheduler": {
        "beta_schedule": "continuous", "prediction_type": "epsilon", "log_snr_min": -20.0, "log_snr_max": 20.0
    },
    "sampling": { "steps": 64, "variance_exponent": 0.3, "clip": "static" },
    "class_names": [], "data": "none", "unconditional_probability": 0.1, "images_seen": 0, "ema_rate": null
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let number = |name: &str, usual: f64| -> Result<f64, Box<dyn Error>> {
        match arguments.iter().position(|argument| argument == name) {
            Some(at) => Ok(arguments.get(at + 1).ok_or(format!("{name} needs a number"))?.parse()?),
            None => Ok(usual),
        }
    };
    let (budget, pace) = (number("--budget", 8.0)?, number("--pace", 1000.0 / 60.0)?);
    let frames = number("--frames", 600.0)? as usize;

    // The program's own device, with what helps and nothing more.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    }))?;
    let mut required_features = wanted_features(&adapter);
    let matrices = freeguide::gpu::matrix_features(&adapter);
    required_features |= matrices;
    let experimental_features = match matrices.is_empty() {
        true => wgpu::ExperimentalFeatures::disabled(),
        // The library's promise; see `matrix_features`.
        false => unsafe { wgpu::ExperimentalFeatures::enabled() },
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("headless_texture"),
        required_features,
        required_limits: wanted_limits(&adapter),
        experimental_features,
        ..Default::default()
    }))?;
    let texture = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("the program's texture"),
        size: wgpu::Extent3d { width: SIZE, height: SIZE, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8UnormSrgb,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::TEXTURE_BINDING,
        view_formats: &[],
    });
    let view = texture.create_view(&wgpu::TextureViewDescriptor::default());

    let gpu = Gpu::from_device(&device, &queue);
    let model = if has("--adm") { random(&gpu)? } else { Model::digits(&gpu)? };
    let dtype = if has("--f16") { DType::F16 } else { DType::F32 };
    let options =
        SessionOptions { budget_ms: (budget > 0.0).then_some(budget), dtype, ..SessionOptions::default() };
    let mut session = Session::new(&device, &queue, &model, options)?;
    println!(
        "{}: {} parameters, a budget of {budget} ms",
        adapter.get_info().name,
        model.unet.parameters().count()
    );

    let mut times: Vec<Duration> = Vec::with_capacity(frames);
    let (mut pictures, mut steps, mut before) = (0u32, 0, 0);
    // A session times every dispatch once before it packs them; the second half of the frames is without that.
    let mut steps_by_half = 0;
    for frame in 0..frames {
        if frame == frames / 2 {
            steps_by_half = steps;
        }
        let begun = Instant::now();
        if session.progress().finished || session.progress().steps == 0 {
            session.start(&Request {
                condition: Some(pictures % 10).into(),
                seed: pictures.into(),
                ..Request::default()
            })?;
            (pictures, before) = (pictures + 1, 0);
        }
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("a frame") };
        let mut encoder = device.create_command_encoder(&descriptor);
        let progress = session.step(&mut encoder)?;
        session.render_to(&mut encoder, &view)?;
        queue.submit([encoder.finish()]);
        steps += progress.step - before;
        before = progress.step;
        // What presenting does in a program with a window: the frame's work is done before the next one begins.
        device.poll(wgpu::PollType::wait_indefinitely())?;
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_secs_f64(pace / 1e3).saturating_sub(begun.elapsed()));
    }
    let mut encoder =
        device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("the last picture") });
    let later = session.read(&mut encoder, Show::Picture)?;
    queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::wait_indefinitely())?;
    write_png("headless.png", &pollster::block_on(later)?, &[])?;

    times.sort();
    let percentile =
        |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{frames} frames, {steps} denoising steps, {pictures} pictures begun");
    println!("in the second half {} steps, {} frames", steps - steps_by_half, frames - frames / 2);
    println!(
        "frame time in ms: median {:.2}, 95th percentile {:.2}, 99th {:.2}, longest {:.2}",
        percentile(50),
        percentile(95),
        percentile(99),
        percentile(100)
    );
    Ok(())
}

/// A network of ADM's size with the values that training starts from.
fn random(gpu: &Gpu) -> Result<Model, Box<dyn Error>> {
    let config: ModelConfig = serde_json::from_str(ADM)?;
    let unet = freeguide::nn::UNet::new(&config.unet)?;
    Ok(Model::of_values(gpu, config, &unet.parameters().initial_values(1), "random".as_ref())?)
}
