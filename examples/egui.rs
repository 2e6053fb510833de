//! freeguide in somebody else's window: egui's device, egui's frames. `freeguide demo` is this file.
//!
//! `cargo run --release --features demo --example egui -- [MODEL]`; without a model the embedded digits.
//!
//! Every frame records a slice of a denoising step under a budget of GPU time, draws the picture as it stands into textures
//! that egui shows, and submits. Guidance and class may change while the picture forms.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::emath::GuiRounding;
use eframe::egui::{self, Color32, Pos2, Rect, RichText, Sense, Stroke, TextureId, Vec2};
use eframe::egui_wgpu::{RenderState, WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use freeguide::diffusion::Guidance;
use freeguide::gpu::{Gpu, matrix_features, wanted_features, wanted_limits};
use freeguide::model::{Choice, Model, ModelConfig};
use freeguide::session::{Render, Request, Session, SessionOptions, Show};
use freeguide::tensor::Precision;
use freeguide::{Error, Result, wgpu};

/// What the window opens with.
pub struct Options {
    /// A model's folder or file; the embedded digits without.
    pub model: Option<PathBuf>,
    /// Which of its networks and averages, where there are several.
    pub choice: Choice,
    /// A class by number or name; 7, or the model's last, without.
    pub class: Option<String>,
    /// The guidance weight w.
    pub weight: f64,
    pub seed: u64,
    /// Denoising steps; the model's own without.
    pub steps: Option<usize>,
    /// GPU time of a frame that may go into the picture.
    pub budget_ms: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            model: None,
            choice: Choice::default(),
            class: None,
            weight: 2.0,
            seed: 1,
            steps: None,
            budget_ms: 8.0,
        }
    }
}

#[allow(dead_code, reason = "the program has a main of its own")]
fn main() -> eframe::Result {
    open(Options { model: std::env::args_os().nth(1).map(PathBuf::from), ..Options::default() })
}

/// Opens the window and returns when it is closed.
pub fn open(options: Options) -> eframe::Result {
    let native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default().with_inner_size([980.0, 720.0]),
        wgpu_options: WgpuConfiguration { wgpu_setup: setup(), ..WgpuConfiguration::default() },
        ..eframe::NativeOptions::default()
    };
    eframe::run_native("freeguide", native, Box::new(move |made| Ok(Box::new(App::new(made, &options)?))))
}

/// egui's own device would do: a session runs on WebGPU's default limits without any feature. It is quicker with these,
/// and measures its slices by the GPU's clock.
fn setup() -> WgpuSetup {
    let device_descriptor = Arc::new(|adapter: &wgpu::Adapter| {
        let matrices = matrix_features(adapter);
        wgpu::DeviceDescriptor {
            label: Some("egui's device"),
            required_features: wanted_features(adapter) | matrices,
            required_limits: wanted_limits(adapter),
            experimental_features: match matrices.is_empty() {
                true => wgpu::ExperimentalFeatures::disabled(),
                // The library's promise; see `matrix_features`.
                false => unsafe { wgpu::ExperimentalFeatures::enabled() },
            },
            ..Default::default()
        }
    });
    WgpuSetup::CreateNew(WgpuSetupCreateNew {
        device_descriptor,
        ..WgpuSetupCreateNew::without_display_handle()
    })
}

/// Small pictures that stay as the large one was, a part of the steps each.
const STRIP: usize = 8;
/// Frames whose times are drawn.
const FRAMES: usize = 120;

struct App {
    render: RenderState,
    session: Session,
    config: ModelConfig,
    kernels: String,
    request: Request,
    latent: bool,
    smooth: bool,
    picture: Target,
    strip: Vec<Target>,
    /// How many of the strip have been drawn.
    reached: usize,
    frame_ms: VecDeque<f32>,
    error: Option<String>,
}

impl App {
    fn new(made: &eframe::CreationContext<'_>, options: &Options) -> Result<App> {
        let missing = || Error::Config("egui does not draw with wgpu here".into());
        let render = made.wgpu_render_state.clone().ok_or_else(missing)?;
        made.egui_ctx.set_theme(egui::Theme::Dark);

        // All that the library is told of the program: its device and its queue.
        let gpu = Gpu::from_device(&render.device, &render.queue);
        let model = match &options.model {
            Some(path) => Model::choose(&gpu, path, &options.choice)?,
            None => Model::digits(&gpu)?,
        };
        let capabilities = gpu.capabilities();
        let session = SessionOptions {
            budget_ms: Some(options.budget_ms),
            dtype: Precision::Auto.on(capabilities).dtype(),
            ..SessionOptions::default()
        };
        let session = Session::new(&render.device, &render.queue, &model, session)?;

        let config = model.config.clone();
        let last = config.unet.num_classes.map(|classes| classes as u32 - 1);
        let class = match &options.class {
            Some(name) => Some(config.class(name)?),
            None => last.map(|last| last.min(7)),
        };
        let guidance = Guidance::from_weight(if config.can_guide() { options.weight } else { 0.0 })?;
        let steps = Some(options.steps.unwrap_or(config.sampling.steps));
        let request =
            Request { condition: class.into(), guidance, seed: options.seed, steps, ..Request::default() };
        let extent = config.unet.sample_size;
        let size = [extent.width() as u32, extent.height() as u32];
        let mut app = App {
            kernels: format!("{}, {} kernels", capabilities.name, capabilities.rung),
            latent: false,
            smooth: false,
            picture: Target::new(&render, size),
            strip: (0..STRIP).map(|_| Target::new(&render, size)).collect(),
            reached: 0,
            frame_ms: VecDeque::new(),
            error: None,
            render,
            session,
            config,
            request,
        };
        app.start();
        Ok(app)
    }

