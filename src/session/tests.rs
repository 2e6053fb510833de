//! Sessions beside the sampler, on this process's own device.

use super::*;
use crate::diffusion::{Clip, Guidance};
use crate::gpu::Gpu;
use crate::model::{Model, ModelConfig, SamplingDefaults, SchedulerConfig};
use crate::nn::unet::NullClass;
use crate::nn::unet::tests::small;
use crate::nn::{UNet, UNetConfig};
use crate::sample::{self, Sampler, SamplerOptions};
use crate::testing::gpu;

/// A small network that can be guided.
pub(super) fn learned() -> UNetConfig {
    UNetConfig { null_class: NullClass::Learned, ..small() }
}

/// A small network whose every parameter says something; layers start with zeros in places.
pub(super) fn model(gpu: &Gpu, unet: UNetConfig) -> Model {
    let network = UNet::new(&unet).unwrap();
    let mut values = network.parameters().initial_values(3);
    for (i, values) in values.iter_mut().enumerate().filter(|(_, values)| values.iter().all(|x| *x == 0.0)) {
        *values = crate::random::init_uniform(5, i as u64, values.len(), 0.2);
    }
    let config = ModelConfig {
        class_name: "FreeguideUNet".into(),
        class_names: (0..unet.num_classes.unwrap_or(0)).map(|class| class.to_string()).collect(),
        unet,
        scheduler: SchedulerConfig::continuous(-20.0, 20.0),
        sampling: SamplingDefaults {
            steps: 5,
            variance_exponent: 0.3,
            clip: "static".into(),
            sampler: None,
            spacing: None,
        },
        data: "none".into(),
        unconditional_probability: 0.1,
        part_dropout: 0.0,
        attributes: Vec::new(),
        images_seen: 0,
        ema_rate: None,
        ema_warmup: None,
        ema_initial_share: None,
        trained_rows: None,
        init_from: None,
    };
    Model::of_values(gpu, config, &values, "a small model".as_ref()).unwrap()
}

pub(super) fn session(model: &Model, options: SessionOptions) -> Session {
    Session::new(model.gpu().device(), model.gpu().queue(), model, options).unwrap()
}

pub(super) fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("host") })
}

/// Steps to the end, `calls` calls an encoder, and reads z and the picture; also how many calls it took.
pub(super) fn finish(session: &mut Session, gpu: &Gpu, calls: usize) -> (Vec<f32>, Vec<f32>, usize) {
    let mut taken = 0;
    while !session.progress().finished {
        let mut host = encoder(gpu);
        for _ in 0..calls {
            let before = session.progress().fraction;
            let progress = session.step(&mut host).unwrap();
            assert!(progress.fraction > before || progress.finished);
            taken += 1;
        }
        gpu.queue().submit([host.finish()]);
        // As a frame's end would: what was measured arrives.
        gpu.wait().unwrap();
        assert!(taken < 100_000);
    }
    let read = |buffer: &crate::gpu::Buffer| {
        let bytes = session.shape().iter().product::<usize>() as u64 * 4;
        bytemuck::pod_collect_to_vec(&gpu.read(buffer, 0..bytes).unwrap())
    };
    (read(session.latent()), read(session.picture()), taken)
}

fn sampled(model: &Model, class: Option<u32>, w: f64, seed: u64) -> Vec<f32> {
    let guidance = Guidance::from_weight(w).unwrap();
    let options = SamplerOptions {
        guided: Sampler::needs_both(guidance),
        ..SamplerOptions::of(&model.config, 1).unwrap()
    };
    let sampler = Sampler::of(model.gpu(), model, options).unwrap();
    let mut run = sampler.start(&[sample::Request::new(class, seed)], guidance).unwrap();
    (0..model.config.sampling.steps).for_each(|_| run.step().unwrap());
    sampler.read(1).unwrap()
}

pub(super) fn request(class: u32, w: f64, seed: u64) -> Request {
    let guidance = Guidance::from_weight(w).unwrap();
    Request { condition: Some(class).into(), guidance, seed, ..Request::default() }
}

/// Hosts keep sessions where several threads see them: bevy in its resources.
#[test]
fn sessions_go_between_threads() {
    fn sure<T: Send + Sync>() {}
    sure::<Session>();
}

