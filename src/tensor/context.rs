//! The context: what operations record into, forward and, where there is a tape, backward.

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::gpu::{
    Access, Capabilities, Dispatch, Elem, Gpu, Kernel, Plan, Recording, Rung, Storage, groups_over,
};
use crate::sizes;

use super::tape::Tape;
use super::{DType, Tensor};

/// A computation being recorded on a device.
pub struct Context {
    gpu: Gpu,
    recording: Recording,
    rung: Rung,
    fast: bool,
    flops: f64,
    pub(super) tape: Option<Tape<Context>>,
}

impl Context {
    /// A recording without gradients.
    pub fn new(gpu: &Gpu) -> Self {
        Context {
            gpu: gpu.clone(),
            recording: Recording::default(),
            rung: gpu.capabilities().rung,
            fast: false,
            flops: 0.0,
            tape: None,
        }
    }

    /// A recording with a tape: operations push their backward passes.
    pub fn with_tape(gpu: &Gpu) -> Self {
        Context { tape: Some(Tape::default()), ..Context::new(gpu) }
    }

    /// The device recorded for.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.gpu.capabilities()
    }

    /// The variant of kernels that operations choose where they have several.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Chooses another rung than the device's own, as tests and benches do.
    pub fn set_rung(&mut self, rung: Rung) {
        self.rung = rung;
    }

    /// Whether operations may let the order of a sum depend on the batch; see [`Context::set_fast`].
    pub fn fast(&self) -> bool {
        self.fast
    }

    /// Lets operations divide sums as suits the batch, which is faster where it is small. Then an image's bits depend on
    /// how many are made with it; without it, the default, they do not.
    pub fn set_fast(&mut self, fast: bool) {
        self.fast = fast;
    }

    /// A new value, to be written by the next dispatch that binds it.
    ///
    /// # Errors
    /// [`Error::Config`] for f16 on a device without it, or more elements than any memory holds.
    pub fn output(&mut self, label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        if dtype == DType::F16 && !self.capabilities().f16 {
            let name = &self.capabilities().name;
            return Err(Error::Config(format!("{label}: {name} has no f16 in shaders; use --precision f32")));
        }
        let bytes = sizes::bytes(label, shape, dtype.bytes())?;
        let storage = self.recording.transient(format!("{label} {shape:?}"), bytes.next_multiple_of(16));
        Ok(Tensor::new(storage, 0, shape, dtype))
    }

    /// Begins a launch of `kernel`; [`Launch::over`] or [`Launch::groups`] ends it.
    pub fn launch(&mut self, kernel: &'static Kernel) -> Launch<'_> {
        Launch {
            dispatch: Dispatch {
                kernel,
                elem: Elem::F32,
                constants: Vec::new(),
                params: Vec::new(),
                bindings: Vec::with_capacity(kernel.access.len()),
                groups: [1, 1, 1],
                label: kernel.name.to_owned(),
            },
            cx: self,
        }
    }

    /// Gives a value a buffer of its own that can be read after the plan has run.
    pub fn keep(&mut self, tensor: &Tensor) {
        self.recording.keep(tensor.storage());
    }

    /// A tensor holding `data`, outside the plan's pooled memory.
    pub fn constant_f32(&self, label: &str, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        self.constant(label, shape, DType::F32, bytemuck::cast_slice(data))
    }

    /// A tensor holding `data`, outside the plan's pooled memory.
    pub fn constant_u32(&self, label: &str, shape: &[usize], data: &[u32]) -> Result<Tensor> {
        self.constant(label, shape, DType::U32, bytemuck::cast_slice(data))
    }

    /// A tensor of raw bytes, outside the plan's pooled memory.
    pub fn constant(&self, label: &str, shape: &[usize], dtype: DType, data: &[u8]) -> Result<Tensor> {
        let expected = sizes::bytes(label, shape, dtype.bytes())?;
        if data.len() as u64 != expected {
            let what = format!("{label}: {shape:?} takes {expected} bytes, got {}", data.len());
            return Err(Error::shape("constant", what));
        }
        Ok(Tensor::new(Storage::Buffer(self.gpu.buffer_with(label, data)?), 0, shape, dtype))
    }

    /// Counts the multiplications and additions of what was just dispatched.
    pub fn count_flops(&mut self, flops: f64) {
        self.flops += flops;
    }

    /// Multiplications and additions recorded so far, of the operations where nearly all of them are.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// The memory that the values recorded so far will take, shared by liveness.
    pub fn transient_bytes(&self) -> u64 {
        self.recording.transient_bytes()
    }

    /// Dispatches recorded so far.
    pub fn len(&self) -> usize {
        self.recording.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.recording.is_empty()
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn finish(self, label: &str) -> Result<Plan> {
        Plan::new(&self.gpu, self.recording, label)
    }
}

/// A launch being put together: bindings in the kernel's order, then parameters, then the extent.
pub struct Launch<'a> {
    cx: &'a mut Context,
    dispatch: Dispatch,
}

impl Launch<'_> {
    /// Binds the next tensor. The first binding of a float tensor sets what `elem` stands for.
    pub fn bind(mut self, tensor: &Tensor) -> Self {
        if tensor.dtype() == DType::F16 {
            self.dispatch.elem = Elem::F16;
        }
        self.dispatch.bindings.push(tensor.binding());
        self
    }

    /// Sets what `elem` stands for where the bindings do not say it.
    pub fn elem(mut self, dtype: DType) -> Self {
        self.dispatch.elem = dtype.elem();
        self
    }

    /// The uniform parameters, a `#[repr(C)]` struct as the shader declares it.
    pub fn params<P: Pod>(mut self, params: &P) -> Self {
        self.dispatch.params = bytemuck::bytes_of(params).to_vec();
        self
    }

    /// A value for an `override` constant.
    pub fn constant(mut self, name: &'static str, value: f64) -> Self {
        self.dispatch.constants.push((name, value));
        self
    }

    /// Adds a variant to the label in the profile.
    pub fn variant(mut self, variant: impl std::fmt::Display) -> Self {
        self.dispatch.label = format!("{} {variant}", self.dispatch.kernel.name);
        self
    }

    /// Launches over `count` invocations, `size` a workgroup; the shader uses `linear_index`.
    pub fn over(self, count: usize, size: usize) {
        let groups = groups_over((count as u64).div_ceil(size as u64));
        self.groups(groups);
    }

    /// Launches over `count` workgroups in a row; the shader uses `linear_group`.
    pub fn over_groups(self, count: usize) {
        self.groups(groups_over(count as u64));
    }

    /// Launches this many workgroups in x, y and z.
    pub fn groups(mut self, groups: [u32; 3]) {
        self.dispatch.groups = groups;
        self.cx.recording.dispatch(self.dispatch);
    }

    /// The access pattern, for checks in operations.
    pub fn access(&self) -> &'static [Access] {
        self.dispatch.kernel.access
    }
}
