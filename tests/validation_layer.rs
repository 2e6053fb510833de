//! What this library records is in order: Vulkan's validation layer has nothing to say about it.

#![cfg(target_os = "linux")]

use std::sync::Mutex;

use freeguide::autograd::backprop_from;
use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::ops::{GroupNorm, conv2d, group_norm, silu};
use freeguide::tensor::{Context, DType, Tensor};
use freeguide::{Result, wgpu};

/// What wgpu logs: the layer's messages at warning and error, and at debug level that the layer is not there.
struct Messages(Mutex<Vec<(log::Level, String)>>);

impl log::Log for Messages {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_hal::vulkan")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

static MESSAGES: Messages = Messages(Mutex::new(Vec::new()));

fn messages(least: log::Level) -> Vec<String> {
    let messages = MESSAGES.0.lock().unwrap();
    messages.iter().filter(|(level, _)| *level <= least).map(|(_, text)| text.clone()).collect()
}

/// A device with the layer in front of it, made as a host program makes one.
fn validated_device() -> (wgpu::Device, wgpu::Queue) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    // Alone: together with DEBUG the layer remarks on the source language of every shader.
    descriptor.flags = wgpu::InstanceFlags::VALIDATION;
    let instance = wgpu::Instance::new(descriptor);
    assert!(
        !messages(log::Level::Debug).iter().any(|text| text.contains("VALIDATION requested, but unable")),
        "Vulkan's validation layer is not installed; on Debian or Ubuntu: apt-get install -y vulkan-validationlayers"
    );
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect(
        "a Vulkan adapter; on Debian or Ubuntu without a GPU: apt-get install -y mesa-vulkan-drivers",
    );
    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: wanted_features(&adapter),
        required_limits: wanted_limits(&adapter),
        ..Default::default()
    }))
    .expect("a device")
}

/// Values in [-1, 1), the same every time.
fn tensor(cx: &Context, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let values = (0..shape.iter().product()).map(|i: usize| (i * 7919 % 1024) as f32 / 512.0 - 1.0);
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    };
    cx.constant("values", shape, dtype, &bytes)
}

/// Convolution, group norm and SiLU, there and back.
fn run(gpu: &Gpu, dtype: DType) -> Result<()> {
    let mut cx = Context::with_tape(gpu);
    let x = tensor(&cx, &[3, 5, 7, 8], dtype)?;
    let weights = tensor(&cx, &[3, 3, 8, 12], DType::F32)?;
    let bias = tensor(&cx, &[12], DType::F32)?;
    let (gamma, beta) = (tensor(&cx, &[12], DType::F32)?, tensor(&cx, &[12], DType::F32)?);
    let inputs = [&x, &weights, &bias, &gamma, &beta];
    inputs.iter().for_each(|input| cx.watch(input));

    let y = conv2d(&mut cx, &x, &weights, Some(&bias), 1)?;
    let y = group_norm(&mut cx, &y, &gamma, &beta, None, &GroupNorm { groups: 3, eps: 1e-5, silu: true })?;
    let y = silu(&mut cx, &y)?;
    let upstream = tensor(&cx, y.shape(), dtype)?;
    backprop_from(&mut cx, &y, &upstream)?;

    let gradient = cx.grad(&x).expect("x is watched");
    cx.keep(&gradient);
    let plan = cx.finish("validated")?;
    plan.run_times(2)?;
    if gpu.capabilities().timestamps {
        plan.profile()?;
    }
    let buffer = plan.kept(gradient.storage()).expect("it was kept");
    let bytes = gpu.read(buffer, 0..gradient.bytes())?;
    assert!(bytes.iter().any(|&byte| byte != 0), "a gradient of zeros");
    gpu.wait()
}

#[test]
fn the_validation_layer_is_silent() {
    log::set_logger(&MESSAGES).expect("no other logger");
    // The layer tells what wgpu's log level lets through, which is looked at once, when the instance is made.
    log::set_max_level(log::LevelFilter::Debug);
    let (device, queue) = validated_device();
    let gpu = Gpu::from_device(&device, &queue);
    run(&gpu, DType::F32).unwrap();
    if gpu.capabilities().f16 {
        run(&gpu, DType::F16).unwrap();
    }
    drop((gpu, device, queue));
    // The loader speaks through the same channel, of drivers it could not open: GENERAL, and not of interest.
    let mut said = messages(log::Level::Warn);
    said.retain(|text| text.starts_with("VALIDATION"));
    assert!(said.is_empty(), "the validation layer said:\n{}", said.join("\n"));
}
