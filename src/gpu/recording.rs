//! A recording: the dispatches of a computation, in order, as plain data. No wgpu call happens while recording.

use super::buffer::Buffer;
use super::kernel::{Access, Elem, Kernel};
use super::liveness::{Lifetime, assign};

/// Where a value lives.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A value of this recording alone; the plan finds it a place. The number is its index.
    Transient(u32),
    /// A buffer that outlives the plan.
    Buffer(Buffer),
}

impl Storage {
    /// Equal for two values in the same memory: transients below 2^32, buffers above.
    pub fn identity(&self) -> u64 {
        match self {
            Storage::Transient(index) => u64::from(*index),
            Storage::Buffer(buffer) => buffer.id() << 32,
        }
    }
}

/// A range of a value, bound to a kernel.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The value.
    pub storage: Storage,
    /// Where the range starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// What `elem` stands for.
    pub elem: Elem,
    /// Values of the shader's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The uniform parameters; empty where the kernel has none.
    pub params: Vec<u8>,
    /// One for each of the kernel's storage bindings.
    pub bindings: Vec<Binding>,
    /// Workgroups in x, y and z.
    pub groups: [u32; 3],
    /// What the profile calls it: the kernel and its variant.
    pub label: String,
}

pub(super) struct Transient {
    pub label: String,
    pub bytes: u64,
    pub keep: bool,
}

/// The dispatches of a computation and the values they pass to one another.
#[derive(Default)]
pub struct Recording {
    pub(super) transients: Vec<Transient>,
    pub(super) dispatches: Vec<Dispatch>,
}

impl Recording {
    /// A new value of `bytes`; its content is undefined until a dispatch writes it.
    pub fn transient(&mut self, label: impl Into<String>, bytes: u64) -> Storage {
        let index = u32::try_from(self.transients.len()).expect("fewer than 2^32 values");
        self.transients.push(Transient { label: label.into(), bytes: bytes.max(4), keep: false });
        Storage::Transient(index)
    }

    /// Gives a transient a buffer of its own, readable after the plan has run.
    pub fn keep(&mut self, storage: &Storage) {
        if let Storage::Transient(index) = storage {
            self.transients[*index as usize].keep = true;
        }
    }

    /// Appends a launch.
    pub fn dispatch(&mut self, dispatch: Dispatch) {
        debug_assert_eq!(dispatch.kernel.access.len(), dispatch.bindings.len(), "{}", dispatch.kernel.name);
        debug_assert!(
            !aliases(&dispatch),
            "{}: WebGPU forbids a buffer that is written to be bound twice in one dispatch",
            dispatch.kernel.name
        );
        self.dispatches.push(dispatch);
    }

    /// When each transient lives; `None` for those no dispatch touches.
    pub(super) fn lifetimes(&self) -> Vec<Option<Lifetime>> {
        let mut lives: Vec<Option<Lifetime>> = vec![None; self.transients.len()];
        for (at, dispatch) in self.dispatches.iter().enumerate() {
            for binding in &dispatch.bindings {
                if let Storage::Transient(index) = binding.storage {
                    let bytes = self.transients[index as usize].bytes;
                    let life = &mut lives[index as usize];
                    life.get_or_insert(Lifetime { first: at, last: at, bytes }).last = at;
                }
            }
        }
        lives
    }

    /// The memory that the values will take in a plan, shared by liveness.
    pub fn transient_bytes(&self) -> u64 {
        assign(&self.lifetimes()).1.iter().sum()
    }

    /// How many launches there are.
    pub fn len(&self) -> usize {
        self.dispatches.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.dispatches.is_empty()
    }
}

fn aliases(dispatch: &Dispatch) -> bool {
    let bound: Vec<_> = dispatch.bindings.iter().zip(dispatch.kernel.access).collect();
    bound.iter().enumerate().any(|(i, (a, access))| {
        **access != Access::Read
            && bound
                .iter()
                .enumerate()
                .any(|(j, (b, _))| i != j && a.storage.identity() == b.storage.identity())
    })
}

/// Workgroups for `count` workgroups in a row, spread over y past WebGPU's 65535 a dimension.
pub fn groups_over(count: u64) -> [u32; 3] {
    const MOST: u64 = 65535;
    let rows = count.div_ceil(MOST).max(1);
    let columns = count.div_ceil(rows).max(1);
    // What does not fit is beyond every device, and a plan says so.
    [columns as u32, u32::try_from(rows).unwrap_or(u32::MAX), 1]
}

#[cfg(test)]
mod tests {
    use super::groups_over;

    #[test]
    fn groups_cover_the_count_within_the_limit() {
        for count in [0, 1, 65535, 65536, 65537, 1 << 20, (1 << 31) + 7] {
            let [x, y, z] = groups_over(count).map(u64::from);
            assert!(x * y * z >= count && x <= 65535 && y <= 65535, "{count}: {x} x {y}");
            assert!(x * y - count.min(x * y) < y.max(2), "{count}: little is wasted");
        }
    }
}
