//! The training flow on one page.

mod models;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::{Dataset, LeftOut, Loader, LoaderOptions, Prefetch};
use crate::diffusion::TimeSampler;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{FolderLock, prune_generations};
use crate::nn::{Classifier, Parameters, UNet, Weights};
use crate::shape::Shape;
use crate::sizes;

use super::distill::Teacher;
use super::folder::{self, Found};
use super::importance::{Importance, LAG};
use super::log::{Log, LogEvent, StepRecord};
use super::options::TrainOptions;
use super::start::Start;
use super::state::{STEM, TrainState};
use super::step::{PendingStep, TrainStep};
use super::trained::Trained;

/// Batches decoded ahead.
const AHEAD: usize = 4;
/// Steps that take longer are not submitted ahead: a stop would have to wait for all of them.
const SLOW: Duration = Duration::from_millis(500);

/// What happens during a training, as it happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step's numbers have arrived.
    Step(&'a StepRecord),
    /// A state was saved after this many images.
    Saved(u64),
    /// It is time for sample pictures.
    Samples(u64),
    /// Something went wrong that the training gets over.
    Warning(&'a str),
}

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All images were seen and the model was written.
    Finished,
    /// The caller asked to stop; the state was saved, unless it was that before the first step.
    Stopped,
}

/// What is trained, owned.
enum Network {
    UNet(UNet),
    Classifier(Classifier),
    Student(UNet, Box<Teacher>),
}

impl Network {
    fn trained(&self) -> Trained<'_> {
        match self {
            Network::UNet(unet) => Trained::Denoiser(unet),
            Network::Classifier(classifier) => Trained::Classifier(classifier),
            Network::Student(unet, teacher) => Trained::Student(unet, teacher.model()),
        }
    }
}

/// Refuses a training that has no room, on the device or for its batches here, before anything of it is allocated.
fn check_room(gpu: &Gpu, network: Trained<'_>, options: &TrainOptions, dataset: &Dataset) -> Result<()> {
    let cost = TrainStep::cost(gpu, network, options)?;
    gpu.check_room("this training", cost.bytes())?;
    // Those decoded ahead, the one being decoded and the one under way.
    let one = Shape { channels: dataset.channels, extent: options.unet.sample_size };
    let factors = [AHEAD + 2, options.batch, one.extent.height(), one.extent.width(), one.channels];
    let batches = sizes::bytes("the pictures decoded ahead", &factors, 1)?;
    sizes::check_host("pictures decoded ahead", batches, "a smaller batch or smaller pictures take less")
}

/// A training in a folder.
pub struct Trainer {
    gpu: Gpu,
    network: Network,
    options: TrainOptions,
    dir: PathBuf,
    loader: Arc<Loader>,
    state: TrainState,
    log: Log,
    /// The images of the newest state on the disk.
    saved: Option<u64>,
    found: Found,
    /// Nobody else writes in the folder for as long as this lives.
    _lock: FolderLock,
}

impl Trainer {
    /// Begins or resumes the training of `options` in `dir`, which is locked for as long as the trainer lives.
    ///
    /// # Errors
    /// [`Error::Config`] when another process writes in `dir`, when it was begun with other options, or when it holds a model
    /// or a log that would be lost; whatever is wrong with its files.
    pub fn open(gpu: &Gpu, dataset: Arc<Dataset>, options: &TrainOptions, dir: &Path) -> Result<Trainer> {
        Self::open_as(gpu, dataset, options, dir, &Start::default())
    }

    /// The same, and what may be done with what `dir` holds already.
    ///
    /// # Errors
    /// As [`Trainer::open`]; [`Error::Config`] for weights of another network.
    pub fn open_as(
        gpu: &Gpu,
        dataset: Arc<Dataset>,
        options: &TrainOptions,
        dir: &Path,
        start: &Start,
    ) -> Result<Trainer> {
        if options.distillation.is_some() {
            return Err(Error::Config("a distillation needs its teacher".into()));
        }
        Self::open_with(gpu, dataset, options, None, dir, start)
    }

    /// Begins or resumes the distillation of `options` in `dir`, which [`Teacher::teach`] of the same teacher has made.
    ///
    /// # Errors
    /// As [`Trainer::open`]; [`Error::Config`] for options of another teacher.
    pub fn distill(
        gpu: &Gpu,
        dataset: Arc<Dataset>,
        options: &TrainOptions,
        teacher: Teacher,
        dir: &Path,
    ) -> Result<Trainer> {
        Self::distill_as(gpu, dataset, options, teacher, dir, &Start::default())
    }

    /// The same, and what may be done with what `dir` holds already.
    ///
    /// # Errors
    /// As [`Trainer::distill`]; [`Error::Config`] for weights to begin with: they are the teacher's.
    pub fn distill_as(
        gpu: &Gpu,
        dataset: Arc<Dataset>,
        options: &TrainOptions,
        teacher: Teacher,
        dir: &Path,
        start: &Start,
    ) -> Result<Trainer> {
        if options.distillation.as_ref().is_none_or(|known| known.teacher != teacher.fingerprint()) {
            return Err(Error::Config("these options are not those of this teacher's student".into()));
        }
        if start.init_from.is_some() {
            return Err(Error::Config("init-from: a student begins with the weights of its teacher".into()));
        }
        Self::open_with(gpu, dataset, options, Some(teacher), dir, start)
    }

