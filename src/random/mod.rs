//! Random numbers that are functions of what they are for: (seed, element, step or image, stream).
//!
//! This layer knows the counter-based generator, its streams, and how a word becomes a uniform or a normal number.
//! It is the host's twin of `shaders/philox.wgsl` and `shaders/normal.wgsl`, bit for bit.
//!
//! Invariant: nothing here has a state, reads a clock, or calls a float function whose result may differ between
//! machines; and nothing here knows what the numbers are used for, be it an image, a schedule or a layer.

mod init;
mod normal;
mod philox;

pub use init::{init_normal, init_uniform};
pub use normal::{fill_normal, normal, normal_table};
pub use philox::{Stream, dropout_words, philox4x32_10, uniform, words};

#[cfg(test)]
mod shader_tests {
    use crate::gpu::source::{self, Dialect};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    const LIBRARY: &str = "#import philox\n#import normal\n";

    /// The text as the simplest device gets it.
    fn validate(text: &str) -> naga::Module {
        let source = &source::join(text, Dialect::default());
        let module =
            naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
        module
    }

    #[test]
    fn the_library_files_are_valid_wgsl_without_bindings() {
        let module = validate(LIBRARY);
        assert!(module.entry_points.is_empty());
        assert!(module.global_variables.is_empty());
        let names: Vec<_> = module.functions.iter().filter_map(|(_, f)| f.name.as_deref()).collect();
        for name in ["philox4x32_10", "uniform_from_word", "normal_segment", "normal_from_word"] {
            assert!(names.contains(&name), "{name} is missing; there are {names:?}");
        }
    }

    #[test]
    fn a_kernel_can_use_them_with_its_own_table() {
        let kernel = "
            @group(0) @binding(0) var<storage, read> table: array<vec2<u32>, 512>;
            @group(0) @binding(1) var<storage, read_write> out: array<f32>;
            @compute @workgroup_size(64)
            fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                let words = philox4x32_10(vec4<u32>(id.x, 0u, 0u, 1u), vec2<u32>(7u, 0u));
                out[id.x] = normal_from_word(words.x, table[normal_segment(words.x)]) + uniform_from_word(words.y);
            }";
        assert_eq!(validate(&format!("{LIBRARY}\n{kernel}")).entry_points.len(), 1);
    }
}