#[test]
fn a_session_draws_what_the_sampler_draws() {
    let model = model(gpu(), learned());
    let mut session = session(&model, SessionOptions::default());
    for (w, seed) in [(1.5, 7), (0.0, u64::MAX), (-1.0, 3), (1.5, 8)] {
        session.start(&request(1, w, seed)).unwrap();
        for calls in [1, 100] {
            session.start(&request(1, w, seed)).unwrap();
            let (z, picture, _) = finish(&mut session, gpu(), calls);
            assert_eq!(z, sampled(&model, Some(1), w, seed), "w = {w}, {calls} calls an encoder");
            assert_eq!(z, picture, "the last step leaves x");
        }
    }
    session.start(&Request { seed: 4, ..Request::default() }).unwrap();
    assert_eq!(finish(&mut session, gpu(), 1).0, sampled(&model, None, -1.0, 4), "no class");
}

#[test]
fn slices_change_nothing() {
    let model = model(gpu(), learned());
    let want = sampled(&model, Some(2), 2.0, 11);
    for budget in [1e-3, 0.2, 1e3] {
        let options = SessionOptions { budget_ms: Some(budget), ..SessionOptions::default() };
        let mut session = session(&model, options);
        for calls in [1, 3, 7] {
            session.start(&request(2, 2.0, 11)).unwrap();
            let (z, _, taken) = finish(&mut session, gpu(), calls);
            assert_eq!(z, want, "a budget of {budget} ms, {calls} calls an encoder");
            let steps = model.config.sampling.steps;
            assert!(if budget < 1.0 { taken > 4 * steps } else { taken <= 60 * steps }, "{taken} calls");
        }
    }
}

/// Conditions travel in the encoder: changes between two calls of one encoder hold from the second on.
#[test]
fn conditions_change_between_steps_of_one_encoder() {
    let model = model(gpu(), learned());
    let play = |together: bool| {
        let mut session = session(&model, SessionOptions { mixed_classes: 2, ..SessionOptions::default() });
        session.start(&request(0, 1.0, 9)).unwrap();
        let mut host = encoder(gpu());
        for step in 0..5 {
            match step {
                1 => session.set_guidance(Guidance::from_weight(3.0).unwrap()).unwrap(),
                2 => session.set_class(Some(2)).unwrap(),
                3 => session.set_mix(&[(0, 1.0), (1, 3.0)]).unwrap(),
                4 => session.set_guidance(Guidance::from_weight(0.0).unwrap()).unwrap(),
                _ => {}
            }
            session.step(&mut host).unwrap();
            if !together {
                gpu().queue().submit([std::mem::replace(&mut host, encoder(gpu())).finish()]);
            }
        }
        gpu().queue().submit([host.finish()]);
        finish(&mut session, gpu(), 1).0
    };
    let together = play(true);
    assert_eq!(together, play(false));
    assert_ne!(together, sampled(&model, Some(0), 1.0, 9));
}

#[test]
fn a_mix_of_one_class_is_that_class() {
    let model = model(gpu(), learned());
    let mut session = session(&model, SessionOptions { mixed_classes: 3, ..SessionOptions::default() });
    let want = sampled(&model, Some(1), 2.0, 5);
    for mix in [vec![(1, 1.0)], vec![(1, 2.0), (1, 1.0), (1, 1.0)]] {
        session.start(&request(0, 2.0, 5)).unwrap();
        session.set_mix(&mix).unwrap();
        let z = finish(&mut session, gpu(), 1).0;
        let worst = z.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{mix:?}: {worst}");
    }
    session.start(&request(0, 2.0, 5)).unwrap();
    session.set_mix(&[(0, 1.0), (1, 1.0)]).unwrap();
    let mixed = finish(&mut session, gpu(), 1).0;
    assert!(mixed != want && mixed != sampled(&model, Some(0), 2.0, 5));
}

