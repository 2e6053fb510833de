//! A kernel: an entry point of a shader file, and how it uses its bindings.

/// How a kernel uses a storage binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is written, none read.
    Write,
    /// Read and written: accumulated into or changed in place.
    Update,
}

/// The storage type that a kernel's `elem` stands for. Arithmetic is f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elem {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats; the device must have `SHADER_F16`.
    F16,
}

impl Elem {
    /// Its name in WGSL.
    pub fn wgsl(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::F16 => "f16",
        }
    }
}

/// An entry point of a shader file and how it uses its bindings: storage buffers at bindings 0, 1, … of group 0
/// in this order and, where the dispatch has parameters, one uniform buffer at the next binding.
#[derive(Debug)]
pub struct Kernel {
    /// The name that profiles and labels show.
    pub name: &'static str,
    /// The file's text, from [`wgsl!`](crate::wgsl).
    pub source: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// One for each storage binding.
    pub access: &'static [Access],
    /// Compiled without checks of bounds and loops; see [`Kernel::trusted`].
    pub trusted: bool,
}

impl Kernel {
    /// A kernel; made as a `const` beside its operation.
    pub const fn new(
        name: &'static str,
        source: &'static str,
        entry: &'static str,
        access: &'static [Access],
    ) -> Self {
        Kernel { name, source, entry, access, trusted: false }
    }

    /// Leaves out the checks that wgpu adds to every access by index and every loop; about an eighth of the time of
    /// kernels on cooperative matrices.
    ///
    /// # Safety
    /// No access of the shader is out of bounds, and every loop ends, for any launch that operations record. The
    /// shader's header says why.
    pub const unsafe fn trusted(self) -> Self {
        Kernel { trusted: true, ..self }
    }
}
