//! The session itself: which request is under way, where in a step it stands, and what the next call records.

use web_time::Instant;

use crate::diffusion::{
    ContinuousSchedule, Evaluations, Guidance, LevelSource, Prediction, StepScalars, ancestral_steps,
};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Plan};
use crate::model::{Conditions, Model, ModelConfig};

use super::controls::{Conditions as Told, Controls, MOST_CLASSES};
use super::options::{Progress, Render, Request, SessionOptions, Show};
use super::pace::{Costs, Intervals};
use super::painter::Painter;
use super::picture::PictureLater;
use super::program::Program;
use super::timer::{MOST_PASSES, Pass, Timers};

/// Milliseconds in a second.
const MS: f64 = 1e3;

/// A sampler in a host's frame loop; see the [module](super). It makes one picture at a time; make a session for each
/// picture that is to form beside others.
pub struct Session {
    gpu: Gpu,
    config: ModelConfig,
    conditions: Conditions,
    schedule: ContinuousSchedule,
    options: SessionOptions,
    controls: Controls,
    pub(super) program: Program,
    painter: Painter,
    pace: Pace,
    /// What the host wants now; a step begins under it.
    wanted: Wanted,
    run: Option<Run>,
}

/// The condition of a request, as it may change between steps.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    guidance: Guidance,
    /// Classes and their parts, of sum 1; empty for no condition.
    mix: Vec<(u32, f32)>,
}

/// A request under way or done.
struct Run {
    seed: u64,
    /// The steps' numbers until the first call has recorded them.
    unsent: Option<Vec<StepScalars>>,
    steps: usize,
    step: usize,
    /// The next dispatch of the step; 0 between steps.
    dispatch: usize,
    /// Whether the current step has both evaluations.
    guided: bool,
    /// The condition last recorded.
    sent: Option<Wanted>,
}

/// How slices are cut.
enum Pace {
    WholeSteps,
    Timed { timers: Timers, costs: Costs },
    Untimed { intervals: Intervals, last: Option<Instant> },
}