#[test]
fn f16_and_other_networks_run_too() {
    for unet in [
        UNetConfig { num_classes: None, ..learned() },
        UNetConfig { out_channels: 2 * learned().in_channels, ..learned() },
    ] {
        let classes = unet.num_classes.is_some();
        let model = model(gpu(), unet);
        let mut session = session(&model, SessionOptions::default());
        if classes {
            session.start(&request(1, 1.0, 2)).unwrap();
        } else {
            assert!(session.start(&request(1, 1.0, 2)).unwrap_err().to_string().contains("without classes"));
            session.start(&Request { seed: 2, ..Request::default() }).unwrap();
        }
        let (class, w) = if classes { (Some(1), 1.0) } else { (None, -1.0) };
        assert_eq!(finish(&mut session, gpu(), 2).0, sampled(&model, class, w, 2));
    }
    if gpu().capabilities().f16 {
        let model = model(gpu(), learned());
        let dtype = crate::tensor::DType::F16;
        let mut session = session(&model, SessionOptions { dtype, ..SessionOptions::default() });
        session.start(&request(1, 1.0, 2)).unwrap();
        let options = SamplerOptions { dtype, ..SamplerOptions::of(&model.config, 1).unwrap() };
        let sampler = Sampler::of(gpu(), &model, options).unwrap();
        let mut run =
            sampler.start(&[sample::Request::new(Some(1), 2)], Guidance::from_weight(1.0).unwrap()).unwrap();
        (0..model.config.sampling.steps).for_each(|_| run.step().unwrap());
        assert_eq!(finish(&mut session, gpu(), 2).0, sampler.read(1).unwrap());
    }
}

#[test]
fn senseless_requests_are_errors_and_harm_nothing() {
    let model = model(gpu(), learned());
    let new =
        |options| Session::new(gpu().device(), gpu().queue(), &model, options).err().unwrap().to_string();
    assert!(new(SessionOptions { budget_ms: Some(0.0), ..Default::default() }).contains("budget of 0 ms"));
    assert!(new(SessionOptions { mixed_classes: 0, ..Default::default() }).contains("0 mixed classes"));
    assert!(new(SessionOptions { max_steps: 0, ..Default::default() }).contains("0 steps"));

    let options = SessionOptions { max_steps: 8, clip: Some(Clip::None), ..Default::default() };
    let mut session = session(&model, options);
    let mut host = encoder(gpu());
    assert_eq!(session.step(&mut host).unwrap(), Progress::default());
    session.start(&request(0, 1.0, 1)).unwrap();
    session.step(&mut host).unwrap();
    let under_way = session.progress();
    assert_eq!((under_way.step, under_way.steps, under_way.finished), (1, 5, false));
    let mut error = |request: Request| session.start(&request).unwrap_err().to_string();
    assert!(error(request(99, 1.0, 1)).contains("no class 99"));
    assert!(error(Request { steps: Some(9), ..request(0, 1.0, 1) }).contains("9 steps in a session for 8"));
    assert!(error(Request { steps: Some(0), ..request(0, 1.0, 1) }).contains("step"));
    assert!(error(Request { variance_exponent: Some(2.0), ..request(0, 1.0, 1) }).contains("2"));
    assert!(session.set_mix(&[(0, 1.0), (1, 1.0)]).unwrap_err().to_string().contains("mixed_classes"));
    assert!(session.set_mix(&[(0, 0.0)]).unwrap_err().to_string().contains("sum other than 0"));
    assert!(session.set_class(Some(77)).is_err());
    assert_eq!(session.progress(), under_way);
    session.cancel();
    assert_eq!(session.progress(), Progress::default());

    // Another device of the same instance, as a host may have several.
    let (instance, descriptor) = (wgpu::Instance::default(), wgpu::DeviceDescriptor::default());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let [(a, queue), (b, other)] =
        [0, 1].map(|_| pollster::block_on(adapter.request_device(&descriptor)).unwrap());
    let model = self::model(&Gpu::from_device(&a, &queue), learned());
    let error = Session::new(&b, &other, &model, Default::default()).err().unwrap();
    assert!(error.to_string().contains("another device"), "{error}");
}

/// Without timestamps the same picture comes by the other way of cutting.
#[test]
fn a_device_without_timestamps_is_cut_by_intervals() {
    let plain = pollster::block_on(Gpu::with_default_limits(&Default::default())).unwrap();
    let model = model(&plain, learned());
    let options = SessionOptions { budget_ms: Some(5.0), ..SessionOptions::default() };
    let mut session = session(&model, options);
    session.start(&request(2, 2.0, 11)).unwrap();
    let (z, _, taken) = finish(&mut session, &plain, 1);
    assert!(taken > 10, "{taken} calls: slices start small");
    assert_eq!(z, sampled(&model, Some(2), 2.0, 11));
}