    /// Begins the picture anew, in place of the one under way.
    fn start(&mut self) {
        self.reached = 0;
        self.error = self.session.start(&self.request).err().map(|error| error.to_string());
    }

    fn under_way(&self) -> bool {
        let progress = self.session.progress();
        progress.steps > 0 && !progress.finished && self.error.is_none()
    }

    /// A frame's part of the work: a slice of a step, and the picture as it then stands. egui draws after this.
    fn record(&mut self) -> Result<()> {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("freeguide") };
        let mut encoder = self.render.device.create_command_encoder(&descriptor);
        let progress = self.session.step(&mut encoder)?;
        let show = if self.latent { Show::Latent } else { Show::Picture };
        let render = Render { show, smooth: self.smooth, ..Render::default() };
        self.session.render(&mut encoder, &self.picture.view, &render)?;
        while self.reached < STRIP * progress.step / progress.steps.max(1) {
            self.session.render(&mut encoder, &self.strip[self.reached].view, &render)?;
            self.reached += 1;
        }
        self.render.queue.submit([encoder.finish()]);
        Ok(())
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        if self.frame_ms.len() == FRAMES {
            self.frame_ms.pop_front();
        }
        self.frame_ms.push_back(ui.input(|input| input.unstable_dt) * 1e3);
        egui::Panel::right("controls").exact_size(300.0).show(ui, |ui| self.controls(ui));
        egui::CentralPanel::default().show(ui, |ui| self.pictures(ui));
        if let Err(error) = self.record() {
            self.error = Some(error.to_string());
        }
        if self.under_way() {
            ui.ctx().request_repaint();
        }
    }
}

// --- widgets ----------------------------------------------------------------------------------------------------