impl Session {
    /// Records a model's plans for a host's device, the one the model was loaded on.
    ///
    /// # Errors
    /// [`Error::Config`] for a model of another device or one that a session cannot run (an upsampler), or options that
    /// make no sense; whatever the device objects to.
    pub fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        model: &Model,
        options: SessionOptions,
    ) -> Result<Session> {
        let refuse = |what: String| Err(Error::Config(what));
        if model.gpu().device() != device || model.gpu().queue() != queue {
            let what = "load it on Gpu::from_device(&device, &queue)";
            return refuse(format!("the model lies on another device than the session's: {what}"));
        }
        let config = model.config.clone();
        if config.unet.low_res_channels != 0 {
            return refuse("a session cannot run an upsampler: there is no small picture to give it".into());
        }
        if let Some(budget) = options.budget_ms.filter(|budget| !(*budget > 0.0 && budget.is_finite())) {
            return refuse(format!("a budget of {budget} ms a call: it must be above 0"));
        }
        let (mixed, most) = (options.mixed_classes, options.max_steps);
        if mixed == 0 || mixed > MOST_CLASSES || most == 0 {
            return refuse(format!(
                "a session for {mixed} mixed classes and {most} steps: 1 to {MOST_CLASSES} classes and at least one step"
            ));
        }
        let clip = options.clip.map_or_else(|| config.clip(), Ok)?;
        let schedule = schedule(&config)?;

        let gpu = model.gpu().with_own_pool();
        let controls = Controls::new(&gpu, mixed, most)?;
        let program = Program::new(&gpu, model, &controls, mixed, clip, options.dtype)?;
        let painter = Painter::new(&gpu, program.shape, &program.picture, &program.z)?;
        let pace = Pace::new(&gpu, options.budget_ms, &program)?;
        let wanted = Wanted { guidance: Request::default().guidance, mix: Vec::new() };
        let conditions = Conditions::of(&config);
        Ok(Session {
            gpu,
            config,
            conditions,
            schedule,
            options,
            controls,
            program,
            painter,
            pace,
            wanted,
            run: None,
        })
    }

    /// What it was made for.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// The model's configuration: its classes, its picture size.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Begins a picture, in place of the one under way. The next [`step`](Session::step) records its first work.
    ///
    /// # Errors
    /// [`Error::Config`] for a class the model has not, guidance of a model that has no unconditional half, no steps or
    /// more than [`SessionOptions::max_steps`], or v outside [0, 1]; then the picture under way goes on.
    pub fn start(&mut self, request: &Request) -> Result<()> {
        let steps = request.steps.unwrap_or(self.config.default_steps());
        if steps > self.options.max_steps {
            let most = self.options.max_steps;
            return Err(Error::Config(format!("{steps} steps in a session for {most} (max_steps)")));
        }
        let v = request.variance_exponent.unwrap_or(self.config.sampling.variance_exponent);
        let chain = ancestral_steps(&self.schedule, steps, v)?;
        let mix: Vec<(u32, f32)> = request.class.map(|class| (class, 1.0)).into_iter().collect();
        self.wanted = self.checked(request.guidance, mix)?;
        self.run = Some(Run {
            seed: request.seed,
            unsent: Some(chain.iter().map(|step| step.scalars()).collect()),
            steps,
            step: 0,
            dispatch: 0,
            guided: false,
            sent: None,
        });
        Ok(())
    }

    /// Changes the guidance from the next step on, of this picture and no other.
    ///
    /// # Errors
    /// [`Error::Config`] for guidance of a model that has no unconditional half.
    pub fn set_guidance(&mut self, guidance: Guidance) -> Result<()> {
        if self.run.is_none() {
            // The class comes with the request, and is checked with it.
            self.wanted.guidance = guidance;
            return Ok(());
        }
        self.wanted = self.checked(guidance, self.wanted.mix.clone())?;
        Ok(())
    }

    /// Changes the class from the next step on; `None` for no condition.
    ///
    /// # Errors
    /// [`Error::Config`] for a class the model has not.
    pub fn set_class(&mut self, class: Option<u32>) -> Result<()> {
        let mix = class.map(|class| (class, 1.0)).into_iter().collect();
        self.wanted = self.checked(self.wanted.guidance, mix)?;
        Ok(())
    }

    /// Changes the condition from the next step on to several classes at once: eps_c = Σ m_k eps_k / Σ m_k over pairs of a
    /// class and its part m.
    ///
    /// # Errors
    /// [`Error::Config`] for more than [`SessionOptions::mixed_classes`] of them, a class the model has not, or parts that are
    /// not finite or of sum 0.
    pub fn set_mix(&mut self, parts: &[(u32, f32)]) -> Result<()> {
        let sum: f32 = parts.iter().map(|(_, part)| part).sum();
        let most = self.options.mixed_classes;
        if parts.len() > most {
            let what = format!("{} classes in a session that mixes {most} (mixed_classes)", parts.len());
            return Err(Error::Config(what));
        }
        let mix: Vec<(u32, f32)> = parts.iter().map(|(class, part)| (*class, part / sum)).collect();
        if mix.iter().any(|(_, part)| !part.is_finite()) {
            return Err(Error::Config(format!(
                "the parts of a mix must be finite and of a sum other than 0: {parts:?}"
            )));
        }
        self.wanted = self.checked(self.wanted.guidance, mix)?;
        Ok(())
    }

    /// A condition if the model has it.
    fn checked(&self, guidance: Guidance, mix: Vec<(u32, f32)>) -> Result<Wanted> {
        let wanted = Wanted { guidance, mix };
        let classes: Vec<Option<u32>> = match &wanted.mix[..] {
            [] => vec![None],
            mix => mix.iter().map(|(class, _)| Some(*class)).collect(),
        };
        self.conditions.check(classes, wanted.evaluations(), false)?;
        Ok(wanted)
    }

    /// Records the next denoising step, or the next slice of it that fits the budget: at least one dispatch, at most to the
    /// end of the step. Records nothing when there is no request or it is finished. Never waits.
    ///
    /// An encoder that is then dropped instead of submitted takes its part of the picture with it: start again.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has failed.
    pub fn step(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<Progress> {
        self.pace.collect();
        let unfinished = self.run.as_ref().is_some_and(|run| run.step < run.steps);
        if !unfinished {
            return Ok(self.progress());
        }
        self.gpu.check()?;
        if self.run.as_ref().is_some_and(|run| run.dispatch == 0) {
            self.begin_step(encoder)?;
        }
        let Some(run) = &mut self.run else { return Ok(Progress::default()) };
        let (index, plan) = match &self.program.guided {
            Some(plan) if run.guided => (1, plan),
            _ => (0, &self.program.single),
        };
        run.dispatch = self.pace.encode(encoder, plan, index, run.dispatch);
        if run.dispatch == plan.len() {
            run.step += 1;
            run.dispatch = 0;
        }
        Ok(self.progress())
    }

    /// Records what the step that begins is to run under, and before the first one the noise.
    fn begin_step(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.guided = self.wanted.evaluations() == Evaluations::Both;
        let conditions = conditions(&self.wanted, self.config.unet.null_label(), self.options.mixed_classes);
        if let Some(steps) = &run.unsent {
            self.controls.begin(encoder, &conditions, run.seed, steps)?;
            run.unsent = None;
            encoder.clear_buffer(self.program.counter.raw(), 0, None);
            encoder.clear_buffer(self.program.picture.raw(), 0, None);
            self.program.start.encode(encoder, 0..self.program.start.len());
        } else if run.sent.as_ref() != Some(&self.wanted) {
            self.controls.change(encoder, &conditions)?;
        }
        run.sent = Some(self.wanted.clone());
        Ok(())
    }

    /// How far the recorded work has come.
    pub fn progress(&self) -> Progress {
        let Some(run) = &self.run else { return Progress::default() };
        let plan = match &self.program.guided {
            Some(plan) if run.guided => plan,
            _ => &self.program.single,
        };
        let part = run.dispatch as f32 / plan.len().max(1) as f32;
        Progress {
            step: run.step,
            steps: run.steps,
            fraction: (run.step as f32 + part) / run.steps as f32,
            finished: run.step == run.steps,
        }
    }

    /// Gives up the picture under way, wherever it stands. What was recorded runs if it is submitted, and does no harm.
    pub fn cancel(&mut self) {
        self.run = None;
    }

    /// Records the drawing of x̃ as it stands at this place of the encoder, over the whole of `view`: any size, with square
    /// pixels. Formats that encode sRGB get linear light, others the encoded values of image files.
    ///
    /// # Errors
    /// As [`Session::render`].
    pub fn render_to(&mut self, encoder: &mut wgpu::CommandEncoder, view: &wgpu::TextureView) -> Result<()> {
        self.render(encoder, view, &Render::default())
    }

    /// As [`Session::render_to`], with a choice of picture, format, encoding and filter.
    ///
    /// The texture needs the usage `RENDER_ATTACHMENT`, or else `STORAGE_BINDING` and a format that shaders store to. The
    /// first drawing into a format compiles a pipeline.
    ///
    /// # Errors
    /// [`Error::Config`] for a texture that cannot be drawn into, [`Error::Device`] when the device objects.
    pub fn render(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        view: &wgpu::TextureView,
        render: &Render,
    ) -> Result<()> {
        self.gpu.check()?;
        self.painter.paint(encoder, view, render)
    }

    /// Records a copy of a picture to the host, as it stands at this place of the encoder.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn read(&self, encoder: &mut wgpu::CommandEncoder, show: Show) -> Result<PictureLater> {
        self.gpu.check()?;
        let buffer = match show {
            Show::Picture => &self.program.picture,
            Show::Latent => &self.program.z,
        };
        PictureLater::record(&self.gpu, encoder, buffer, self.program.shape)
    }
}

