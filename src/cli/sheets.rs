//! Sheets of samples over classes and guidance weights, as several commands draw them.

use crate::data::Image;
use crate::diffusion::Guidance;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::ModelConfig;
use crate::nn::{UNet, Weights};
use crate::sample::{Request, Sampler, SamplerOptions};
use crate::tensor::Precision;

use super::guider::Drawer;
use super::notes::{Notes, note, of_sampling, weights};
use super::pictures;
use super::sample::default_batch;

/// Makes sheets of one row a class and one column a guidance: the same seeds across a row, other ones in each row.
pub struct Sheets<'a> {
    config: &'a ModelConfig,
    single: Drawer,
    /// For one evaluation a step more, of a model that can guide itself.
    guided: Option<Drawer>,
}

impl<'a> Sheets<'a> {
    pub fn new(
        gpu: &Gpu,
        unet: &UNet,
        weights: &Weights,
        config: &'a ModelConfig,
        precision: Precision,
    ) -> Result<Self> {
        let dtype = precision.checked_on(gpu.capabilities())?.dtype();
        let sampler = |guided: bool| {
            let options = SamplerOptions { guided, dtype, ..SamplerOptions::of(config, default_batch(gpu))? };
            Sampler::new(gpu, unet, weights, &config.process()?, options).map(Drawer::Plain)
        };
        let guided = config.can_guide().then(|| sampler(true)).transpose()?;
        Ok(Sheets::of(config, sampler(false)?, guided))
    }

    /// The same with a way of drawing for each of one and two evaluations a step.
    pub fn of(config: &'a ModelConfig, single: Drawer, guided: Option<Drawer>) -> Self {
        Sheets { config, single, guided }
    }

    fn drawer(&self, guidance: Guidance) -> &Drawer {
        // Without one of two evaluations the other says why not.
        self.guided.as_ref().filter(|_| Sampler::needs_both(guidance)).unwrap_or(&self.single)
    }

    /// How the pictures of a sheet are drawn: notes for its file.
    pub fn notes(&self, guidance: &[Guidance], seeds: u64) -> Result<Notes> {
        let listed: Vec<String> = guidance.iter().map(|guidance| guidance.weight().to_string()).collect();
        let mut notes = vec![
            note("guidance_weights", listed.join(",")),
            note("count", seeds),
            note("seeds", format!("{seeds} of each class, from {seeds} times its number on")),
        ];
        notes.extend(of_sampling(self.single.options(), &self.config.process()?));
        let guided = || self.guided.as_ref().and_then(Drawer::guiders);
        if let Some((guiders, weaker)) = self.single.guiders().or_else(guided) {
            notes.push(note("guider", guiders));
            notes.extend(weaker.map(|checksum| note("guider_weights", weights(checksum))));
        }
        Ok(notes)
    }

    /// Steps that a sheet takes.
    pub fn steps(&self, guidance: &[Guidance], seeds: usize) -> u64 {
        let pictures = self.config.class_names.len() * seeds;
        let of = |drawer: &Drawer| pictures.div_ceil(drawer.options().batch) * drawer.moves();
        guidance.iter().map(|guidance| of(self.drawer(*guidance)) as u64).sum()
    }

    /// The pictures of each class (outer), guidance (middle) and seed (inner).
    pub fn pictures(
        &self,
        guidance: &[Guidance],
        seeds: u64,
        mut on_step: impl FnMut(Guidance) -> Result<()>,
    ) -> Result<Vec<Vec<Vec<Image>>>> {
        let classes = self.config.class_names.len() as u32;
        let mut rows: Vec<Vec<Vec<Image>>> = vec![Vec::new(); classes as usize];
        let requests: Vec<Request> = (0..classes)
            .flat_map(|class| {
                let first = u64::from(class) * seeds;
                (first..first + seeds).map(move |seed| Request { class: Some(class), seed })
            })
            .collect();
        for guidance in guidance {
            let images = self.drawer(*guidance).sample(&requests, *guidance, || on_step(*guidance))?;
            for (row, cell) in rows.iter_mut().zip(images.chunks(seeds as usize)) {
                row.push(cell.to_vec());
            }
        }
        Ok(rows)
    }

    /// The same as a labelled sheet.
    pub fn guided_sheet(
        &self,
        guidance: &[Guidance],
        seeds: u64,
        on_step: impl FnMut(Guidance) -> Result<()>,
    ) -> Result<Image> {
        let rows = self.pictures(guidance, seeds, on_step)?;
        let columns: Vec<String> = guidance.iter().map(|g| format!("w = {}", g.weight())).collect();
        pictures::sheet(&rows, &self.config.class_names, &columns)
    }
}