    fn open_with(
        gpu: &Gpu,
        dataset: Arc<Dataset>,
        options: &TrainOptions,
        teacher: Option<Teacher>,
        dir: &Path,
        start: &Start,
    ) -> Result<Trainer> {
        // What can be refused is refused before anything is written.
        let init_from = start.init_from.as_ref().map(|weights| weights.fingerprint().to_owned());
        let init_rows =
            start.init_from.as_ref().and_then(|weights| weights.trained_rows(&options.class_names));
        let options = TrainOptions { init_from, init_rows, ..options.clone() };
        options.check()?;
        if dataset.attributes() != options.attributes
            || dataset.vectors_fingerprint() != options.attribute_values
        {
            return Err(Error::Config(
                "the attributes that the data set was opened with are not those of the options (`attributes`)".into(),
            ));
        }
        options.precision.checked_on(gpu.capabilities())?;
        let network = match teacher {
            Some(teacher) => Network::Student(UNet::new(&options.unet)?, Box::new(teacher)),
            None if options.objective.is_classifier() => Network::Classifier(Classifier::new(&options.unet)?),
            None => Network::UNet(UNet::new(&options.unet)?),
        };
        let (parameters, rates) = (network.trained().parameters(), options.ema_rates.clone());
        let weights = start.init_from.as_ref().map(|weights| weights.values(&options.unet, parameters));
        let weights = weights.transpose()?;
        let settled = options.clone().settle_precision(gpu.capabilities(), dir)?;
        check_room(gpu, network.trained(), &settled, &dataset)?;

        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let lock = FolderLock::take(dir, folder::LOCK)?;
        let mut found = Found::default();
        found.warnings.extend(lock.note().map(str::to_owned));

        if !start.restart {
            folder::check(dir)?;
        } else if let Some(aside) = folder::move_aside(dir)? {
            found.notes.push(format!("the training that was here is in {} now", aside.display()));
        }
        folder::clean(dir)?;
        let options = options.settle_precision(gpu.capabilities(), dir)?;
        let settled = options.settle(dir, &start.accept_changes)?;
        let first = TrainStep::initial_optimizer_state(&options);
        let loaded = TrainState::load(gpu, parameters, &rates, dir)?;
        let saved = loaded.as_ref().map(|(state, _)| state.images);
        let mut state = match loaded {
            Some((state, note)) => {
                found.notes.extend(note);
                if settled.changes("precision") {
                    state.rescale_loss(gpu, &first)?;
                }
                state
            }
            None => {
                let state = TrainState::new(gpu, parameters, rates.len(), options.seed, &first)?;
                let weights = match &network {
                    Network::Student(_, teacher) => Some(teacher.starting_values(parameters, options.seed)?),
                    _ => weights,
                };
                if let Some(weights) = weights {
                    state.optimised.begin_with(gpu, &weights)?;
                }
                state
            }
        };
        if options.objective.t_sampler == TimeSampler::Importance && state.importance.is_none() {
            state.importance = Some(Importance::new(options.objective.steps_total)?);
        }
        let options = settled.write(dir, state.images)?;
        let log = folder::open_log(dir, &options, state.images, &mut found)?;
        let loader = Arc::new(Loader::new(
            dataset,
            LoaderOptions {
                image_size: options.unet.sample_size,
                crop: options.crop(),
                flip: options.flip,
                seed: options.seed,
            },
        ));
        let (gpu, dir) = (gpu.clone(), dir.to_owned());
        let mut trainer =
            Trainer { gpu, network, options, dir, loader, state, log, saved, found, _lock: lock };
        // A run that was killed may have had no time for it.
        let warning = trainer.prune();
        trainer.found.warnings.extend(warning);
        Ok(trainer)
    }

    /// Images seen so far.
    pub fn images(&self) -> u64 {
        self.state.images
    }

    /// Images in all: the options' number, rounded up to whole batches.
    pub fn total_images(&self) -> u64 {
        self.options.images.next_multiple_of(self.options.batch as u64)
    }

    /// The options, the precision settled.
    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// The network, where it is not a classifier.
    pub fn unet(&self) -> Option<&UNet> {
        match &self.network {
            Network::UNet(unet) | Network::Student(unet, _) => Some(unet),
            Network::Classifier(_) => None,
        }
    }

    /// The network's parameters.
    pub fn parameters(&self) -> &Parameters {
        self.network.trained().parameters()
    }

    /// The pictures, which know by now which of them are damaged.
    pub fn dataset(&self) -> &Dataset {
        self.loader.dataset()
    }

    /// The weights of the first average, as they are now.
    pub fn average(&self) -> Weights {
        self.state.optimised.averages.weights(self.parameters(), 0)
    }

