//! A session in a host's program, on the host's own device: the embedded model, textures, lost devices, leaks.

use std::sync::{Arc, Mutex};

use freeguide::data::Image;
use freeguide::diffusion::Guidance;
use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::model::Model;
use freeguide::sample::{self, Sampler, SamplerOptions};
use freeguide::session::{Render, Request, Session, SessionOptions, Show};
use freeguide::{Error, wgpu};
use wgpu::{TextureFormat, TextureUsages};

/// What a host has; errors that it was told of in passing.
struct Host {
    instance: wgpu::Instance,
    device: wgpu::Device,
    queue: wgpu::Queue,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn new(
        features: impl Fn(&wgpu::Adapter) -> wgpu::Features,
        limits: impl Fn(&wgpu::Adapter) -> wgpu::Limits,
    ) -> Host {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features(&adapter),
            required_limits: limits(&adapter),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
        let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
        device.on_uncaptured_error(Arc::new({
            let complaints = complaints.clone();
            move |error: wgpu::Error| complaints.lock().unwrap().push(error.to_string())
        }));
        Host { instance, device, queue, complaints }
    }

    fn full() -> Host {
        Host::new(wanted_features, wanted_limits)
    }

    fn plain() -> Host {
        Host::new(|_| wgpu::Features::empty(), |_| wgpu::Limits::default())
    }

    fn model(&self) -> Model {
        Model::digits(&Gpu::from_device(&self.device, &self.queue)).unwrap()
    }

    fn session(&self, model: &Model, budget_ms: Option<f64>) -> Session {
        Session::new(&self.device, &self.queue, model, SessionOptions { budget_ms, ..Default::default() })
            .unwrap()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("a frame") })
    }

    fn wait(&self) {
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }

    fn texture(&self, size: [u32; 2], format: TextureFormat, usage: TextureUsages) -> wgpu::Texture {
        self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("target"),
            size: wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage: usage | TextureUsages::COPY_SRC,
            view_formats: &[],
        })
    }

    /// The rows of a texture of `pixel_bytes` bytes a pixel.
    fn read(&self, texture: &wgpu::Texture, pixel_bytes: u32) -> Vec<u8> {
        let size = texture.size();
        let stride = (size.width * pixel_bytes).next_multiple_of(256);
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("host readback"),
            size: u64::from(stride * size.height),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.encoder();
        let layout =
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(stride), rows_per_image: None };
        let to = wgpu::TexelCopyBufferInfo { buffer: &staging, layout };
        encoder.copy_texture_to_buffer(texture.as_image_copy(), to, size);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
        self.wait();
        let view = staging.get_mapped_range(..).unwrap();
        view.chunks(stride as usize)
            .flat_map(|row| row[..(size.width * pixel_bytes) as usize].to_vec())
            .collect()
    }

    /// Steps to the end, a submission a call, and reads the picture.
    fn finish(&self, session: &mut Session) -> Image {
        while !session.progress().finished {
            let mut encoder = self.encoder();
            session.step(&mut encoder).unwrap();
            self.queue.submit([encoder.finish()]);
            self.wait();
        }
        self.picture(session)
    }

    fn picture(&self, session: &Session) -> Image {
        let mut encoder = self.encoder();
        let mut later = session.read(&mut encoder, Show::Picture).unwrap();
        assert!(later.try_take().unwrap().is_none(), "nothing was submitted yet");
        self.queue.submit([encoder.finish()]);
        self.wait();
        pollster::block_on(later).unwrap()
    }

    #[track_caller]
    fn expect_no_complaints(&self) {
        let complaints = self.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

const STEPS: usize = 6;

fn request(class: u32, seed: u64) -> Request {
    let guidance = Guidance::from_weight(2.0).unwrap();
    Request { class: Some(class), guidance, seed, steps: Some(STEPS), ..Default::default() }
}

fn sampled(model: &Model, class: u32, seed: u64) -> Image {
    let options = SamplerOptions { steps: STEPS, ..SamplerOptions::of(&model.config, 1).unwrap() };
    let sampler = Sampler::of(model.gpu(), model, options).unwrap();
    let request = sample::Request { class: Some(class), seed };
    sampler.sample(&[request], Guidance::from_weight(2.0).unwrap(), || Ok(())).unwrap().remove(0)
}

#[test]
fn default_limits_give_the_same_picture() {
    let [full, plain] = [Host::full(), Host::plain()].map(|host| {
        let model = host.model();
        let mut session = host.session(&model, Some(4.0));
        session.start(&request(7, 1)).unwrap();
        let picture = host.finish(&mut session);
        assert_eq!(picture.pixels, sampled(&model, 7, 1).pixels);
        host.expect_no_complaints();
        picture
    });
    let worst = full.pixels.iter().zip(&plain.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 2, "{worst}");
}

/// Downlevel devices have fewer storage buffers a stage than a step takes: an error that says so, or it works.
#[test]
fn downlevel_defaults_work_or_say_why_not() {
    let host = Host::new(|_| wgpu::Features::empty(), |_| wgpu::Limits::downlevel_defaults());
    let made = Model::digits(&Gpu::from_device(&host.device, &host.queue)).and_then(|model| {
        let mut session = Session::new(&host.device, &host.queue, &model, Default::default())?;
        session.start(&request(7, 1))?;
        assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
        Ok(())
    });
    if let Err(error) = made {
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }), "{text}");
        assert!(text.contains("max_storage_buffers_per_shader_stage") && text.contains("8"), "{text}");
    }
    host.expect_no_complaints();
}

