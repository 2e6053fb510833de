//! AdamW with decoupled weight decay, gradient clipping, loss scaling and moving averages, fused over flat arenas.
//!
//!   g' = g·min(1, clip/‖g‖);  m ← β1 m + (1-β1) g';  v ← β2 v + (1-β2) g'²;
//!   p ← p - lr·decay·p - lr·(m/(1-β1^t))/(√(v/(1-β2^t)) + eps);  ema ← rate_t·ema + (1-rate_t)·p.
//!
//! rate_t rises to the average's rate as [`EmaWarmup`] says.
//! Source: Loshchilov & Hutter, arXiv 1711.05101, as `torch.optim.AdamW` has it. The gradients are zeroed on the way. All the
//! state lies on the device, so a step needs nothing of the host but [`Controls::hyper`], and a plan of it replays.
//! A step whose gradient norm is inf or NaN is skipped: it changes no parameter, moment or average.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;
pub use warmup::EmaWarmup;

const OP: &str = "adamw";

const SQUARES: Kernel =
    Kernel::new("gradient_squares", wgsl!("adamw"), "squares", &[Access::Read, Access::Update]);
const PREPARE: Kernel = Kernel::new(
    "prepare_step",
    wgsl!("adamw"),
    "prepare",
    &[Access::Read, Access::Read, Access::Update, Access::Update],
);
const UPDATE: Kernel = Kernel::new(
    OP,
    wgsl!("adamw"),
    "update",
    &[Access::Update, Access::Update, Access::Update, Access::Update, Access::Read],
);
const UPDATE_EMA: Kernel = Kernel::new(
    "adamw_ema",
    wgsl!("adamw"),
    "update_ema",
    &[Access::Update, Access::Update, Access::Update, Access::Update, Access::Read, Access::Update],
);

/// Elements that one workgroup squares, as in the shader.
const BLOCK: usize = 16384;
/// Arenas are whole blocks of this many elements.
const ALIGNMENT: usize = 64;
/// Moving averages that one step can keep.
const MOST_RATES: usize = 4;
/// log2 of the loss scale at the start, where there is one.
const FIRST_LOG2_SCALE: f32 = 20.0;

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Params {
    count: u32,
    first: u32,
    loss_scaling: u32,
    rates: u32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    ema_warmup: f32,
    pad: [f32; 2],
    ema_rest: [f32; 4],
}

/// What does not change while training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The rate of the first moment.
    pub beta1: f64,
    /// The rate of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// How the averages warm up.
    pub ema_warmup: EmaWarmup,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, ema_warmup: EmaWarmup::default() }
    }
}

/// What the optimiser remembers on the device besides moments; a checkpoint keeps its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct OptimizerState {
    /// Steps that were taken.
    pub good_steps: u32,
    /// Steps that were not, for an infinite or undefined gradient.
    pub skipped_steps: u32,
    /// 1 if the last step was skipped.
    pub skip: u32,
    /// The scale of the next step's loss, 2^`log2_scale` as the device has it; 1 without loss scaling.
    pub loss_scale: f32,
    /// 1 - β1^t.
    pub bias1: f32,
    /// 1 - β2^t.
    pub bias2: f32,
    /// log2 of `loss_scale`: it grows by 0.001 a good step and falls by 1 with a skipped one.
    pub log2_scale: f32,
    /// The norm of the last gradient, before the clip.
    pub gradient_norm: f32,
    /// What the clip multiplied it by.
    pub clip_factor: f32,
    /// `clip_factor` over the loss scale.
    pub gradient_factor: f32,
    /// The last step's learning rate.
    pub lr: f32,
    /// The last step's weight decay.
    pub weight_decay: f32,
}

impl OptimizerState {
    /// The words of it, as a tensor's extent.
    pub const WORDS: usize = size_of::<Self>() / 4;

    /// Before the first step.
    pub fn new(loss_scaling: bool) -> Self {
        let log2_scale = if loss_scaling { FIRST_LOG2_SCALE } else { 0.0 };
        OptimizerState { log2_scale, loss_scale: log2_scale.exp2(), ..Self::default() }
    }
}

/// The small tensors that steer a step.
#[derive(Clone, Debug)]
pub struct Controls {
    /// `[4]` f32, read: learning rate, weight decay, the norm to clip gradients to (0: no clip), unused.
    pub hyper: Tensor,
    /// `[12]` u32, updated: the words of an [`OptimizerState`].
    pub state: Tensor,
    /// `[1]` f32: the gradient with which the tape starts at the loss, so what gradients are scaled by. 1 without loss
    /// scaling; with it, it is updated here.
    pub scale: Tensor,
    /// Whether to look for the largest scale that does not overflow: where activations are f16.
    pub loss_scaling: bool,
}

impl Controls {
    /// Buffers for a run that starts at, or goes on from, `state`.
    pub fn new(cx: &Context, state: &OptimizerState, loss_scaling: bool) -> Result<Self> {
        Ok(Controls {
            hyper: cx.constant_f32("hyper", &[4], &[0.0; 4])?,
            state: cx.constant(
                "optimizer",
                &[OptimizerState::WORDS],
                DType::U32,
                bytemuck::bytes_of(state),
            )?,
            scale: cx.constant_f32("loss scale", &[1], &[state.loss_scale])?,
            loss_scaling,
        })
    }
}

