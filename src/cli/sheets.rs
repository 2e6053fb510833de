//! Sheets of samples over classes and guidance weights, as several commands draw them.

use crate::data::Image;
use crate::diffusion::Guidance;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::ModelConfig;
use crate::nn::{UNet, Weights};
use crate::sample::{Request, Sampler, SamplerOptions};
use crate::tensor::Precision;

use super::notes::{Notes, note, of_sampling, weights};
use super::pictures;
use super::sample::default_batch;

/// Makes sheets of one row a class and one column a guidance: the same seeds across a row, other ones in each row.
pub struct Sheets<'a> {
    config: &'a ModelConfig,
    single: Sampler,
    /// For one evaluation a step more, of a model that can guide itself.
    guided: Option<Sampler>,
    /// The checksum of the weaker model that guiders name.
    weaker: Option<u32>,
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
            Sampler::new(gpu, unet, weights, &config.process()?, options)
        };
        let guided = config.can_guide().then(|| sampler(true)).transpose()?;
        Ok(Sheets::of(config, (sampler(false)?, None), guided))
    }

    /// The same with a way of drawing for each of one and two evaluations a step.
    pub fn of(
        config: &'a ModelConfig,
        (single, weaker): (Sampler, Option<u32>),
        guided: Option<Sampler>,
    ) -> Self {
        Sheets { config, single, guided, weaker }
    }

    fn sampler(&self, guidance: Guidance) -> &Sampler {
        // Without one of two evaluations the other says why not.
        self.guided.as_ref().filter(|_| Sampler::needs_both(guidance)).unwrap_or(&self.single)
    }

    /// The rows: the classes, or the one that there is without any.
    fn rows(&self) -> Vec<Option<u32>> {
        match self.config.class_names.len() as u32 {
            0 => vec![None],
            classes => (0..classes).map(Some).collect(),
        }
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
        notes.extend(self.weaker.map(|checksum| note("guider_weights", weights(checksum))));
        Ok(notes)
    }

    /// Steps that a sheet takes.
    pub fn steps(&self, guidance: &[Guidance], seeds: usize) -> u64 {
        let pictures = self.rows().len() * seeds;
        let of = |sampler: &Sampler| pictures.div_ceil(sampler.options().batch) * sampler.moves();
        guidance.iter().map(|guidance| of(self.sampler(*guidance)) as u64).sum()
    }

    /// The pictures of each class (outer), guidance (middle) and seed (inner).
    pub fn pictures(
        &self,
        guidance: &[Guidance],
        seeds: u64,
        mut on_step: impl FnMut(Guidance) -> Result<()>,
    ) -> Result<Vec<Vec<Vec<Image>>>> {
        let classes = self.rows();
        let mut rows: Vec<Vec<Vec<Image>>> = vec![Vec::new(); classes.len()];
        let requests: Vec<Request> = classes
            .into_iter()
            .flat_map(|class| {
                let first = u64::from(class.unwrap_or(0)) * seeds;
                (first..first + seeds).map(move |seed| Request::new(class, seed))
            })
            .collect();
        for guidance in guidance {
            let images = self.sampler(*guidance).sample(&requests, *guidance, || on_step(*guidance))?;
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
