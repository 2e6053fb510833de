//! The training flow on one page.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::{Dataset, Loader, LoaderOptions, Prefetch};
use crate::diffusion::TimeSampler;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Series, loss_plot};
use crate::model::{ModelConfig, SchedulerConfig, write_model};
use crate::nn::{Classifier, Parameters, UNet, Weights};
use crate::sizes;

use super::distill::Teacher;
use super::importance::{Importance, LAG};
use super::log::{Log, StepRecord};
use super::objective::LossKind;
use super::options::TrainOptions;
use super::state::TrainState;
use super::step::{PendingStep, TrainStep};
use super::trained::Trained;

/// Batches decoded ahead.
const AHEAD: usize = 4;

/// What happens during a training, as it happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step's numbers have arrived.
    Step(&'a StepRecord),
    /// A state was saved after this many images.
    Saved(u64),
    /// It is time for sample pictures.
    Samples(u64),
}

/// How a call of [`Trainer::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All images were seen and the model was written.
    Finished,
    /// The caller asked to stop; the state was saved.
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
            Network::UNet(unet) => Trained::UNet(unet),
            Network::Classifier(classifier) => Trained::Classifier(classifier),
            Network::Student(unet, teacher) => Trained::Student(unet, teacher.model()),
        }
    }
}

/// Refuses a training that has no room, on the device or for its batches here, before anything of it is allocated.
fn check_room(gpu: &Gpu, network: Trained<'_>, options: &TrainOptions, dataset: &Dataset) -> Result<()> {
    let cost = TrainStep::cost(gpu, network, options)?;
    gpu.check_room("this training", cost.bytes())?;
    let side = options.unet.sample_size;
    // Those decoded ahead, the one being decoded and the one under way.
    let factors = [AHEAD + 2, options.batch, side, side, dataset.channels];
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
}

impl Trainer {
    /// Begins or resumes the training of `options` in `dir`.
    ///
    /// # Errors
    /// [`Error::Config`] when `dir` was begun with other options; whatever is wrong with its files.
    pub fn open(gpu: &Gpu, dataset: Arc<Dataset>, options: &TrainOptions, dir: &Path) -> Result<Trainer> {
        if options.distillation.is_some() {
            return Err(Error::Config("a distillation needs its teacher".into()));
        }
        Self::open_with(gpu, dataset, options, None, dir)
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
        if options.distillation.as_ref().is_none_or(|known| known.teacher != teacher.fingerprint()) {
            return Err(Error::Config("these options are not those of this teacher's student".into()));
        }
        Self::open_with(gpu, dataset, options, Some(teacher), dir)
    }

