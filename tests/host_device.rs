//! On a host program's own device, with no more than WebGPU's defaults: the same results, errors instead of panics,
//! and the host's random numbers bit for bit.

mod common;

use common::{gpu, requests, sampler_options, tiny, train};
use freeguide::diffusion::Guidance;
use freeguide::gpu::{DeviceChoice, Gpu, wanted_features, wanted_limits};
use freeguide::model::Model;
use freeguide::random::{Stream, fill_normal};
use freeguide::tensor::{Context, DType};
use freeguide::train::{TrainOptions, Trainer};
use freeguide::{Error, Result, ops, wgpu};

/// A device as a host program makes it: with all that helps, or without anything.
fn host_device(all: bool) -> (wgpu::Device, wgpu::Queue) {
    if all {
        device(wanted_features, wanted_limits)
    } else {
        device(|_| wgpu::Features::empty(), |_| wgpu::Limits::default())
    }
}

fn device(
    features: impl Fn(&wgpu::Adapter) -> wgpu::Features,
    limits: impl Fn(&wgpu::Adapter) -> wgpu::Limits,
) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features(&adapter),
        required_limits: limits(&adapter),
        ..Default::default()
    };
    pollster::block_on(adapter.request_device(&descriptor)).expect("a device")
}

#[test]
fn default_limits_suffice_and_change_nothing() {
    let (device, queue) = host_device(false);
    let (host, own) = (Gpu::from_device(&device, &queue), gpu());
    assert!(!host.capabilities().f16 && !host.capabilities().timestamps);
    let limits = &host.capabilities().limits;
    assert_eq!(limits.max_storage_buffer_binding_size, 128 << 20);
    assert_eq!(limits.max_compute_invocations_per_workgroup, 256);

    let [host, own] = [host, own].map(|gpu| {
        let dir = tempfile::tempdir().unwrap();
        let trainer = train(&gpu, &tiny(32), dir.path());
        let model = Model::load(&gpu, dir.path()).unwrap();
        let sampler = common::sampler(&gpu, &model, sampler_options(4, 8));
        let guidance = Guidance::from_weight(1.0).unwrap();
        let losses: Vec<f32> = trainer.records().iter().map(|record| record.loss).collect();
        (losses, sampler.sample(&requests(4, 1), guidance, || Ok(())).unwrap())
    });
    for (a, b) in host.0.iter().zip(&own.0) {
        assert!((a - b).abs() <= 1e-3 * b, "{:?} and {:?}", host.0, own.0);
    }
    for (a, b) in host.1.iter().zip(&own.1) {
        let worst = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 2, "pictures differ by {worst}/255");
    }
}

#[test]
fn a_destroyed_device_is_an_error_and_not_a_panic() {
    // Whether the device is ours or a host's, which has no callback of ours on it.
    let (device, queue) = host_device(true);
    for gpu in [gpu(), Gpu::from_device(&device, &queue)] {
        let dir = tempfile::tempdir().unwrap();
        let options = TrainOptions { save_every: 8, ..tiny(64) };
        let mut trainer = Trainer::open(&gpu, common::digits(), &options, dir.path()).unwrap();
        let mut steps = 0;
        let error = trainer.run(
            || {
                steps += 1;
                if steps == 3 {
                    gpu.device().destroy();
                }
                false
            },
            |_, _| Ok(()),
        );
        let error = error.expect_err("a training on a destroyed device");
        assert!(matches!(error, Error::Device(_)), "{error}");
        assert!(error.to_string().contains("run the same command again"), "{error}");
        // What had been saved is there.
        drop(trainer);
        assert!(dir.path().join("state-000000000016.safetensors").exists());

        // Everything else says so too.
        assert!(gpu.buffer("after the end", 64).is_err(), "after {error}");
        let mut cx = Context::new(&gpu);
        assert!(cx.constant_u32("after the end", &[1], &[0]).is_err());
        let noise = cx.output("after the end", &[4], DType::F32).and_then(|x| {
            ops::silu(&mut cx, &x)?;
            cx.finish("after the end")?.run()
        });
        assert!(noise.is_err());
        assert!(Trainer::open(&gpu, common::digits(), &options, dir.path()).is_err());
        let _ = gpu.wait();

        // On another device it goes on.
        let trainer = train(&common::gpu(), &options, dir.path());
        assert_eq!(trainer.records().len(), 8);
    }
}

