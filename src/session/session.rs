//! The session itself: which request is under way, where in a step it stands, and what the next call records.

use crate::diffusion::{Evaluations, Guidance, Process};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::{Condition, Model, Sequence};
use crate::nn::Denoiser;
use crate::ops::GUIDER_ROW;
use crate::sample::{Combine, Networks, SamplerOptions, Settled, Walk, check_weaker};

use super::controls::{Conditions as Told, Controls, MOST_ROWS};
use super::options::{Progress, Render, Request, SessionOptions, Show};
use super::painter::Painter;
use super::picture::PictureLater;
use super::program::Program;
use super::slices::Pace;
use super::wanted::Wanted;

/// A sampler in a host's frame loop; see the [module](super). It makes one picture at a time; make a session for each
/// picture that is to form beside others.
pub struct Session {
    gpu: Gpu,
    process: Process,
    settled: Settled,
    options: SessionOptions,
    controls: Controls,
    pub(super) program: Program,
    painter: Painter,
    pace: Pace,
    /// What the host wants now; a step begins under it.
    wanted: Wanted,
    run: Option<Run>,
}

/// A request under way or done.
struct Run {
    seed: u64,
    walk: Walk,
    /// Whether the first call has recorded the seed and the walk.
    begun: bool,
    step: usize,
    /// The next dispatch of the step; 0 between steps.
    dispatch: usize,
    /// Whether the current step has all evaluations, and whether one had.
    all: bool,
    had_all: bool,
    /// What was last recorded of the condition.
    sent: Option<Told>,
}

