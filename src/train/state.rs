//! The state of a training on the device, and its files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Dtype, SafetensorsFile, TensorBytes, generations, save_generation, write_checked_to};
use crate::model::{load_values, model_tensors};
use crate::nn::{Arena, Optimised, Parameters};
use crate::ops::{EmaWarmup, OptimizerState};
use crate::tensor::DType;

use super::importance::Importance;
use super::options::TrainOptions;

/// The stem of state files: `state-000000012800.safetensors`.
pub(super) const STEM: &str = "state";
/// The tensors of importance sampling.
const IMPORTANCE: [&str; 2] = ["importance/history", "importance/waiting"];

/// Parameters, gradients, moments and averages on the device, and how far the training is.
pub struct TrainState {
    /// What the steps change on the device.
    pub optimised: Optimised,
    /// The share of the initial weights that each average still holds, from 0 to 1.
    pub initial_shares: Vec<f64>,
    /// Steps that changed the averages: all but those that were skipped.
    pub good_steps: u64,
    /// Losses of each time, where times are drawn by them.
    pub importance: Option<Importance>,
    /// Images seen.
    pub images: u64,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(
        gpu: &Gpu,
        parameters: &Parameters,
        rates: usize,
        seed: u64,
        optimizer: &OptimizerState,
    ) -> Result<Self> {
        let state = Self::empty(gpu, parameters, rates, optimizer)?;
        state.optimised.begin_with(gpu, &parameters.initial_values(seed))?;
        Ok(state)
    }

    /// The optimiser's own state before the first step: f16 gradients begin with a scaled loss.
    pub(super) fn initial_optimizer(options: &TrainOptions) -> OptimizerState {
        OptimizerState::new(options.dtype() == DType::F16)
    }

    /// Zeros all over, as what a training of `options` would take is measured on.
    pub(super) fn without_values(gpu: &Gpu, parameters: &Parameters, options: &TrainOptions) -> Result<Self> {
        let optimizer = Self::initial_optimizer(options);
        Self::empty(gpu, parameters, options.ema_rates.len(), &optimizer)
    }

    /// Told of every step that changed the averages, in order.
    pub(super) fn step_taken(&mut self, rates: &[f64], warmup: EmaWarmup) {
        for (share, rate) in self.initial_shares.iter_mut().zip(rates) {
            *share *= warmup.rate_after(*rate, self.good_steps);
        }
        self.good_steps += 1;
    }

    fn empty(gpu: &Gpu, parameters: &Parameters, rates: usize, optimizer: &OptimizerState) -> Result<Self> {
        Ok(TrainState {
            optimised: Optimised::zeros(gpu, parameters, rates, optimizer)?,
            initial_shares: vec![1.0; rates],
            good_steps: optimizer.good_steps.into(),
            importance: None,
            images: 0,
        })
    }

    /// Goes on with the loss scale that another precision begins with.
    pub(super) fn rescale_loss(&self, gpu: &Gpu, first: &OptimizerState) -> Result<()> {
        let Optimised { state, loss_scale, .. } = &self.optimised;
        let bytes = size_of::<OptimizerState>() as u64;
        let mut now: OptimizerState = bytemuck::pod_read_unaligned(&gpu.read(state, 0..bytes)?);
        (now.loss_scale, now.log2_scale) = (first.loss_scale, first.log2_scale);
        gpu.write(state, 0, bytemuck::bytes_of(&now))?;
        gpu.write(loss_scale, 0, bytemuck::bytes_of(&first.loss_scale))
    }

    /// Forgets the gradients of a step that is given up half way.
    pub(super) fn clear_gradients(&self, gpu: &Gpu, parameters: &Parameters) -> Result<()> {
        let zeros: Vec<Vec<f32>> = parameters.specs().iter().map(|spec| vec![0.0; spec.len()]).collect();
        self.optimised.gradients.write(gpu, 0, &zeros)
    }

    /// Writes the state of `dir` after its images with its checksum, all or nothing. Older ones stay.
    pub fn save(&self, gpu: &Gpu, parameters: &Parameters, rates: &[f64], dir: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for (prefix, arena) in arenas(&self.optimised) {
            tensors.extend(model_tensors(parameters, &arena.read(gpu, parameters, 0)?, prefix));
        }
        for (copy, rate) in rates.iter().enumerate() {
            let values = self.optimised.averages.read(gpu, parameters, copy)?;
            tensors.extend(model_tensors(parameters, &values, &format!("ema-{rate}/")));
        }
        let state = &self.optimised.state;
        let optimizer = gpu.read(state, 0..state.bytes())?;
        tensors.push(("optimizer".into(), vec![optimizer.len() / 4], optimizer));
        if let Some(importance) = &self.importance {
            for (name, (shape, values)) in IMPORTANCE.iter().zip(importance.to_tensors()) {
                tensors.push(((*name).into(), shape, bytemuck::cast_slice(&values).to_vec()));
            }
        }
        let mut metadata = BTreeMap::from([("images".to_owned(), self.images.to_string())]);
        metadata.extend(
            rates
                .iter()
                .zip(&self.initial_shares)
                .map(|(rate, share)| (share_note(*rate), share.to_string())),
        );
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
            .collect();
        let path = dir.join(STEM);
        save_generation(dir, STEM, self.images, |writer| write_checked_to(writer, &path, &views, &metadata))?;
        Ok(())
    }