/// The schedule of a model that a session can run.
fn schedule(config: &ModelConfig) -> Result<ContinuousSchedule> {
    let process = config.process()?;
    match (process.levels, process.prediction) {
        (LevelSource::Continuous(schedule), Prediction::Eps) => Ok(schedule),
        _ => Err(Error::Config(format!(
            "a session runs models of continuous time that predict noise; this one has the schedule {} and predicts {}",
            config.scheduler.beta_schedule, config.scheduler.prediction_type
        ))),
    }
}

impl Wanted {
    /// No class needs one evaluation, whatever the guidance: both halves would be the same.
    fn evaluations(&self) -> Evaluations {
        if self.mix.is_empty() { Evaluations::Unconditional } else { self.guidance.evaluations() }
    }
}

/// The numbers of a condition, for K classes a step.
fn conditions(wanted: &Wanted, null_label: u32, mixed: usize) -> Told {
    let mut labels = vec![null_label; mixed + 1];
    let mut mix = vec![0.0; mixed];
    if wanted.evaluations() == Evaluations::Unconditional {
        mix[0] = 1.0;
    } else {
        for (at, (class, part)) in wanted.mix.iter().enumerate() {
            (labels[at], mix[at]) = (*class, *part);
        }
    }
    Told { labels, mix, guidance: wanted.guidance.weight() as f32 }
}

impl Pace {
    fn new(gpu: &Gpu, budget_ms: Option<f64>, program: &Program) -> Result<Pace> {
        let Some(budget) = budget_ms.map(|ms| ms / MS) else { return Ok(Pace::WholeSteps) };
        let timers = Timers::new(gpu)?;
        if !timers.exist() {
            return Ok(Pace::Untimed { intervals: Intervals::new(budget), last: None });
        }
        let plans = [Some(&program.single), program.guided.as_ref()];
        Ok(Pace::Timed { timers, costs: Costs::new(budget, plans.into_iter().flatten()) })
    }

    /// Takes in what has been measured meanwhile.
    fn collect(&mut self) {
        if let Pace::Timed { timers, costs } = self {
            for (pass, seconds) in timers.collect() {
                costs.learn(pass, seconds);
            }
        }
    }

    /// Records the next slice of plan number `index` from dispatch `first` on, and says where it ends.
    fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        index: usize,
        first: usize,
    ) -> usize {
        match self {
            Pace::WholeSteps => {
                plan.encode(encoder, first..plan.len());
                plan.len()
            }
            Pace::Untimed { intervals, last } => {
                let now = Instant::now();
                let seconds = last.map_or(0.0, |last| now.duration_since(last).as_secs_f64());
                *last = Some(now);
                let end = (first + intervals.next(seconds)).min(plan.len());
                plan.encode(encoder, first..end);
                end
            }
            Pace::Timed { timers, costs } => {
                let end = costs.end(index, first);
                let known = costs.known(index, first, end);
                // Without a timer, what is not known yet is not done in bulk.
                let Some(timer) = timers.free() else {
                    let end = if known { end } else { first + 1 };
                    plan.encode(encoder, first..end);
                    return end;
                };
                let end = if known { end } else { end.min(first + MOST_PASSES) };
                let length = if known { end - first } else { 1 };
                for start in (first..end).step_by(length) {
                    let pass = Pass { plan: index, first: start, last: start + length };
                    plan.encode_timed(encoder, pass.first..pass.last, Some(timers.around(timer, pass)));
                }
                timers.finish(timer, encoder);
                end
            }
        }
    }
}