impl Session {
    /// Records a model's plans for a host's device, the one the model was loaded on.
    ///
    /// # Errors
    /// [`Error::Config`] for a model of another device or one that a session cannot run (an upsampler), or options that
    /// make no sense or do not go together; whatever the device objects to.
    pub fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        model: &Model,
        options: SessionOptions,
    ) -> Result<Session> {
        Session::beside(device, queue, model, None, options)
    }

    /// The same beside the weaker model that its guiders lead away from, on the same device.
    ///
    /// # Errors
    /// As [`Session::new`]; [`Error::Config`] when the two models are not alike in what they draw.
    pub fn beside(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        model: &Model,
        weaker: Option<&Model>,
        options: SessionOptions,
    ) -> Result<Session> {
        let refuse = |what: String| Err(Error::Config(what));
        let elsewhere = |model: &Model| model.gpu().device() != device || model.gpu().queue() != queue;
        if elsewhere(model) || weaker.is_some_and(elsewhere) {
            let what = "load it on Gpu::from_device(&device, &queue)";
            return refuse(format!("the model lies on another device than the session's: {what}"));
        }
        let weights = model.weights();
        weaker.map_or(Ok(()), |weaker| check_weaker(model, weaker))?;
        let other = weaker.map(|weaker| (&weaker.unet as &dyn Denoiser, weaker.weights()));
        let weaker = other.as_ref().map(|(network, weights)| (*network, weights));
        let networks = Networks { weaker, ..Networks::of(&model.unet, &weights) };
        let own = SamplerOptions::of(&model.config, 1)?;
        Session::with(model.gpu(), networks, model.config.process()?, own, options)
    }

    /// Records the plans of networks of one's own, which walk `process`; what `options` leave open is as `own` has it: steps, v,
    /// sampler, clip, and what the network may be told. `gpu` is the host's device, where their weights lie.
    ///
    /// # Errors
    /// [`Error::Config`] for what a session cannot run (an upsampler, guidance by a gradient), or options that make no sense or
    /// do not go together; whatever the device objects to.
    pub fn with(
        gpu: &Gpu,
        networks: Networks<'_>,
        process: impl Into<Process>,
        own: SamplerOptions,
        options: SessionOptions,
    ) -> Result<Session> {
        let refuse = |what: String| Err(Error::Config(what));
        if let Some(budget) = options.budget_ms.filter(|budget| !(*budget > 0.0 && budget.is_finite())) {
            return refuse(format!("a budget of {budget} ms a call: it must be above 0"));
        }
        let (mixed, most) = (options.mixed_classes, options.max_steps);
        if mixed == 0 || mixed >= MOST_ROWS || most == 0 {
            return refuse(format!(
                "a session for {mixed} mixed classes and {most} steps: 1 to {} classes and at least one step",
                MOST_ROWS - 1
            ));
        }
        let process = process.into();
        let asked = SamplerOptions {
            method: options.method.clone().unwrap_or(own.method),
            guiders: options.guiders.clone(),
            clip: options.clip.unwrap_or(own.clip),
            dtype: options.dtype,
            size: options.size,
            ..own
        };
        let settled = Settled::of_session(&networks, &process, asked, mixed, MOST_ROWS)?;

        let gpu = gpu.with_own_pool();
        let controls = Controls::new(&gpu, &settled, most)?;
        let program = Program::new(&gpu, &networks, &settled, &controls)?;
        let painter = Painter::new(&gpu, program.shape, &program.picture, &program.z)?;
        let pace = Pace::new(&gpu, options.budget_ms, &program)?;
        let guidance = Request::default().guidance;
        let wanted = Wanted { guidance, mix: Vec::new(), tokens: None, negative: None, vector: None };
        Ok(Session { gpu, process, settled, options, controls, program, painter, pace, wanted, run: None })
    }

    /// What it was made for.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Begins a picture, in place of the one under way. The next [`step`](Session::step) records its first work.
    ///
    /// # Errors
    /// [`Error::Config`] for a class the model has not, guidance of a model that has no unconditional half, no steps or
    /// more than [`SessionOptions::max_steps`], or v outside [0, 1]; then the picture under way goes on.
    pub fn start(&mut self, request: &Request) -> Result<()> {
        let steps = request.steps.unwrap_or(self.settled.options.steps);
        let most = self.options.max_steps;
        if steps > most {
            return Err(Error::Config(format!("{steps} steps in a session for {most} (max_steps)")));
        }
        let v = request.variance_exponent.unwrap_or(self.settled.options.variance_exponent);
        let options = SamplerOptions { steps, variance_exponent: v, ..self.settled.options.clone() };
        let walk = Walk::new(&self.process, &options, false)?;
        if walk.len() > most {
            return Err(Error::Config(format!(
                "{steps} steps of {} evaluations in a session for {most} (max_steps)",
                walk.len()
            )));
        }
        let Condition { class, tokens, vector } = request.condition.clone();
        let negative = request.negative.clone();
        let mix: Vec<(u32, f32)> = class.map(|class| (class, 1.0)).into_iter().collect();
        self.wanted =
            self.checked(Wanted { guidance: request.guidance, mix, tokens, negative, vector }, &walk)?;
        self.run = Some(Run {
            seed: request.seed,
            walk,
            begun: false,
            step: 0,
            dispatch: 0,
            all: false,
            had_all: false,
            sent: None,
        });
        Ok(())
    }

    /// Changes the guidance from the next step on, of this picture and no other.
    ///
    /// # Errors
    /// [`Error::Config`] for guidance of a model that has no unconditional half.
    pub fn set_guidance(&mut self, guidance: Guidance) -> Result<()> {
        match &self.run {
            // The class comes with the request, and is checked with it.
            None => self.wanted.guidance = guidance,
            Some(run) => {
                self.wanted = self.checked(Wanted { guidance, ..self.wanted.clone() }, &run.walk)?;
            }
        }
        Ok(())
    }

    /// Changes the class from the next step on; `None` for none.
    ///
    /// # Errors
    /// [`Error::Config`] for a class the model has not.
    pub fn set_class(&mut self, class: Option<u32>) -> Result<()> {
        let mix = class.map(|class| (class, 1.0)).into_iter().collect();
        self.change(Wanted { mix, ..self.wanted.clone() })
    }

    /// Changes the vector from the next step on; `None` for none.
    ///
    /// # Errors
    /// [`Error::Config`] for a vector that the network does not take.
    pub fn set_vector(&mut self, vector: Option<Vec<f32>>) -> Result<()> {
        self.change(Wanted { vector, ..self.wanted.clone() })
    }

    /// Changes the tokens from the next step on, what stands for "nothing" staying what it is.
    ///
    /// # Errors
    /// [`Error::Config`] for tokens that the network does not take.
    pub fn set_tokens(&mut self, tokens: Option<Sequence>) -> Result<()> {
        self.change(Wanted { tokens, ..self.wanted.clone() })
    }

    /// Changes the tokens that guidance leads away from, from the next step on.
    ///
    /// # Errors
    /// As [`Session::set_tokens`].
    pub fn set_negative(&mut self, negative: Option<Sequence>) -> Result<()> {
        self.change(Wanted { negative, ..self.wanted.clone() })
    }

    fn change(&mut self, wanted: Wanted) -> Result<()> {
        let walk = self.run.as_ref().map_or(&self.settled.walk, |run| &run.walk);
        self.wanted = self.checked(wanted, walk)?;
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
        self.change(Wanted { mix, ..self.wanted.clone() })
    }

    /// A condition if the model has it, for the steps of a walk.
    fn checked(&self, wanted: Wanted, walk: &Walk) -> Result<Wanted> {
        let classes = wanted.mix.iter().map(|(class, _)| Some(*class));
        let none = wanted.mix.is_empty().then_some(None);
        let (tokens, vector) = (&wanted.tokens, &wanted.vector);
        let condition = |class| Condition { class, tokens: tokens.clone(), vector: vector.clone() };
        let conditions: Vec<Condition> = classes.chain(none).map(condition).collect();
        let guidance = self.guidance(&wanted)?;
        self.settled.check_conditions(conditions.iter(), guidance)?;
        self.settled.told_tokens(tokens.as_ref(), wanted.negative.as_ref(), self.unconditional(guidance))?;
        self.settled.told(guidance)?;
        self.settled.of_guiders(walk, guidance)?;
        Ok(wanted)
    }

    /// The guidance of what is wanted: no condition needs one evaluation, both halves being the same. Guiders are asked all the
    /// same.
    fn guidance(&self, wanted: &Wanted) -> Result<Guidance> {
        match self.settled.combine() {
            Combine::InStep
                if wanted.mix.is_empty() && wanted.tokens.is_none() && wanted.vector.is_none() =>
            {
                Guidance::from_weight(-1.0)
            }
            _ => Ok(wanted.guidance),
        }
    }

    /// Whether a step evaluates "nothing" alone.
    fn unconditional(&self, guidance: Guidance) -> bool {
        let plain = matches!(self.settled.combine(), Combine::InStep);
        plain && guidance.evaluations() == Evaluations::Unconditional
    }

    /// The numbers of what is wanted in the step of a run that begins, and whether it takes all evaluations.
    fn told(&self, run: &Run) -> Result<(Told, bool)> {
        let (settled, null_label) = (&self.settled, self.settled.null_label());
        let guidance = self.guidance(&self.wanted)?;
        let unconditional = self.unconditional(guidance);
        let mut rows = vec![null_label; settled.mixed];
        let mut mix = vec![0.0; settled.mixed];
        if unconditional || self.wanted.mix.is_empty() {
            mix[0] = 1.0;
        } else {
            for (at, (class, part)) in self.wanted.mix.iter().enumerate() {
                (rows[at], mix[at]) = (*class, *part);
            }
        }
        let own = rows[0];
        rows.extend(settled.others.iter().map(|other| other.class.unwrap_or(own)));
        let given = std::iter::once(self.wanted.vector.as_deref());
        let vectors = settled.vectors(given, unconditional);
        let (own, nothing) = (self.wanted.tokens.as_ref(), self.wanted.negative.as_ref());
        let tokens = settled.told_tokens(own, nothing, unconditional)?.map(|sequence| sequence.cloned());
        let weight = match settled.distilled {
            Some(_) => settled.told(guidance)?,
            None => guidance.weight() as f32,
        };
        let (needs_all, mut guiders) = settled.of_guiders(&run.walk, guidance)?;
        // What guiders remember is of this picture: in its first step with all evaluations there is nothing yet.
        let fresh = (run.step..needs_all.len()).find(|step| !run.had_all && needs_all[*step]);
        for (step, row) in guiders.chunks_mut(GUIDER_ROW).enumerate() {
            row[GUIDER_ROW - 1] = f32::from(u8::from(fresh == Some(step)));
        }
        let all = match needs_all.get(run.step) {
            Some(all) => *all,
            None => guidance.evaluations() == Evaluations::Both,
        };
        Ok((Told { rows, mix, tokens, vectors, weight, guiders }, all))
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
        let unfinished = self.run.as_ref().is_some_and(|run| run.step < run.walk.len());
        if !unfinished {
            return Ok(self.progress());
        }
        self.gpu.check()?;
        if self.run.as_ref().is_some_and(|run| run.dispatch == 0) {
            self.begin_step(encoder)?;
        }
        let Some(run) = &mut self.run else { return Ok(Progress::default()) };
        let (index, plan) = match &self.program.all {
            Some(plan) if run.all => (1, plan),
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
        let Some(run) = &self.run else { return Ok(()) };
        let (told, all) = self.told(run)?;
        let sent = run.sent.as_ref().map(|sent| &sent.tokens);
        if let Some(bank) = self.program.tokens.as_ref().filter(|_| sent != Some(&told.tokens)) {
            self.controls.tell(encoder, bank, &told.tokens)?;
            self.program.prepare.iter().for_each(|plan| plan.encode(encoder, 0..plan.len()));
        }
        if !run.begun {
            self.controls.begin(encoder, &told, run.seed, &run.walk, &self.settled)?;
            encoder.clear_buffer(self.program.counter.raw(), 0, None);
            encoder.clear_buffer(self.program.picture.raw(), 0, None);
            self.program.start.encode(encoder, 0..self.program.start.len());
        } else if run.sent.as_ref() != Some(&told) {
            self.controls.change(encoder, &told)?;
        }
        if let Some(run) = &mut self.run {
            (run.begun, run.all, run.had_all) = (true, all, run.had_all || all);
            run.sent = Some(told);
        }
        Ok(())
    }

    /// How far the recorded work has come.
    pub fn progress(&self) -> Progress {
        let Some(run) = &self.run else { return Progress::default() };
        let plan = match &self.program.all {
            Some(plan) if run.all => plan,
            _ => &self.program.single,
        };
        let part = run.dispatch as f32 / plan.len().max(1) as f32;
        Progress {
            step: run.step,
            steps: run.walk.len(),
            fraction: (run.step as f32 + part) / run.walk.len() as f32,
            finished: run.step == run.walk.len(),
        }
    }

    /// Gives up the picture under way, wherever it stands. What was recorded runs if it is submitted, and does no harm.
    pub fn cancel(&mut self) {
        self.run = None;
    }

    /// Records the drawing of x̃ as it stands at this place of the encoder, over the whole of `view`, of any size: as large as it
    /// goes in its own proportions, in the middle of black, with square pixels. Formats that encode sRGB get linear light, others the encoded values of image files.
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