    fn open_with(
        gpu: &Gpu,
        dataset: Arc<Dataset>,
        options: &TrainOptions,
        teacher: Option<Teacher>,
        dir: &Path,
    ) -> Result<Trainer> {
        let options = &options.clone().settle_precision(gpu.capabilities(), dir)?;
        options.check()?;
        let network = match teacher {
            Some(teacher) => Network::Student(UNet::new(&options.unet)?, Box::new(teacher)),
            None if options.objective.is_classifier() => Network::Classifier(Classifier::new(&options.unet)?),
            None => Network::UNet(UNet::new(&options.unet)?),
        };
        // Nothing is written of what is refused.
        check_room(gpu, network.trained(), options, &dataset)?;
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        options.settle(dir)?;
        let (parameters, rates) = (network.trained().parameters(), &options.ema_rates);
        let first = TrainStep::initial_optimizer_state(options);
        let mut state = match TrainState::load(gpu, parameters, rates, dir)? {
            Some(state) => state,
            None => {
                let state = TrainState::new(gpu, parameters, rates.len(), options.seed, &first)?;
                if let Network::Student(_, teacher) = &network {
                    state.begin_with(
                        gpu,
                        &teacher.starting_values(parameters, options.seed)?,
                        rates.len(),
                    )?;
                }
                state
            }
        };
        if options.objective.t_sampler == TimeSampler::Importance && state.importance.is_none() {
            state.importance = Some(Importance::new(options.objective.steps_total)?);
        }
        let log = Log::open(dir, state.images)?;
        let loader = Arc::new(Loader::new(
            dataset,
            LoaderOptions {
                image_size: options.unet.sample_size,
                crop: options.crop(),
                flip: options.flip,
                seed: options.seed,
            },
        ));
        let (gpu, options, dir) = (gpu.clone(), options.clone(), dir.to_owned());
        Ok(Trainer { gpu, network, options, dir, loader, state, log })
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

    /// The weights of the first average, as they are now.
    pub fn average(&self) -> Weights {
        self.state.averages.weights(self.parameters(), 0)
    }

    /// Every step's numbers so far.
    pub fn records(&self) -> &[StepRecord] {
        self.log.records()
    }

    /// Trains until all images are seen or `stop` says so, which is asked after every step; saves; and, at the end,
    /// writes the model.
    pub fn run(
        &mut self,
        mut stop: impl FnMut() -> bool,
        mut report: impl FnMut(&Trainer, Event<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        let total = self.total_images();
        let batch_size = self.options.batch as u64;

        if self.state.images < total {
            // Record one training step.
            let step = TrainStep::record(&self.gpu, self.network.trained(), &self.options, &self.state)?;
            let mut batches =
                Prefetch::new(self.loader.clone(), self.state.images, self.options.batch, AHEAD);
            let mut pending: VecDeque<PendingStep> = VecDeque::new();

            // Run it.
            while self.state.images < total {
                let batch = batches.next()?;
                pending.push_back(step.run_with(&batch, self.state.importance.as_mut())?);
                let before = self.state.images;
                self.state.images += batch_size;

                let stopping = stop();
                let save =
                    stopping || self.state.images >= total || self.due(before, self.options.save_every);
                let samples = self.due(before, self.options.sample_every);
                let keep = if save || samples { 0 } else { LAG };
                while pending.len() > keep {
                    let arrived = pending.pop_front().expect("longer than `keep`");
                    let (record, losses) = arrived.wait_for_losses()?;
                    if let Some(importance) = &mut self.state.importance {
                        importance.learn(record.images - batch_size, losses);
                    }
                    self.log.push(record)?;
                    report(self, Event::Step(&record))?;
                }
                if save {
                    self.save()?;
                    report(self, Event::Saved(self.state.images))?;
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

    /// Whether a multiple of `every` lies in (before, now].
    fn due(&self, before: u64, every: u64) -> bool {
        every > 0 && self.state.images / every > before / every
    }

    /// The state first: it is what a resumed run needs. The models beside it can be made again from it.
    fn save(&mut self) -> Result<()> {
        self.log.flush()?;
        self.state.save(&self.gpu, self.parameters(), &self.options.ema_rates, &self.dir)?;
        self.write_models()
    }

    /// The configuration that goes beside weights averaged at `rate`.
    pub fn config(&self, rate: f64) -> ModelConfig {
        let options = &self.options;
        ModelConfig {
            class_name: match self.network {
                Network::UNet(_) | Network::Student(..) => "FreeguideUNet".into(),
                Network::Classifier(_) => "FreeguideClassifier".into(),
            },
            unet: options.unet.clone(),
            scheduler: match &self.network {
                // What a file says of its variances cannot all be told by options.
                Network::Student(_, teacher) => SchedulerConfig {
                    prediction_type: options.objective.prediction.config_name().into(),
                    ..teacher.model().config.scheduler.clone()
                },
                _ => options.objective.scheduler(options.log_snr_min, options.log_snr_max),
            },
            sampling: options.sampling.clone(),
            class_names: options.class_names.clone(),
            data: options.data.clone(),
            unconditional_probability: options.unconditional_probability,
            images_seen: self.state.images,
            ema_rate: Some(rate),
        }
    }

    /// Writes the averages as models, the first one as the model, and the plot of the loss.
    fn write_models(&self) -> Result<()> {
        let parameters = self.parameters();
        for (copy, rate) in self.options.ema_rates.iter().enumerate().rev() {
            let values = self.state.averages.read(&self.gpu, parameters, copy)?;
            if copy == 0 {
                let config = self.config(*rate);
                write_model(&self.dir.join("model.safetensors"), Some(&config), parameters, &values)?;
            } else {
                let path = self.dir.join(format!("model-ema-{rate}.safetensors"));
                write_model(&path, None, parameters, &values)?;
            }
        }
        let points = self.log.records().iter().map(|record| (record.images as f64, f64::from(record.loss)));
        let series: Series = ("loss".into(), points.collect());
        // A student of w = 0 alone has nothing to learn, and a logarithm nothing to show.
        if !series.1.iter().any(|(_, loss)| *loss > 0.0) {
            return Ok(());
        }
        let objective = &self.options.objective;
        let what = match objective.loss {
            LossKind::Simple if self.options.distillation.is_some() => {
                format!("mean squared distance to the teacher's {}", objective.prediction)
            }
            LossKind::Simple => format!("mean squared error of {}", objective.prediction),
            LossKind::Hybrid | LossKind::HybridUnscaled => "hybrid loss".into(),
            LossKind::CrossEntropy => "cross-entropy in nats".into(),
            LossKind::Vlb => "bound in bits a dimension".into(),
        };
        loss_plot(self.dir.join("loss.png"), &[series], "images", &what, true)
    }
}