/// Each stands half way through a step while the others run; one is dropped there, one cancelled and started anew, and
/// memory is used again.
#[test]
fn two_sessions_do_not_meet() {
    let host = Host::full();
    let model = host.model();
    let (want_a, want_b) = (sampled(&model, 3, 1), sampled(&model, 8, 2));
    let mut a = host.session(&model, Some(0.05));
    let mut b = host.session(&model, Some(0.05));
    a.start(&request(3, 1)).unwrap();
    b.start(&request(8, 2)).unwrap();
    let mut dropped = host.session(&model, Some(0.05));
    dropped.start(&request(1, 3)).unwrap();
    let mut dropped = Some(dropped);
    let mut cancelled = host.session(&model, Some(0.05));
    cancelled.start(&request(2, 4)).unwrap();
    let mut calls = 0;
    while !(a.progress().finished && b.progress().finished) {
        let mut encoder = host.encoder();
        a.step(&mut encoder).unwrap();
        cancelled.step(&mut encoder).unwrap();
        if let Some(dropped) = &mut dropped {
            dropped.step(&mut encoder).unwrap();
        }
        b.step(&mut encoder).unwrap();
        a.step(&mut encoder).unwrap();
        if calls == 40 {
            // Before the encoder that holds its commands is submitted.
            dropped = None;
            assert!(!cancelled.progress().finished);
            cancelled.cancel();
        }
        if calls == 45 {
            cancelled.start(&request(3, 1)).unwrap();
        }
        host.queue.submit([encoder.finish()]);
        host.wait();
        calls += 1;
    }
    assert!(calls > 45 && dropped.is_none(), "{calls} calls");
    assert_eq!(host.finish(&mut cancelled).pixels, want_a.pixels);
    assert_eq!(host.picture(&a).pixels, want_a.pixels);
    assert_eq!(host.picture(&b).pixels, want_b.pixels);
    host.expect_no_complaints();
}

#[test]
fn a_cancelled_or_replaced_request_leaves_no_trace() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(0.05));
    for calls in [0, 1, 30] {
        session.start(&request(1, 9)).unwrap();
        let mut encoder = host.encoder();
        for _ in 0..calls {
            session.step(&mut encoder).unwrap();
        }
        if calls == 1 {
            session.cancel();
            assert_eq!(session.progress().steps, 0);
        }
        // A request in place of another, in the same encoder.
        session.start(&request(7, 1)).unwrap();
        session.step(&mut encoder).unwrap();
        host.queue.submit([encoder.finish()]);
        assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
    }
    // An encoder that is never submitted: what was in it is lost, and nothing else.
    session.start(&request(1, 9)).unwrap();
    let mut encoder = host.encoder();
    session.step(&mut encoder).unwrap();
    let later = session.read(&mut encoder, Show::Picture).unwrap();
    drop(encoder);
    let error = pollster::block_on(later).unwrap_err();
    assert!(error.to_string().contains("never submitted"), "{error}");
    session.start(&request(7, 1)).unwrap();
    assert_eq!(host.finish(&mut session).pixels, sampled(&model, 7, 1).pixels);
    host.expect_no_complaints();
}

