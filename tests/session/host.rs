//! A host's device, what a host does with a session, and the pictures it expects.

use std::sync::{Arc, Mutex};

use freeguide::data::Image;
use freeguide::diffusion::Guidance;
use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::model::Model;
use freeguide::sample::{self, Sampler, SamplerOptions};
use freeguide::session::{Request, Session, SessionOptions, Show};
use freeguide::wgpu;
use wgpu::{TextureFormat, TextureUsages};

/// What a host has; errors that it was told of in passing.
pub struct Host {
    pub instance: wgpu::Instance,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Host {
    pub fn new(
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

    pub fn full() -> Host {
        Host::new(wanted_features, wanted_limits)
    }

    pub fn plain() -> Host {
        Host::new(|_| wgpu::Features::empty(), |_| wgpu::Limits::default())
    }

    pub fn model(&self) -> Model {
        Model::digits(&Gpu::from_device(&self.device, &self.queue)).unwrap()
    }

    pub fn session(&self, model: &Model, budget_ms: Option<f64>) -> Session {
        Session::new(&self.device, &self.queue, model, SessionOptions { budget_ms, ..Default::default() })
            .unwrap()
    }

    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("a frame") })
    }

    pub fn wait(&self) {
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }

    pub fn texture(&self, size: [u32; 2], format: TextureFormat, usage: TextureUsages) -> wgpu::Texture {
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
    pub fn read(&self, texture: &wgpu::Texture, pixel_bytes: u32) -> Vec<u8> {
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
    pub fn finish(&self, session: &mut Session) -> Image {
        while !session.progress().finished {
            let mut encoder = self.encoder();
            session.step(&mut encoder).unwrap();
            self.queue.submit([encoder.finish()]);
            self.wait();
        }
        self.picture(session)
    }

    pub fn picture(&self, session: &Session) -> Image {
        let mut encoder = self.encoder();
        let mut later = session.read(&mut encoder, Show::Picture).unwrap();
        assert!(later.try_take().unwrap().is_none(), "nothing was submitted yet");
        self.queue.submit([encoder.finish()]);
        self.wait();
        pollster::block_on(later).unwrap()
    }

    #[track_caller]
    pub fn expect_no_complaints(&self) {
        let complaints = self.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

const STEPS: usize = 6;

pub fn request(class: u32, seed: u64) -> Request {
    let guidance = Guidance::from_weight(2.0).unwrap();
    Request { condition: Some(class).into(), guidance, seed, steps: Some(STEPS), ..Default::default() }
}

pub fn sampled(model: &Model, class: u32, seed: u64) -> Image {
    let options = SamplerOptions { steps: STEPS, ..SamplerOptions::of(&model.config, 1).unwrap() };
    let sampler = Sampler::of(model.gpu(), model, options).unwrap();
    let request = sample::Request::new(Some(class), seed);
    sampler.sample(&[request], Guidance::from_weight(2.0).unwrap(), || Ok(())).unwrap().remove(0)
}