    /// The newest state of `dir`, and what should be said of it; `None` if there is none yet.
    ///
    /// # Errors
    /// When the newest file is damaged, if by a byte: its error, and the older generation that can be gone back to.
    pub fn load(
        gpu: &Gpu,
        parameters: &Parameters,
        rates: &[f64],
        dir: &Path,
    ) -> Result<Option<(Self, Option<String>)>> {
        let found = generations(dir, STEM)?;
        let Some((_, newest)) = found.first() else { return Ok(None) };
        let state = Self::read(gpu, parameters, rates, newest).map_err(|error| match found.get(1) {
            // The error names the damaged file already.
            Some((images, older)) => Error::Config(format!(
                "{error}. The state before it, {} ({images} images), is there: delete the damaged file to go on from \
                 that one",
                older.display()
            )),
            None => error,
        })?;
        Ok(Some(state))
    }

    fn read(
        gpu: &Gpu,
        parameters: &Parameters,
        rates: &[f64],
        path: &Path,
    ) -> Result<(Self, Option<String>)> {
        let file = SafetensorsFile::open(path)?;
        let note = match file.verify()? {
            true => None,
            false => Some(format!(
                "{} is of a version that wrote no checksums: whether it is whole cannot be told",
                path.display()
            )),
        };
        let images = file.metadata().get("images").and_then(|text| text.parse().ok());
        let images = images.ok_or_else(|| Error::format(path, "does not say how many images were seen"))?;
        let (shape, _, bytes) = file.tensor("optimizer").map(|(_, shape, bytes)| (shape, (), bytes))?;
        let expected = size_of::<OptimizerState>();
        if bytes.len() != expected.next_multiple_of(16) {
            let words = expected.next_multiple_of(16) / 4;
            return Err(Error::tensor(path, "optimizer", format!("is {shape:?}, expected [{words}]")));
        }
        let optimizer = bytemuck::pod_read_unaligned(&bytes[..expected]);
        let importance = read_importance(&file)?;
        let mut state = Self { images, importance, ..Self::empty(gpu, parameters, rates.len(), &optimizer)? };
        for (share, rate) in state.initial_shares.iter_mut().zip(rates) {
            let noted = file.metadata().get(&share_note(*rate)).and_then(|text| text.parse().ok());
            // States of older versions say nothing: their averages did not warm up.
            *share = noted.unwrap_or_else(|| EmaWarmup::None.initial_share(*rate, state.good_steps));
        }
        for (prefix, arena) in arenas(&state.optimised) {
            arena.write(gpu, 0, &load_values(&file, parameters, prefix)?)?;
        }
        for (copy, rate) in rates.iter().enumerate() {
            let values = load_values(&file, parameters, &format!("ema-{rate}/"))?;
            state.optimised.averages.write(gpu, copy, &values)?;
        }
        Ok((state, note))
    }
}

/// What files hold of the arenas beside the averages, each tensor's name behind this.
fn arenas(optimised: &Optimised) -> [(&'static str, &Arena); 3] {
    [
        ("param/", &optimised.parameters),
        ("first_moment/", &optimised.first_moment),
        ("second_moment/", &optimised.second_moment),
    ]
}

/// Where a state notes what its average of a rate holds of the initial weights.
fn share_note(rate: f64) -> String {
    format!("ema-{rate}/initial_share")
}

/// What importance sampling remembered, where the state has it.
fn read_importance(file: &SafetensorsFile) -> Result<Option<Importance>> {
    let [history, waiting] = IMPORTANCE;
    if !file.names().iter().any(|name| name == history) {
        return Ok(None);
    }
    let (shape, rows) = file.to_f32(history)?;
    let (_, waiting) = file.to_f32(waiting)?;
    let steps_total = shape.first().copied().unwrap_or(0);
    Importance::from_tensors(steps_total, &rows, &waiting)
        .map(Some)
        .map_err(|error| Error::tensor(file.path(), history, error.to_string()))
}
