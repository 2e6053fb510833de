//! The plans of a session: the noise a picture starts from, and one denoising step with one or with all evaluations.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Plan};
use crate::sample::{Fixed, Networks, Settled, StepRecorder, Which, slots};

use super::controls::Controls;

/// What a session runs, and what its steps leave: buffers of the picture's shape `[1, H, W, C]` f32.
pub(super) struct Program {
    /// H, W, C.
    pub shape: [usize; 3],
    pub z: Buffer,
    /// x̃.
    pub picture: Buffer,
    pub counter: Buffer,
    /// `[2, L, D]` f32, of a network that takes tokens: those wanted, and those that stand for "nothing".
    pub tokens: Option<Buffer>,
    /// What is made of them, whenever they change.
    pub prepare: Vec<Plan>,
    pub start: Plan,
    /// A step of one evaluation for each class of the mix.
    pub single: Plan,
    /// A step with the evaluations beside these, where there are any.
    pub all: Option<Plan>,
}

impl Program {
    pub fn new(
        gpu: &Gpu,
        networks: &Networks<'_>,
        settled: &Settled,
        controls: &Controls,
    ) -> Result<Program> {
        let (slots, picture) = controls.slots(gpu, networks.network.about(), settled)?;
        let mut fixed = Fixed::new(gpu, networks, settled, &slots)?;
        let prepare = std::mem::take(&mut fixed.prepare);
        let evaluations = fixed.evaluations(gpu, settled, &slots)?;
        let recorder = StepRecorder {
            gpu,
            name: "session",
            evaluations: &evaluations,
            mixed: settled.mixed,
            combine: settled.combine(),
            guide: None,
            walk: &settled.walk,
            slots: &slots,
            clip: settled.options.clip,
            fast: settled.options.fast,
        };
        let more = evaluations.iter().map(|one| one.conditions).sum::<usize>() > settled.mixed;
        let all = more.then(|| recorder.step(Which::All)).transpose()?;
        let (start, single) = (recorder.start()?, recorder.step(Which::First)?);
        let [_, height, width, channels] = slots.z.nhwc("session")?;
        let own = |slot| slots::buffer(slot).cloned();
        let (z, picture, counter) = (own(&slots.z)?, own(&picture)?, own(&slots.counter)?);
        let tokens = slots.tokens.as_ref().map(own).transpose()?;
        let shape = [height, width, channels];
        Ok(Program { shape, z, picture, counter, tokens, prepare, start, single, all })
    }
}
