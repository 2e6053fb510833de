//! A window without a toolkit: winit, wgpu, and a session that draws straight into the window's texture.
//!
//! `cargo run --release --features demo --example winit -- [MODEL]`; without a model the embedded digits.
//!
//! Keys: 0 to 9 the class, up and down the guidance weight w, right and left the seed, space again, C cancel, Escape quit.
//! Class and w change in the picture under way. The window's title says where it stands.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use freeguide::diffusion::Guidance;
use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::model::Model;
use freeguide::session::{Request, Session, SessionOptions};
use freeguide::wgpu;
use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::{ElementState, WindowEvent};
use winit::event_loop::{ActiveEventLoop, EventLoop};
use winit::keyboard::{Key, NamedKey};
use winit::window::{Window, WindowId};

/// GPU time of a frame that may go into the picture.
const BUDGET_MS: f64 = 8.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut program = Program { showing: None, failure: None };
    EventLoop::new()?.run_app(&mut program)?;
    program.failure.map_or(Ok(()), Err)
}

/// The window exists once the event loop says that it may.
struct Program {
    showing: Option<Showing>,
    failure: Option<Box<dyn Error>>,
}

struct Showing {
    window: Arc<Window>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    surface: wgpu::Surface<'static>,
    surface_options: wgpu::SurfaceConfiguration,
    session: Session,
    request: Request,
    frame_begun: Instant,
}

impl Showing {
    fn new(events: &ActiveEventLoop) -> Result<Showing, Box<dyn Error>> {
        let attributes = Window::default_attributes().with_inner_size(LogicalSize::new(512, 512));
        let window = Arc::new(events.create_window(attributes)?);

        // The program's device, for this window, with what helps the library and nothing more.
        let display = Box::new(events.owned_display_handle());
        let instance =
            wgpu::Instance::new(wgpu::InstanceDescriptor::new_with_display_handle_from_env(display));
        let surface = instance.create_surface(window.clone())?;
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            compatible_surface: Some(&surface),
            ..Default::default()
        }))?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("the program's device"),
            required_features: wanted_features(&adapter),
            required_limits: wanted_limits(&adapter),
            ..Default::default()
        }))?;
        let size = window.inner_size();
        let surface_options = surface
            .get_default_config(&adapter, size.width.max(1), size.height.max(1))
            .ok_or("the adapter cannot draw into this window")?;
        surface.configure(&device, &surface_options);

        let gpu = Gpu::from_device(&device, &queue);
        let model = match std::env::args_os().nth(1) {
            Some(path) => Model::load(&gpu, path.as_ref())?,
            None => Model::digits(&gpu)?,
        };
        let options = SessionOptions { budget_ms: Some(BUDGET_MS), ..SessionOptions::default() };
        let mut session = Session::new(&device, &queue, &model, options)?;

        let class = model.config.unet.num_classes.map(|classes| 7.min(classes as u32 - 1));
        let weight = if model.config.can_guide() { 2.0 } else { 0.0 };
        let guidance = Guidance::from_weight(weight)?;
        let request = Request { condition: class.into(), guidance, seed: 1, ..Request::default() };
        session.start(&request)?;
        let frame_begun = Instant::now();
        Ok(Showing { window, device, queue, surface, surface_options, session, request, frame_begun })
    }

    /// A frame: a slice of a denoising step, the picture as it stands, the screen.
    fn draw(&mut self) -> Result<(), Box<dyn Error>> {
        use wgpu::CurrentSurfaceTexture::{Lost, Outdated, Suboptimal, Success};
        let frame = match self.surface.get_current_texture() {
            Success(frame) | Suboptimal(frame) => frame,
            Outdated => {
                self.surface.configure(&self.device, &self.surface_options);
                return Ok(());
            }
            Lost => return Err("the window's surface is lost".into()),
            // Hidden, or too late: another frame comes.
            _ => return Ok(()),
        };
        let view = frame.texture.create_view(&wgpu::TextureViewDescriptor::default());
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("a frame") };
        let mut encoder = self.device.create_command_encoder(&descriptor);
        let progress = self.session.step(&mut encoder)?;
        self.session.render_to(&mut encoder, &view)?;
        self.queue.submit([encoder.finish()]);
        self.window.pre_present_notify();
        self.queue.present(frame);

        let frame_ms = self.frame_begun.elapsed().as_secs_f64() * 1e3;
        self.frame_begun = Instant::now();
        let class = self.request.condition.class.map_or("none".into(), |class| class.to_string());
        self.window.set_title(&format!(
            "class {class}, w = {:.1}, seed {}: step {} of {}, {frame_ms:.1} ms a frame",
            self.request.guidance.weight(),
            self.request.seed,
            progress.step,
            progress.steps
        ));
        Ok(())
    }

    fn resize(&mut self, width: u32, height: u32) {
        (self.surface_options.width, self.surface_options.height) = (width.max(1), height.max(1));
        self.surface.configure(&self.device, &self.surface_options);
    }

    /// What a key changes: in the picture under way where that can be, else in a new one.
    fn key(&mut self, key: &Key) -> freeguide::Result<()> {
        let step = |by: f64| Guidance::from_weight((self.request.guidance.weight() + by).clamp(-1.0, 8.0));
        let mut wanted = self.request.clone();
        match key {
            Key::Named(NamedKey::ArrowUp) => wanted.guidance = step(0.2)?,
            Key::Named(NamedKey::ArrowDown) => wanted.guidance = step(-0.2)?,
            Key::Named(NamedKey::ArrowRight) => wanted.seed = wanted.seed.wrapping_add(1),
            Key::Named(NamedKey::ArrowLeft) => wanted.seed = wanted.seed.wrapping_sub(1),
            Key::Named(NamedKey::Space) => return self.session.start(&wanted),
            Key::Character(text) if text == "c" => {
                self.session.cancel();
                return Ok(());
            }
            Key::Character(text) => match text.parse() {
                Ok(class) => wanted.condition.class = Some(class),
                Err(_) => return Ok(()),
            },
            _ => return Ok(()),
        }
        let progress = self.session.progress();
        if wanted.seed == self.request.seed && progress.steps > 0 && !progress.finished {
            self.session.set_class(wanted.condition.class)?;
            self.session.set_guidance(wanted.guidance)?;
        } else {
            self.session.start(&wanted)?;
        }
        self.request = wanted;
        Ok(())
    }
}

impl ApplicationHandler for Program {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        match Showing::new(events) {
            Ok(showing) => self.showing = Some(showing),
            Err(error) => self.end(events, error),
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(showing) = &mut self.showing else { return };
        match event {
            WindowEvent::CloseRequested => events.exit(),
            WindowEvent::Resized(size) => showing.resize(size.width, size.height),
            WindowEvent::KeyboardInput { event, .. } if event.state == ElementState::Pressed => {
                if event.logical_key == Key::Named(NamedKey::Escape) {
                    return events.exit();
                }
                // A class that the model has not, say: the picture goes on.
                if let Err(error) = showing.key(&event.logical_key) {
                    eprintln!("{error}");
                }
            }
            WindowEvent::RedrawRequested => match showing.draw() {
                Ok(()) => showing.window.request_redraw(),
                Err(error) => self.end(events, error),
            },
            _ => {}
        }
    }
}

impl Program {
    fn end(&mut self, events: &ActiveEventLoop, error: Box<dyn Error>) {
        self.failure = Some(error);
        events.exit();
    }
}