impl App {
    fn controls(&mut self, ui: &mut egui::Ui) {
        ui.add_space(8.0);
        ui.heading("freeguide");
        ui.label(RichText::new(&self.kernels).weak());
        ui.separator();

        let before = self.request.clone();
        self.classes(ui);
        if self.config.can_guide() {
            let mut weight = self.request.guidance.weight();
            ui.label("guidance weight w");
            ui.spacing_mut().slider_width = 210.0;
            if ui.add(egui::Slider::new(&mut weight, -1.0..=8.0).step_by(0.1)).changed() {
                self.request.guidance = Guidance::from_weight(weight).unwrap_or(self.request.guidance);
            }
        }
        ui.horizontal(|ui| {
            ui.label("seed");
            ui.add(egui::DragValue::new(&mut self.request.seed));
            if ui.button("next").clicked() {
                self.request.seed = self.request.seed.wrapping_add(1);
            }
            let most = self.session.options().max_steps;
            ui.label("steps");
            if let Some(steps) = &mut self.request.steps {
                ui.add(egui::DragValue::new(steps).range(1..=most));
            }
        });
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.latent, "the noisy latent z");
            ui.checkbox(&mut self.smooth, "smooth");
        });
        self.follow(&before);

        ui.separator();
        let progress = self.session.progress();
        let bar = egui::ProgressBar::new(progress.fraction);
        ui.add(bar.text(match progress.steps {
            0 => "cancelled".into(),
            steps => format!("step {} of {steps}", progress.step),
        }));
        ui.horizontal(|ui| {
            if ui.button("again").clicked() {
                self.start();
            }
            if ui.add_enabled(self.under_way(), egui::Button::new("cancel")).clicked() {
                self.session.cancel();
            }
        });
        ui.separator();
        self.frame_times(ui);
        if let Some(error) = &self.error {
            ui.separator();
            ui.colored_label(ui.visuals().error_fg_color, error);
        }
    }

    /// A button a class, and one for none.
    fn classes(&mut self, ui: &mut egui::Ui) {
        ui.label("class");
        let names = &self.config.class_names;
        let class = &mut self.request.condition.class;
        egui::ScrollArea::vertical().max_height(180.0).show(ui, |ui| {
            ui.horizontal_wrapped(|ui| {
                for (label, name) in (0..).zip(names) {
                    let name = if name.is_empty() { label.to_string() } else { name.clone() };
                    ui.selectable_value(class, Some(label), format!(" {name} "));
                }
                ui.selectable_value(class, None, " none ");
            });
        });
    }

    /// Hands what was changed to the session: into the picture under way where that can be, else to a new one.
    fn follow(&mut self, before: &Request) {
        if self.request == *before {
            return;
        }
        let anew = (before.seed, before.steps) != (self.request.seed, self.request.steps);
        if anew || !self.under_way() {
            return self.start();
        }
        let told = self.session.set_class(self.request.condition.class);
        let told = told.and_then(|()| self.session.set_guidance(self.request.guidance));
        self.error = told.err().map(|error| error.to_string());
    }

    fn frame_times(&mut self, ui: &mut egui::Ui) {
        let mut sorted: Vec<f32> = self.frame_ms.iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        let percentile = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        let budget = self.session.options().budget_ms.unwrap_or_default();
        ui.label(format!(
            "frame: median {:.1} ms, 95 % below {:.1} ms\nof which at most {budget} ms for the picture",
            percentile(50),
            percentile(95)
        ));
        let (rect, _) = ui.allocate_exact_size(Vec2::new(ui.available_width(), 60.0), Sense::hover());
        let most = percentile(100).max(34.0);
        let at = |frame: usize, ms: f32| {
            let x = frame as f32 / FRAMES as f32 * rect.width();
            Pos2::new(rect.left() + x, rect.bottom() - ms / most * rect.height())
        };
        let painter = ui.painter_at(rect);
        painter.rect_filled(rect, 2.0, Color32::from_gray(20));
        painter.hline(rect.x_range(), at(0, 1e3 / 60.0).y, Stroke::new(1.0, Color32::from_gray(70)));
        let line = self.frame_ms.iter().enumerate().map(|(frame, ms)| at(frame, *ms)).collect();
        painter.line(line, Stroke::new(1.5, Color32::from_rgb(110, 180, 255)));
    }

    /// The picture, as large as a whole number of the screen's pixels allows, above how it came to be.
    fn pictures(&mut self, ui: &mut egui::Ui) {
        const GAP: f32 = 8.0;
        let (area, scale) = (ui.available_rect_before_wrap(), ui.pixels_per_point());
        let extent = self.config.unet.sample_size;
        let pixels = Vec2::new(extent.width() as f32, extent.height() as f32);
        // Of the screen's pixels for one of the picture's.
        let whole = |width: f32| (width * scale / pixels.x).floor().max(1.0);
        let parts = STRIP as f32;
        let below = (area.height() - GAP) * parts / (parts + 1.0) * pixels.x / pixels.y;
        let times = whole(area.width().min(below));
        let size = pixels * times / scale;
        let small = pixels * whole((size.x - GAP * (parts - 1.0)) / parts) / scale;

        let large = [extent.width() as u32, extent.height() as u32].map(|pixels| pixels * times as u32);
        if self.picture.size != large {
            self.picture.resize(&self.render, large);
        }
        let left_top = Pos2::new(area.center().x - size.x / 2.0, area.top());
        self.picture.show(ui, left_top, size);
        for (number, target) in self.strip.iter().enumerate().take(self.reached) {
            let right = (size.x - small.x) * number as f32 / (parts - 1.0);
            target.show(ui, left_top + Vec2::new(right, size.y + GAP), small);
        }
    }
}

// --- textures ---------------------------------------------------------------------------------------------------

/// A texture that a session draws into and egui shows.
struct Target {
    view: wgpu::TextureView,
    id: TextureId,
    /// Width and height.
    size: [u32; 2],
}

impl Target {
    fn new(render: &RenderState, size: [u32; 2]) -> Target {
        let view = texture(render, size);
        let filter = wgpu::FilterMode::Nearest;
        let id = render.renderer.write().register_native_texture(&render.device, &view, filter);
        Target { view, id, size }
    }

    /// Another texture under the same name.
    fn resize(&mut self, render: &RenderState, size: [u32; 2]) {
        (self.view, self.size) = (texture(render, size), size);
        let (device, filter) = (&render.device, wgpu::FilterMode::Nearest);
        render.renderer.write().update_egui_texture_from_wgpu_texture(device, &self.view, filter, self.id);
    }

    /// Shows it with its corner on a corner of the screen's pixels: between them it would blur.
    fn show(&self, ui: &egui::Ui, left_top: Pos2, size: Vec2) {
        let left_top = left_top.round_to_pixels(ui.pixels_per_point());
        let whole = Rect::from_min_max(Pos2::ZERO, Pos2::new(1.0, 1.0));
        ui.painter().image(self.id, Rect::from_min_size(left_top, size), whole, Color32::WHITE);
    }
}

/// egui blends encoded values, so it takes textures that hold them as they are.
fn texture(render: &RenderState, [width, height]: [u32; 2]) -> wgpu::TextureView {
    let texture = render.device.create_texture(&wgpu::TextureDescriptor {
        label: Some("a picture"),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::TEXTURE_BINDING,
        view_formats: &[],
    });
    texture.create_view(&Default::default())
}
