//! The context's half of the tape: what operations push while they are recorded, and the run backwards.

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::wgsl;

use super::tape::GradTarget;
use super::{Context, Tensor};

const COPY: Kernel = Kernel::new("copy", wgsl!("copy"), "copy", &[Access::Read, Access::Write]);

impl Context {
    /// Whether there is a tape.
    pub fn has_tape(&self) -> bool {
        self.tape.is_some()
    }

    /// Makes `parameter` a leaf whose gradient is added to `gradient`.
    pub fn track_parameter(&mut self, parameter: &Tensor, gradient: &Tensor) {
        if let Some(tape) = &mut self.tape {
            let identity = parameter.identity();
            tape.tracked.insert(identity);
            tape.roots.insert(identity);
            tape.parameters.insert(identity);
            tape.gradients.insert(identity, gradient.clone());
        }
    }

    /// Makes `input` a leaf whose gradient can be asked for after the backward pass.
    pub fn watch(&mut self, input: &Tensor) {
        if let Some(tape) = &mut self.tape {
            tape.tracked.insert(input.identity());
            tape.roots.insert(input.identity());
        }
    }

    /// Whether the gradient of a value is wanted.
    pub fn needs_grad(&self, tensor: &Tensor) -> bool {
        self.tape.as_ref().is_some_and(|tape| tape.tracked.contains(&tensor.identity()))
    }

    /// Pushes the backward pass of the operation that made `output` of `inputs`. Nothing is kept when no input's
    /// gradient is wanted.
    pub fn backward(
        &mut self,
        output: &Tensor,
        inputs: &[&Tensor],
        closure: impl FnOnce(&mut Context, &Tensor) -> Result<()> + 'static,
    ) {
        let wanted = inputs.iter().any(|input| self.needs_grad(input));
        if let (true, Some(tape)) = (wanted, &mut self.tape) {
            tape.tracked.insert(output.identity());
            tape.entries.push((output.clone(), Box::new(closure)));
        }
    }

    /// Where to put a contribution to the gradient of `input`; `None` where it is not wanted.
    pub fn grad_target(&mut self, input: &Tensor) -> Result<Option<GradTarget>> {
        if !self.needs_grad(input) {
            return Ok(None);
        }
        let tape = self.tape.as_ref().expect("a tracked value has a tape");
        let Some(present) = tape.gradients.get(&input.identity()).cloned() else {
            let made = self.output("gradient", input.shape(), input.dtype())?;
            self.set_grad(input, made.clone());
            return Ok(Some(GradTarget { tensor: made, accumulate: false }));
        };
        // Two values may share one gradient after `pass_grad`; the first to add to it takes a copy. So does who adds to
        // what its closure still reads.
        let holders = || tape.gradients.values().filter(|held| held.identity() == present.identity()).count();
        let read = tape.handed == Some(present.identity());
        let shared = read || (!tape.parameters.contains(&input.identity()) && holders() > 1);
        let own = if shared { self.copy(&present)? } else { present };
        let own = own.reshape(input.shape())?;
        self.set_grad(input, own.clone());
        Ok(Some(GradTarget { tensor: own, accumulate: true }))
    }

    /// Hands the gradient of an output on to an input unchanged, without a copy, if it is the first contribution.
    /// Returns false, having done nothing, where there is one already: then the caller must add.
    pub fn pass_grad(&mut self, input: &Tensor, gradient: &Tensor) -> Result<bool> {
        if !self.needs_grad(input) {
            return Ok(true);
        }
        let tape = self.tape.as_ref().expect("a tracked value has a tape");
        if tape.gradients.contains_key(&input.identity()) {
            return Ok(false);
        }
        let gradient = gradient.reshape(input.shape())?;
        self.set_grad(input, gradient);
        Ok(true)
    }

    /// The gradient of a watched input or a parameter, after the backward pass.
    pub fn grad(&self, input: &Tensor) -> Option<Tensor> {
        let found = self.tape.as_ref()?.gradients.get(&input.identity())?;
        found.reshape(input.shape()).ok()
    }

    /// Runs the tape backwards from `output`, whose gradient is `gradient`.
    pub fn run_tape(&mut self, output: &Tensor, gradient: Tensor) -> Result<()> {
        self.set_grad(output, gradient);
        loop {
            let Some(tape) = &mut self.tape else { return Ok(()) };
            let Some((value, closure)) = tape.entries.pop() else { return Ok(()) };
            let identity = value.identity();
            // A view shares its value's identity, so the gradient may stand under another shape. A root's
            // gradient is still wanted afterwards.
            let found = match tape.roots.contains(&identity) {
                true => tape.gradients.get(&identity).cloned(),
                false => tape.gradients.remove(&identity),
            };
            if let Some(gradient) = found {
                tape.handed = Some(gradient.identity());
                closure(self, &gradient.reshape(value.shape())?)?;
            }
        }
    }

    /// A copy of a value.
    pub fn copy(&mut self, x: &Tensor) -> Result<Tensor> {
        let y = self.output("copy", x.shape(), x.dtype())?;
        self.copy_to(x, &y);
        Ok(y)
    }

    /// Copies a value to where another of the same size lies.
    pub fn copy_to(&mut self, x: &Tensor, y: &Tensor) {
        debug_assert_eq!(x.bytes(), y.bytes());
        // Sixteen bytes an invocation, whatever the type: storage is padded to that.
        let words = (x.bytes() as usize).div_ceil(16);
        self.launch(&COPY).bind(x).bind(y).elem(super::DType::F32).over(words, 256);
    }

    fn set_grad(&mut self, input: &Tensor, gradient: Tensor) {
        if let Some(tape) = &mut self.tape {
            tape.gradients.insert(input.identity(), gradient);
        }
    }
}
