//! The counter of a replayed sampling plan: where it stands, and what the network is told and shown of it.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::diffusion::StepRow;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const ADVANCE: Kernel = Kernel::new("advance", wgsl!("step_counter"), "advance", &[Access::Update]);
const TIMES: Kernel =
    Kernel::new("step_times", wgsl!("step_counter"), "times", &[Access::Read, Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    steps: u32,
    word: u32,
    pad: u32,
}

/// The word of a row, of either kernel, that holds the time.
const TIME: usize = 7;

/// Adds 1 to `counter`, `[1]` of u32.
///
/// # Errors
/// [`Error::Shape`] when it is something else.
pub fn advance(cx: &mut Context, counter: &Tensor) -> Result<()> {
    expect("advance", "counter", counter, &[1], DType::U32)?;
    cx.launch(&ADVANCE).bind(counter).groups([1, 1, 1]);
    Ok(())
}

/// Writes the current step's time embedding value to all of `times`, `[M]` f32. `steps` is `[T, 12]` of
/// [`step_table`](super::step_table), `counter` `[1]` u32.
///
/// # Errors
/// [`Error::Shape`] when one has not this shape and type.
pub fn step_times(cx: &mut Context, steps: &Tensor, counter: &Tensor, times: &Tensor) -> Result<()> {
    step_words(cx, steps, counter, times, TIME)
}

/// Writes the scale of the network's input in the current move to all of `factors`, `[M]` f32. `steps` is `[T, 12]` of
/// [`StepRow`]s [with one](StepRow::with_input), `counter` `[1]` u32.
///
/// # Errors
/// As [`step_times`].
pub fn step_inputs(cx: &mut Context, steps: &Tensor, counter: &Tensor, factors: &Tensor) -> Result<()> {
    step_words(cx, steps, counter, factors, StepRow::INPUT)
}

fn step_words(cx: &mut Context, steps: &Tensor, counter: &Tensor, times: &Tensor, word: usize) -> Result<()> {
    const OP: &str = "step_times";
    let (&[count, 12], &[samples]) = (steps.shape(), times.shape()) else {
        let what =
            format!("expected steps [T, 12] and times [M], got {:?}, {:?}", steps.shape(), times.shape());
        return Err(Error::shape(OP, what));
    };
    expect(OP, "steps", steps, &[count.max(1), 12], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    expect(OP, "times", times, &[samples], DType::F32)?;
    let params = Params { count: samples as u32, steps: count as u32, word: word as u32, pad: 0 };
    let launch = cx.launch(&TIMES).bind(steps).bind(counter).bind(times);
    launch.params(&params).groups([samples.div_ceil(64) as u32, 1, 1]);
    Ok(())
}
