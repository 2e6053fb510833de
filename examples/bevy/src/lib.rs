//! freeguide in bevy: a plugin that forms a picture on bevy's own device, in bevy's own frames, in an [`Image`] like any
//! other: on a sprite, in a material, wherever images go.
//!
//! A [`Picture`] in the main world says what is wanted, and is copied to the render world every frame. There a system in
//! the render graph, before the cameras', records a slice of a denoising step into bevy's command encoder and draws the
//! picture as it then stands.

use bevy::core_pipeline::schedule::camera_driver;
use bevy::prelude::*;
use bevy::render::extract_resource::{ExtractResource, ExtractResourcePlugin};
use bevy::render::render_asset::RenderAssets;
use bevy::render::renderer::{RenderContext, RenderDevice, RenderGraph, RenderQueue};
use bevy::render::texture::GpuImage;
use bevy::render::{RenderApp, RenderStartup};
use freeguide::diffusion::Guidance;
use freeguide::gpu::Gpu;
use freeguide::model::Model;
use freeguide::session::{Request, Session, SessionOptions};

/// What the game wants to see. Class and weight may change while the picture forms, from the next step on; another seed
/// begins another picture.
#[derive(Resource, Clone, ExtractResource)]
#[extract_app(RenderApp)]
pub struct Picture {
    /// Drawn into: made with [`Image::new_target_texture`], of any size.
    pub image: Handle<Image>,
    pub class: Option<u32>,
    /// The guidance weight w: 0 is plain conditional.
    pub weight: f64,
    pub seed: u64,
}

/// Samples the embedded digits for the app's [`Picture`].
pub struct FreeguidePlugin {
    /// GPU time of a frame that may go into the picture.
    pub budget_ms: f64,
}

impl Plugin for FreeguidePlugin {
    fn build(&self, app: &mut App) {
        app.add_plugins(ExtractResourcePlugin::<Picture>::default());
        let Some(render_app) = app.get_sub_app_mut(RenderApp) else { return };
        render_app
            .insert_resource(Budget(self.budget_ms))
            .add_systems(RenderStartup, open)
            .add_systems(RenderGraph, sample.before(camera_driver));
    }
}

#[derive(Resource)]
struct Budget(f64);

/// The session, and what it was last asked for.
#[derive(Resource)]
struct Sampling {
    session: Session,
    asked: Option<Request>,
}

/// Runs whenever bevy has a new device, after a loss too.
fn open(mut commands: Commands, device: Res<RenderDevice>, queue: Res<RenderQueue>, budget: Res<Budget>) {
    let (device, queue) = (device.wgpu_device(), &**queue);
    let options = SessionOptions { budget_ms: Some(budget.0), ..SessionOptions::default() };
    let session = Model::digits(&Gpu::from_device(device, queue))
        .and_then(|model| Session::new(device, queue, &model, options));
    match session {
        Ok(session) => commands.insert_resource(Sampling { session, asked: None }),
        Err(error) => error!("no pictures: {error}"),
    }
}

/// A frame's part of the work.
fn sample(
    mut context: RenderContext,
    picture: Option<Res<Picture>>,
    sampling: Option<ResMut<Sampling>>,
    images: Res<RenderAssets<GpuImage>>,
) {
    let (Some(picture), Some(mut sampling)) = (picture, sampling) else { return };
    // The image's texture may come a frame later than the wish.
    let Some(target) = images.get(&picture.image) else { return };
    let drawn = sampling.follow(&picture).and_then(|()| {
        let encoder = context.command_encoder();
        sampling.session.step(encoder)?;
        sampling.session.render_to(encoder, &target.texture_view)
    });
    if let Err(error) = drawn {
        error_once!("the picture stands still: {error}");
    }
}

impl Sampling {
    /// Hands what has changed to the session: into the picture under way where that can be, else to a new one.
    fn follow(&mut self, picture: &Picture) -> freeguide::Result<()> {
        let guidance = Guidance::from_weight(picture.weight)?;
        let wanted = Request { condition: picture.class.into(), guidance, seed: picture.seed, ..Request::default() };
        if self.asked.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let same_seed = self.asked.as_ref().is_some_and(|asked| asked.seed == wanted.seed);
        if same_seed && !self.session.progress().finished {
            self.session.set_class(wanted.condition.class)?;
            self.session.set_guidance(wanted.guidance)?;
        } else {
            self.session.start(&wanted)?;
        }
        self.asked = Some(wanted);
        Ok(())
    }
}