    /// What the user should know of what was found in the folder.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Every step's numbers so far.
    pub fn records(&self) -> &[StepRecord] {
        self.log.records()
    }

    /// Trains until all images are seen or `stop` says so, which is asked after every step and between its microbatches;
    /// saves; and, at the end, writes the model. A step that is stopped half way leaves no trace.
    pub fn run(
        &mut self,
        mut stop: impl FnMut() -> bool,
        mut report: impl FnMut(&Trainer, Event<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        let total = self.total_images();
        let batch_size = self.options.batch as u64;
        let mut told = false;
        let mut stop = move || {
            told = told || stop();
            told
        };

        if self.state.images < total {
            // Record one training step.
            let step = TrainStep::record(&self.gpu, self.network.trained(), &self.options, &self.state)?;
            let mut batches =
                Prefetch::new(self.loader.clone(), self.state.images, self.options.batch, AHEAD);
            let mut pending: VecDeque<PendingStep> = VecDeque::new();
            // Nothing is known of the first step but that it may be slow.
            let mut slow = true;

            // Run it.
            while self.state.images < total {
                let batch = batches.next()?;
                let (begun, before) = (Instant::now(), self.state.images);
                let importance = self.state.importance.clone();
                match step.run_until(&batch, self.state.importance.as_mut(), &mut stop)? {
                    Some(step) => {
                        pending.push_back(step);
                        self.state.images += batch_size;
                        self.leave_out(&batch.left_out, &mut report)?;
                    }
                    None => {
                        self.state.importance = importance;
                        self.state.clear_gradients(&self.gpu, self.parameters())?;
                    }
                }

                let due = self.state.images >= total || self.due(before, self.options.save_every);
                let samples = self.due(before, self.options.sample_every);
                let keep = if due || samples || slow { 0 } else { LAG };
                self.take_in(&mut pending, keep, &mut report)?;
                slow = begun.elapsed() > SLOW;
                // Asked after the waiting, where nearly all of the time goes.
                let stopping = stop();
                if stopping {
                    self.take_in(&mut pending, 0, &mut report)?;
                }
                let new = self.state.images > 0 && self.saved != Some(self.state.images);
                if (due || stopping) && new {
                    let warning = self.save()?;
                    report(self, Event::Saved(self.state.images))?;
                    if let Some(warning) = warning {
                        report(self, Event::Warning(&warning))?;
                    }
                }
                if samples {
                    report(self, Event::Samples(self.state.images))?;
                }
                if stopping && self.state.images < total {
                    return Ok(Outcome::Stopped);
                }
            }
        }
        // A run killed between its last state and its models finds nothing left to train, but models to write.
        self.write_models()?;
        Ok(Outcome::Finished)
    }

    /// Tells of damaged pictures, in whose places others stand: each once in the log, and when it is new there.
    fn leave_out(
        &mut self,
        files: &[LeftOut],
        report: &mut impl FnMut(&Trainer, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        for LeftOut { name, reason, .. } in files {
            let details = [("file", name.as_str().into()), ("reason", reason.as_str().into())];
            let event = LogEvent::new("left_out", self.state.images, details);
            if !self.log.tells_of(&event) {
                self.log.push_event(event)?;
                report(self, Event::Warning(&format!("{name} is left out of the training: {reason}")))?;
            }
        }
        Ok(())
    }

    /// Waits for the numbers of all but the last `keep` steps.
    fn take_in(
        &mut self,
        pending: &mut VecDeque<PendingStep>,
        keep: usize,
        report: &mut impl FnMut(&Trainer, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        while pending.len() > keep {
            let arrived = pending.pop_front().expect("longer than `keep`");
            let (record, losses) = arrived.wait_for_losses()?;
            if !record.skipped {
                self.state.step_taken(&self.options.ema_rates, self.options.ema_warmup);
            }
            if let Some(importance) = &mut self.state.importance {
                importance.learn(record.images - self.options.batch as u64, losses);
            }
            self.log.push(record)?;
            report(self, Event::Step(&record))?;
        }
        Ok(())
    }

    /// Whether a multiple of `every` lies in (before, now].
    fn due(&self, before: u64, every: u64) -> bool {
        every > 0 && self.state.images / every > before / every
    }

    /// The log before the state that it belongs to, and the state before the models, which can be made again from it. Returns
    /// what went wrong after the state was safe.
    fn save(&mut self) -> Result<Option<String>> {
        self.log.sync()?;
        self.state.save(&self.gpu, self.parameters(), &self.options.ema_rates, &self.dir)?;
        self.saved = Some(self.state.images);
        let warning = self.prune();
        self.write_models()?;
        Ok(warning)
    }

    /// Removes all states but two; a warning where that fails.
    fn prune(&self) -> Option<String> {
        let (batch, every) = (self.options.batch as u64, self.options.save_every);
        let is_due = |images: u64| every > 0 && images / every > images.saturating_sub(batch) / every;
        let failed = prune_generations(&self.dir, STEM, self.state.images, is_due).err();
        failed
            .map(|error| format!("an old state could not be removed, which harms nothing but room: {error}"))
    }
}