/// Downlevel devices have half the storage buffers a stage that a training takes: an error that says so, or it works.
#[test]
fn downlevel_defaults_train_or_say_why_not() {
    let (device, queue) = device(|_| wgpu::Features::empty(), |_| wgpu::Limits::downlevel_defaults());
    let gpu = Gpu::from_device(&device, &queue);
    let dir = tempfile::tempdir().unwrap();
    let trained = Trainer::open(&gpu, common::digits(), &tiny(16), dir.path())
        .and_then(|mut trainer| trainer.run(|| false, |_, _| Ok(())));
    if let Err(error) = trained {
        let Error::Limit { limit, needed, allowed, .. } = &error else { panic!("{error}") };
        let allows = u64::from(wgpu::Limits::downlevel_defaults().max_storage_buffers_per_shader_stage);
        assert_eq!((*limit, *allowed), ("max_storage_buffers_per_shader_stage", allows), "{error}");
        assert!(needed > allowed, "{error}");
    }
    // Neither is a reason to leave the device.
    let kept = gpu.buffer_with("small", &[1, 2, 3, 4]).unwrap();
    assert_eq!(gpu.read(&kept, 0..4).unwrap(), [1, 2, 3, 4]);
}

#[test]
fn what_exceeds_a_limit_is_named() {
    let gpu = pollster::block_on(Gpu::with_default_limits(&DeviceChoice::Auto)).unwrap();
    let error = gpu.buffer("a large tensor", (128 << 20) + 1).unwrap_err();
    let text = error.to_string();
    for part in ["a large tensor", "max_storage_buffer_binding_size", "134217728", "134217744"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }

    // The same for a value inside a plan, by its name and shape.
    let plan = || -> Result<()> {
        let mut cx = Context::new(&gpu);
        let x = cx.constant_f32("x", &[1, 8, 8, 1], &[0.0; 64])?;
        let repeated = ops::repeat_batch(&mut cx, &x, 1 << 20)?;
        cx.keep(&repeated);
        cx.finish("large")?.run()
    };
    let error = plan().unwrap_err();
    let Error::Limit { what, limit, needed, allowed } = &error else { panic!("{error}") };
    assert_eq!((*limit, *needed, *allowed), ("max_storage_buffer_binding_size", 256 << 20, 128 << 20));
    assert!(what.contains("[1048576, 8, 8, 1]"), "{error}");

    // The device is none the worse for it.
    let good = gpu.buffer_with("small", &[1, 2, 3, 4]).unwrap();
    assert_eq!(gpu.read(&good, 0..4).unwrap(), [1, 2, 3, 4]);
}

#[test]
fn normal_numbers_are_those_of_the_host_bit_for_bit() {
    let gpu = gpu();
    let shape @ [n, height, width, channels] = [4, 100, 90, 3];
    let seeds: [u64; 4] = [0, 1, 0x0123_4567_89ab_cdef, u64::MAX];
    for (index, stream) in [(0, Stream::InitialNoise), (77, Stream::StepNoise)] {
        let mut cx = Context::new(&gpu);
        let words: Vec<u32> = seeds.iter().flat_map(|seed| [*seed as u32, (*seed >> 32) as u32]).collect();
        let table = cx.constant_u32("seeds", &[n, 2], &words).unwrap();
        let noise = ops::normal_noise(&mut cx, &table, index, stream, shape).unwrap();
        cx.keep(&noise);
        let plan = cx.finish("noise").unwrap();
        plan.run().unwrap();
        let bytes = gpu.read(plan.kept(noise.storage()).unwrap(), 0..noise.bytes()).unwrap();
        let got: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        for (sample, seed) in seeds.iter().enumerate() {
            // The host counts in C, H, W order; the device's memory is H, W, C.
            let want = fill_normal(*seed, u64::from(index), stream, height * width * channels);
            for (i, got) in got.chunks(height * width * channels).nth(sample).unwrap().iter().enumerate() {
                let (pixel, channel) = (i / channels, i % channels);
                let want = want[channel * height * width + pixel];
                assert_eq!(*got, want.to_bits(), "seed {seed}, pixel {pixel}, channel {channel}: {want}");
            }
        }
    }
}
