//! The embedded model of digits in a session on the page's own WebGPU device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use freeguide::diffusion::Guidance;
use freeguide::gpu::{Gpu, wanted_features, wanted_limits};
use freeguide::model::{Model, ModelConfig};
use freeguide::session::{Render, Request, Session, SessionOptions, Show};
use freeguide::wgpu;
use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use web_sys::HtmlCanvasElement;

/// Frames the GPU may lag behind; those beyond record nothing.
const MOST_FRAMES: u32 = 2;
/// The event that tells the page of a device that failed, with the words in its `detail`.
const FAILURE: &str = "freeguide-failure";

/// A canvas and which of the session's pictures it shows.
struct View {
    surface: wgpu::Surface<'static>,
    show: Show,
}

/// A sampler of digits that draws as it goes.
#[wasm_bindgen]
pub struct Digits {
    device: wgpu::Device,
    queue: wgpu::Queue,
    session: Session,
    config: ModelConfig,
    views: [View; 2],
    frames: Arc<AtomicU32>,
}

#[wasm_bindgen]
impl Digits {
    /// Asks the browser for a device, and prepares the model and the two canvases on it: one for what the network takes
    /// the picture to be, one for the noisy latent.
    ///
    /// # Errors
    /// In words for the page, where there is no adapter or no device.
    pub async fn open(picture: HtmlCanvasElement, latent: HtmlCanvasElement) -> Result<Digits, JsError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::BROWSER_WEBGPU,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|_| {
            JsError::new("This browser knows WebGPU but found no GPU to run it on: no adapter was given.")
        })?;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("freeguide's page"),
                required_features: wanted_features(&adapter),
                required_limits: wanted_limits(&adapter),
                ..Default::default()
            })
            .await
            .map_err(|error| JsError::new(&format!("The GPU was found but gave no device: {error}")))?;
        device.on_uncaptured_error(Arc::new(|error: wgpu::Error| tell_failure(&error.to_string())));
        device.set_device_lost_callback(|reason, message| {
            tell_failure(&format!("The GPU's device was lost ({reason:?}). {message}"));
        });

        let view = |canvas: HtmlCanvasElement, show| -> Result<View, JsError> {
            let (width, height) = (canvas.width(), canvas.height());
            let surface = instance.create_surface(wgpu::SurfaceTarget::Canvas(canvas))?;
            let configuration = surface.get_default_config(&adapter, width, height);
            let refused = || JsError::new("The browser's canvas cannot be drawn into through WebGPU.");
            surface.configure(&device, &configuration.ok_or_else(refused)?);
            Ok(View { surface, show })
        };
        let views = [view(picture, Show::Picture)?, view(latent, Show::Latent)?];
        let model = Model::digits(&Gpu::from_device(&device, &queue))?;
        let session = Session::new(&device, &queue, &model, SessionOptions::default())?;
        Ok(Digits { device, queue, session, config: model.config, views, frames: Arc::default() })
    }

    /// Pixels along a side; the digits are squares.
    #[wasm_bindgen(getter)]
    pub fn size(&self) -> usize {
        self.config.unet.sample_size.longer()
    }

    /// Steps of a picture.
    #[wasm_bindgen(getter)]
    pub fn steps(&self) -> usize {
        self.config.sampling.steps
    }

    /// Begins a picture in place of the one under way; no class is no condition.
    ///
    /// # Errors
    /// For a class the model has not and a w that is not finite.
    pub fn start(&mut self, class: Option<u32>, w: f64, seed: u32) -> Result<(), JsError> {
        let guidance = Guidance::from_weight(w)?;
        Ok(self.session.start(&Request { condition: class.into(), guidance, seed: seed.into(), ..Request::default() })?)
    }

    /// A frame: up to `steps` denoising steps, unless the GPU lags behind, and both canvases drawn, with square pixels or
    /// smooth ones. The number of steps that the picture has come.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn frame(&mut self, steps: usize, smooth: bool) -> Result<usize, JsError> {
        if self.frames.load(Ordering::Relaxed) < MOST_FRAMES {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("a frame") };
            let mut encoder = self.device.create_command_encoder(&descriptor);
            for _ in 0..steps {
                self.session.step(&mut encoder)?;
            }
            let mut drawn = Vec::new();
            for View { surface, show } in &self.views {
                use wgpu::CurrentSurfaceTexture::{Suboptimal, Success};
                let (Success(texture) | Suboptimal(texture)) = surface.get_current_texture() else {
                    continue;
                };
                let view = texture.texture.create_view(&wgpu::TextureViewDescriptor::default());
                self.session.render(
                    &mut encoder,
                    &view,
                    &Render { show: *show, smooth, ..Render::default() },
                )?;
                drawn.push(texture);
            }
            self.queue.submit([encoder.finish()]);
            drawn.into_iter().for_each(|texture| self.queue.present(texture));
            self.frames.fetch_add(1, Ordering::Relaxed);
            let frames = self.frames.clone();
            self.queue.on_submitted_work_done(move || {
                frames.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(self.session.progress().step)
    }

    /// The picture as it stands, a `Promise` of its grey bytes row by row.
    ///
    /// # Errors
    /// When the device has failed; the promise likewise.
    pub fn read(&self) -> Result<Promise, JsError> {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("the picture") };
        let mut encoder = self.device.create_command_encoder(&descriptor);
        let later = self.session.read(&mut encoder, Show::Picture)?;
        self.queue.submit([encoder.finish()]);
        Ok(future_to_promise(async move {
            let image = later.await.map_err(JsError::from)?;
            Ok(Uint8Array::from(&image.pixels[..]).into())
        }))
    }
}

/// Tells the page, whose listener shows it.
fn tell_failure(what: &str) {
    let init = web_sys::CustomEventInit::new();
    init.set_detail(&what.into());
    let event = web_sys::CustomEvent::new_with_event_init_dict(FAILURE, &init);
    if let (Some(window), Ok(event)) = (web_sys::window(), event) {
        // Nobody cancels it.
        let _ = window.dispatch_event(&event);
    }
}