/// Parameters side by side with all that belongs to them: f32 vectors of one length, a multiple of 64.
#[derive(Clone, Copy, Debug)]
pub struct Arena<'a> {
    /// `[n]`, updated.
    pub params: &'a Tensor,
    /// `[n]`, read, then zeroed.
    pub grads: &'a Tensor,
    /// `[n]`, updated: m.
    pub first_moments: &'a Tensor,
    /// `[n]`, updated: v.
    pub second_moments: &'a Tensor,
    /// `[E·n]`, updated: one average after the other. `None` where E is 0.
    pub ema: Option<&'a Tensor>,
}

impl AdamW {
    /// Records a whole step over all `arenas`: the norm of all their gradients, then the update of each.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths or types do not fit, [`Error::Config`] for rates outside of [0, 1].
    pub fn step(
        &self,
        cx: &mut Context,
        arenas: &[Arena<'_>],
        controls: &Controls,
        ema_rates: &[f64],
    ) -> Result<()> {
        let grads: Vec<&Tensor> = arenas.iter().map(|arena| arena.grads).collect();
        let partials = grad_squares(cx, &grads)?;
        self.prepare(cx, &partials, controls)?;
        arenas.iter().try_for_each(|arena| self.update(cx, arena, &controls.state, ema_rates))
    }

    /// From the sums of [`grad_squares`]: norm, clip factor, whether to skip, bias corrections, the next loss scale.
    pub fn prepare(&self, cx: &mut Context, partials: &Tensor, controls: &Controls) -> Result<()> {
        let Controls { hyper, state, scale, loss_scaling } = controls;
        expect(OP, "partial sums", partials, &[partials.len()], DType::F32)?;
        expect(OP, "hyper", hyper, &[4], DType::F32)?;
        expect(OP, "state", state, &[OptimizerState::WORDS], DType::U32)?;
        expect(OP, "scale", scale, &[1], DType::F32)?;
        let params = Params {
            count: partials.len() as u32,
            loss_scaling: u32::from(*loss_scaling),
            ..self.params(&[])
        };
        let launch = cx.launch(&PREPARE).bind(partials).bind(hyper).bind(state).bind(scale);
        launch.params(&params).groups([1, 1, 1]);
        Ok(())
    }

    /// The update of one arena, after [`AdamW::prepare`].
    pub fn update(
        &self,
        cx: &mut Context,
        arena: &Arena<'_>,
        state: &Tensor,
        ema_rates: &[f64],
    ) -> Result<()> {
        let Arena { params, grads, first_moments, second_moments, ema } = *arena;
        let n = params.len();
        if !n.is_multiple_of(ALIGNMENT)
            || ema_rates.len() > MOST_RATES
            || ema.is_some() == ema_rates.is_empty()
        {
            let what = format!("{n} parameters, {} rates, averages: {}", ema_rates.len(), ema.is_some());
            let rule =
                format!("needs a multiple of {ALIGNMENT}, at most {MOST_RATES} rates, averages for rates");
            return Err(Error::shape(OP, format!("{what}; {rule}")));
        }
        if let Some(rate) = ema_rates.iter().find(|rate| !(0.0..=1.0).contains(*rate)) {
            return Err(Error::Config(format!(
                "the rate of a moving average is {rate}: it must be in [0, 1]"
            )));
        }
        let vectors = [("params", params), ("grads", grads), ("first moments", first_moments)];
        for (name, tensor) in vectors.into_iter().chain([("second moments", second_moments)]) {
            expect(OP, name, tensor, &[n], DType::F32)?;
        }
        expect(OP, "state", state, &[OptimizerState::WORDS], DType::U32)?;
        if let Some(ema) = ema {
            expect(OP, "averages", ema, &[ema_rates.len() * n], DType::F32)?;
        }
        let uniform = Params { count: (n / 4) as u32, ..self.params(ema_rates) };
        let kernel = if ema.is_some() { &UPDATE_EMA } else { &UPDATE };
        let mut launch = cx.launch(kernel).bind(params).bind(grads).bind(first_moments).bind(second_moments);
        launch = launch.bind(state);
        if let Some(ema) = ema {
            launch = launch.bind(ema);
        }
        launch.params(&uniform).over(n / 4, 64);
        Ok(())
    }

    fn params(&self, ema_rates: &[f64]) -> Params {
        let mut ema_rest = [0.0; MOST_RATES];
        for (rest, rate) in ema_rest.iter_mut().zip(ema_rates) {
            *rest = (1.0 - rate) as f32;
        }
        Params {
            rates: ema_rates.len() as u32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            ema_warmup: self.ema_warmup.lag() as f32,
            ema_rest,
            ..Params::default()
        }
    }
}

/// Sums of squares of blocks of all gradients, `[blocks]` f32, the same in every run.
///
/// # Errors
/// [`Error::Shape`] unless each is a vector of f32 of a multiple of 64 elements.
pub fn grad_squares(cx: &mut Context, grads: &[&Tensor]) -> Result<Tensor> {
    let blocks: usize = grads.iter().map(|g| g.len().div_ceil(BLOCK)).sum();
    let partials = cx.output("gradient squares", &[blocks], DType::F32)?;
    let mut first = 0;
    for g in grads {
        expect(OP, "grads", g, &[g.len().next_multiple_of(ALIGNMENT)], DType::F32)?;
        let params = Params { count: (g.len() / 4) as u32, first: first as u32, ..Params::default() };
        let blocks = g.len().div_ceil(BLOCK);
        cx.launch(&SQUARES).bind(g).bind(&partials).params(&params).over_groups(blocks);
        first += blocks;
    }
    Ok(partials)
}

mod warmup;

#[cfg(test)]
mod tests;