/// A window that is dragged larger and smaller while its picture forms.
#[test]
fn a_resized_target_changes_nothing() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(0.2));
    session.start(&request(4, 6)).unwrap();
    let (mut frame, mut last) = (0, None);
    while !session.progress().finished {
        let size = [8 * (1 + frame % 5), 8 * (1 + frame % 3)];
        let texture = host.texture(size, TextureFormat::Rgba8Unorm, TextureUsages::RENDER_ATTACHMENT);
        let mut encoder = host.encoder();
        session.step(&mut encoder).unwrap();
        session.render_to(&mut encoder, &texture.create_view(&Default::default())).unwrap();
        host.queue.submit([encoder.finish()]);
        host.wait();
        last = Some((texture, size));
        frame += 1;
    }
    let want = sampled(&model, 4, 6);
    assert_eq!(host.picture(&session).pixels, want.pixels);
    // The last frame shows it, at the size that the target then had.
    let (texture, [width, height]) = last.unwrap();
    for (i, texel) in host.read(&texture, 4).chunks(4).enumerate() {
        let [x, y] = [i as u32 % width * 8 / width, i as u32 / width * 8 / height];
        let want = want.pixels[(8 * y + x) as usize];
        assert!(texel[0].abs_diff(want) <= 1, "{texel:?} at {i}, expected {want}");
    }
    host.expect_no_complaints();
}

/// sRGB-encoded bytes to linear light.
fn linear(byte: u8) -> f64 {
    let x = f64::from(byte) / 255.0;
    if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
}

#[test]
fn textures_of_any_size_and_format() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, None);
    session.start(&request(5, 4)).unwrap();
    let picture = host.finish(&mut session);
    let (render, store) = (TextureUsages::RENDER_ATTACHMENT, TextureUsages::STORAGE_BINDING);
    // Sizes change between frames, as a window's do.
    for (size, usage, format, pixel) in [
        ([16, 16], render, TextureFormat::Rgba8Unorm, 4),
        ([16, 16], render, TextureFormat::Rgba8UnormSrgb, 4),
        ([8, 8], render, TextureFormat::Bgra8UnormSrgb, 4),
        ([77, 33], render, TextureFormat::Bgra8Unorm, 4),
        ([3, 5], render, TextureFormat::R8Unorm, 1),
        ([24, 8], render, TextureFormat::Rgba16Float, 8),
        ([40, 40], store, TextureFormat::Rgba8Unorm, 4),
        ([13, 9], store, TextureFormat::Rgba16Float, 8),
        ([13, 9], store, TextureFormat::Rgba32Float, 16),
        ([13, 9], store, TextureFormat::R32Float, 4),
    ] {
        let texture = host.texture(size, format, usage);
        let view = texture.create_view(&Default::default());
        let mut encoder = host.encoder();
        session.render_to(&mut encoder, &view).unwrap();
        host.queue.submit([encoder.finish()]);
        let bytes = host.read(&texture, pixel);
        for (i, texel) in bytes.chunks(pixel as usize).enumerate() {
            let [x, y] = [i as u32 % size[0], i as u32 / size[0]];
            let [column, row] =
                [(x, size[0]), (y, size[1])].map(|(at, of)| (f64::from(at) + 0.5) / f64::from(of) * 8.0);
            // A texel's middle on the border of two pixels may show either.
            if size != [8, 8] && (column.fract() == 0.0 || row.fract() == 0.0) {
                continue;
            }
            let byte = picture.pixels[row as usize * 8 + column as usize];
            let (got, want, allowed) = match format {
                TextureFormat::Rgba16Float => {
                    let half = half::f16::from_le_bytes([texel[0], texel[1]]);
                    (half.to_f64(), linear(byte), 0.01)
                }
                TextureFormat::Rgba32Float | TextureFormat::R32Float => {
                    let whole: [u8; 4] = texel[..4].try_into().unwrap();
                    (f64::from(f32::from_le_bytes(whole)), linear(byte), 0.01)
                }
                // Encoded bytes either way: by the hardware, or as they are. Files truncate, textures round.
                _ => (f64::from(texel[0]), f64::from(byte), 1.01),
            };
            assert!((got - want).abs() <= allowed, "{format:?} {size:?} at {x}, {y}: {got}, expected {want}");
        }
    }
    // An sRGB view of a texture without; linear light where it is asked for; the latent; bilinear.
    let texture = host.device.create_texture(&wgpu::TextureDescriptor {
        label: Some("target"),
        size: wgpu::Extent3d { width: 8, height: 8, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: TextureFormat::Rgba8Unorm,
        usage: render | TextureUsages::COPY_SRC,
        view_formats: &[TextureFormat::Rgba8UnormSrgb],
    });
    let format = Some(TextureFormat::Rgba8UnormSrgb);
    let view = texture.create_view(&wgpu::TextureViewDescriptor { format, ..Default::default() });
    for smooth in [false, true] {
        let mut encoder = host.encoder();
        session
            .render(&mut encoder, &view, &Render { format, smooth, show: Show::Latent, linear_light: None })
            .unwrap();
        host.queue.submit([encoder.finish()]);
        for (texel, want) in host.read(&texture, 4).chunks(4).zip(&picture.pixels) {
            assert!(texel[0].abs_diff(*want) <= 1, "{texel:?}, expected {want}");
        }
    }
    // What cannot be drawn into is an error with a name.
    let refused = |session: &mut Session, format, usage| {
        let view = host.texture([8, 8], format, usage).create_view(&Default::default());
        session.render_to(&mut host.encoder(), &view).unwrap_err().to_string()
    };
    assert!(refused(&mut session, TextureFormat::Rgba8Uint, render).contains("Rgba8Uint"));
    assert!(refused(&mut session, TextureFormat::R32Uint, store).contains("R32Uint"));
    assert!(
        refused(&mut session, TextureFormat::Rgba8Unorm, TextureUsages::COPY_DST)
            .contains("RENDER_ATTACHMENT")
    );
    host.expect_no_complaints();
}

#[test]
fn a_device_lost_half_way_is_an_error_and_not_a_panic() {
    for budget in [None, Some(0.05)] {
        let (host, other) = (Host::full(), Host::full());
        let model = host.model();
        let mut session = host.session(&model, budget);
        session.start(&request(7, 1)).unwrap();
        // A session of another device of the program, under way too.
        let unharmed = other.model();
        let mut unharmed_session = other.session(&unharmed, budget);
        unharmed_session.start(&request(7, 1)).unwrap();
        let mut encoder = other.encoder();
        unharmed_session.step(&mut encoder).unwrap();
        other.queue.submit([encoder.finish()]);
        let texture = host.texture([16, 16], TextureFormat::Rgba8Unorm, TextureUsages::RENDER_ATTACHMENT);
        let view = texture.create_view(&Default::default());
        let frame = |session: &mut Session| -> freeguide::Result<()> {
            let mut encoder = host.encoder();
            session.step(&mut encoder)?;
            session.render_to(&mut encoder, &view)?;
            let later = session.read(&mut encoder, Show::Picture)?;
            host.queue.submit([encoder.finish()]);
            host.wait();
            pollster::block_on(later).map(drop)
        };
        frame(&mut session).unwrap();
        frame(&mut session).unwrap();
        host.device.destroy();
        let error = frame(&mut session).unwrap_err();
        assert!(matches!(error, Error::Device(_)), "{error}");
        // From then on everything says so.
        assert!(frame(&mut session).is_err());
        session.cancel();
        let _ = session.start(&request(7, 1));
        assert!(frame(&mut session).is_err());
        assert!(Session::new(&host.device, &host.queue, &model, Default::default()).is_err());
        assert_eq!(other.finish(&mut unharmed_session).pixels, sampled(&unharmed, 7, 1).pixels);
        other.expect_no_complaints();
    }
}

#[test]
fn a_thousand_starts_leave_nothing_behind() {
    let host = Host::full();
    let model = host.model();
    let mut session = host.session(&model, Some(1.0));
    let texture = host.texture([16, 16], TextureFormat::Rgba8Unorm, TextureUsages::STORAGE_BINDING);
    let view = texture.create_view(&Default::default());
    // Buffers, textures and bind groups that live, as wgpu counts them.
    let alive = || {
        host.wait();
        let report = host.instance.generate_report().expect("wgpu's own backend");
        let hub = report.hub_report();
        [&hub.buffers, &hub.bind_groups, &hub.textures, &hub.compute_pipelines, &hub.command_encoders]
            .map(|kind| kind.num_allocated)
    };
    let mut baseline = None;
    for start in 0..1000u64 {
        session.start(&request((start % 10) as u32, start)).unwrap();
        let mut encoder = host.encoder();
        for _ in 0..start % 4 {
            session.step(&mut encoder).unwrap();
        }
        session.render_to(&mut encoder, &view).unwrap();
        if start % 50 == 0 {
            let later = session.read(&mut encoder, Show::Picture).unwrap();
            if start % 100 == 0 {
                drop(later);
            }
        }
        if start % 7 == 0 {
            drop(encoder);
        } else {
            host.queue.submit([encoder.finish()]);
        }
        if start % 8 == 0 {
            host.wait();
        }
        if start == 20 {
            baseline = Some(alive());
        }
    }
    assert_eq!(Some(alive()), baseline);
    // A session takes all it had with it.
    let before = alive();
    let other = host.session(&model, Some(1.0));
    assert!(alive() > before);
    drop(other);
    assert_eq!(alive(), before);
    host.expect_no_complaints();
}
