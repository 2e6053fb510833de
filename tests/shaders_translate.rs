//! Every shader, without a GPU: it validates with what a device without features has (with f16 for f16 storage), every
//! entry point translates to SPIR-V, Metal's language and HLSL, and it stays within WebGPU's default limits.
//! Then a few rules of the house: no shader is left over, no file grows past what can be read.

use std::path::{Path, PathBuf};

use freeguide::gpu::Elem;
use freeguide::gpu::source::{self, Dialect};
use naga::back::{PipelineConstants, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// WebGPU's default limits.
const WORKGROUP_BYTES: u32 = 16 * 1024;
const INVOCATIONS: u32 = 256;
const STORAGE_BUFFERS: usize = 8;
/// What kernels on cooperative matrices may take instead: above 24 KiB only one workgroup stays on a multiprocessor, so
/// their usual tile keeps below.
const COOPERATIVE_WORKGROUP_BYTES: u32 = 24 * 1024;

/// Lines past which a file asks to be split.
const SHADER_LINES: usize = 250;
const RUST_LINES: usize = 450;
/// Files that may be longer for now, and how long. Shorten one, and take it out of here.
const LONGER: &[(&str, usize)] =
    &[("shaders/conv2d_cpu.wgsl", 340), ("shaders/group_norm_backward.wgsl", 320)];

/// Values of the `override` constants without a default.
const CONSTANTS: &[(&str, f64)] = &[];

struct Shader {
    name: String,
    text: String,
}

fn root(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn shaders() -> Vec<Shader> {
    let entries = std::fs::read_dir(root("shaders")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<Shader> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .map(|path| Shader {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: std::fs::read_to_string(&path).unwrap(),
        })
        .collect();
    assert!(!found.is_empty());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

impl Shader {
    /// Library files have none; they are seen through those that import them.
    fn has_entry_points(&self) -> bool {
        self.text.contains("@compute")
    }

    /// The storage types it is for: f16 too where it says `elem` or `pack`.
    fn elems(&self) -> Vec<Elem> {
        let code = self.text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let mut words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        if words.any(|word| word == "elem" || word == "pack") {
            vec![Elem::F32, Elem::F16]
        } else {
            vec![Elem::F32]
        }
    }

    /// The dialects that its text differs in.
    fn dialects(&self) -> Vec<Dialect> {
        let of = |int64: bool| self.elems().into_iter().map(move |elem| Dialect { elem, int64 });
        let mut dialects: Vec<Dialect> = of(false).collect();
        dialects.extend(of(true).filter(|wide| {
            let narrow = Dialect { int64: false, ..*wide };
            source::join(&self.text, *wide) != source::join(&self.text, narrow)
        }));
        dialects
    }

    /// Experimental matrix units: nothing but Vulkan has them in a form naga can translate to.
    fn is_cooperative(&self) -> bool {
        self.text.contains("enable wgpu_cooperative_matrix;")
    }

    fn capabilities(&self, text: &str) -> Capabilities {
        // `unpack2x16float` and `pack2x16float` are part of WebGPU itself.
        let mut allowed = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        allowed.set(Capabilities::SHADER_FLOAT16, text.contains("enable f16;"));
        allowed.set(Capabilities::SHADER_INT64, text.contains("u64("));
        if self.is_cooperative() {
            allowed |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
            allowed.set(Capabilities::SHADER_INT16, text.contains("enable wgpu_int16;"));
        }
        allowed
    }
}

/// Calls `check` with every entry point alone, its overrides resolved, and what is wrong with any of them.
fn for_every_entry_point(check: impl Fn(&Shader, Dialect, &Module, &ModuleInfo) -> Result<(), String>) {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for shader in shaders().iter().filter(|shader| shader.has_entry_points()) {
        for dialect in shader.dialects() {
            let text = source::join(&shader.text, dialect);
            let label = format!("{}.wgsl ({dialect:?})", shader.name);
            let module = match naga::front::wgsl::parse_str(&text) {
                Ok(module) => module,
                Err(error) => {
                    wrong.push(format!("{label}: {}", error.emit_to_string(&text)));
                    continue;
                }
            };
            let allowed = shader.capabilities(&text);
            let info = match Validator::new(ValidationFlags::all(), allowed).validate(&module) {
                Ok(info) => info,
                Err(error) => {
                    wrong.push(format!("{label}: {}", error.emit_to_string(&text)));
                    continue;
                }
            };
            let mut constants = PipelineConstants::default();
            for (_, constant) in module.overrides.iter().filter(|(_, constant)| constant.init.is_none()) {
                let name = constant.name.clone().unwrap_or_default();
                match CONSTANTS.iter().find(|(known, _)| *known == name) {
                    Some((_, value)) => drop(constants.insert(name, *value)),
                    None => wrong.push(format!("{label}: override {name} has no default; give it one")),
                }
            }
            for entry in &module.entry_points {
                let chosen = Some((entry.stage, entry.name.as_str()));
                let resolved =
                    naga::back::pipeline_constants::process_overrides(&module, &info, chosen, &constants);
                let checked = resolved
                    .map_err(|error| error.to_string())
                    .and_then(|(module, info)| check(shader, dialect, &module, &info));
                if let Err(what) = checked {
                    wrong.push(format!("{label}, {}: {what}", entry.name));
                }
                seen += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 10, "only {seen} entry points were found");
}

#[test]
fn every_entry_point_translates_to_every_backend() {
    for_every_entry_point(|shader, dialect, module, info| {
        let (name, shader_stage) = (module.entry_points[0].name.clone(), module.entry_points[0].stage);
        let computes = shader_stage == ShaderStage::Compute;
        let chosen = Some((shader_stage, name.clone()));

        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        let entry = spv::PipelineOptions { shader_stage, entry_point: name };
        let words = spv::write_vec(module, info, &options, Some(&entry))
            .map_err(|error| format!("SPIR-V: {error}"))?;
        assert_eq!(words[0], 0x0723_0203, "SPIR-V's magic number");
        if shader.is_cooperative() {
            return Ok(());
        }

        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let entry = msl::PipelineOptions { entry_point: chosen.clone(), ..Default::default() };
        let (text, translated) =
            msl::write_string(module, info, &options, &entry).map_err(|error| format!("Metal: {error}"))?;
        let names = translated.entry_point_names;
        if let Some(Err(error)) = names.iter().find(|name| name.is_err()) {
            return Err(format!("Metal: {error}"));
        }
        assert!(!computes || text.contains("kernel void"));

        // Shader model 5.1 is what every DX12 device has; 64-bit integers need 6.0, f16 6.2.
        let shader_model = match dialect {
            Dialect { elem: Elem::F16, .. } => hlsl::ShaderModel::V6_2,
            Dialect { int64: true, .. } => hlsl::ShaderModel::V6_0,
            _ => hlsl::ShaderModel::V5_1,
        };
        let options = hlsl::Options { shader_model, ..Default::default() };
        let entry = hlsl::PipelineOptions { entry_point: chosen };
        let mut text = String::new();
        let translated = hlsl::Writer::new(&mut text, &options, &entry)
            .write(module, info, None)
            .map_err(|error| format!("HLSL: {error}"))?;
        if let Some(Err(error)) = translated.entry_point_names.iter().find(|name| name.is_err()) {
            return Err(format!("HLSL: {error}"));
        }
        assert!(!computes || text.contains("numthreads"));
        Ok(())
    });
}

#[test]
fn every_entry_point_keeps_to_the_default_limits() {
    for_every_entry_point(|shader, _, module, info| {
        let most = if shader.is_cooperative() { COOPERATIVE_WORKGROUP_BYTES } else { WORKGROUP_BYTES };
        let entry = &module.entry_points[0];
        let uses = info.get_entry_point(0);
        let used: Vec<_> =
            module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()).collect();

        let mut layout = naga::proc::Layouter::default();
        layout.update(module.to_ctx()).map_err(|error| error.to_string())?;
        let shared = used.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
        // As devices may: each variable starts at a multiple of 16.
        let bytes: u32 = shared.map(|(_, variable)| layout[variable.ty].size.next_multiple_of(16)).sum();
        let invocations: u32 = entry.workgroup_size.iter().product();
        let storage = used
            .iter()
            .filter(|(_, variable)| matches!(variable.space, AddressSpace::Storage { .. }))
            .count();

        let mut bindings: Vec<_> = used
            .iter()
            .filter_map(|(_, variable)| variable.binding)
            .map(|place| (place.group, place.binding))
            .collect();
        bindings.sort_unstable();
        let in_a_row = bindings.iter().enumerate().all(|(at, place)| *place == (0, at as u32));
        for (what, holds) in [
            (format!("{bytes} bytes of workgroup memory, at most {most}"), bytes <= most),
            (
                format!("{invocations} invocations a workgroup, at most {INVOCATIONS}"),
                invocations <= INVOCATIONS,
            ),
            (format!("{storage} storage buffers, at most {STORAGE_BUFFERS}"), storage <= STORAGE_BUFFERS),
            (format!("bindings {bindings:?}: expected 0, 1, … of group 0"), in_a_row),
        ] {
            if !holds {
                return Err(what);
            }
        }
        Ok(())
    });
}

/// The library files of random numbers.
const RANDOM: &str = "#import philox\n#import normal\n";

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
fn files_of_random_numbers_are_valid_wgsl_without_bindings() {
    let module = validate(RANDOM);
    assert!(module.entry_points.is_empty());
    assert!(module.global_variables.is_empty());
    let names: Vec<_> = module.functions.iter().filter_map(|(_, f)| f.name.as_deref()).collect();
    for name in ["philox4x32_10", "uniform_from_word", "normal_segment", "normal_from_word"] {
        assert!(names.contains(&name), "{name} is missing; there are {names:?}");
    }
}

#[test]
fn a_kernel_can_use_random_numbers_with_its_own_table() {
    let kernel = "
        @group(0) @binding(0) var<storage, read> table: array<vec2<u32>, 512>;
        @group(0) @binding(1) var<storage, read_write> out: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            let words = philox4x32_10(vec4<u32>(id.x, 0u, 0u, 1u), vec2<u32>(7u, 0u));
            out[id.x] = normal_from_word(words.x, table[normal_segment(words.x)]) + uniform_from_word(words.y);
        }";
    assert_eq!(validate(&format!("{RANDOM}\n{kernel}")).entry_points.len(), 1);
}

/// Every file below `folder`, with its text.
fn rust_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}

#[test]
fn no_shader_is_left_over() {
    let text: String = rust_files(&root("src")).into_iter().map(|(_, text)| text).collect();
    let shaders = shaders();
    let unnamed: Vec<&str> = shaders
        .iter()
        .map(|shader| shader.name.as_str())
        .filter(|name| !text.contains(&format!("wgsl!(\"{name}\")")))
        .collect();
    assert!(unnamed.is_empty(), "no kernel and no library table names {unnamed:?}");
}

#[test]
fn files_stay_short() {
    let shaders = shaders()
        .into_iter()
        .map(|shader| (format!("shaders/{}.wgsl", shader.name), shader.text.lines().count(), SHADER_LINES));
    let rust = rust_files(&root("src")).into_iter().map(|(path, text)| {
        let path = path.strip_prefix(root("")).unwrap().to_str().unwrap().replace('\\', "/");
        (path, text.lines().count(), RUST_LINES)
    });
    let most = |path: &str, usual: usize| {
        LONGER.iter().find(|(known, _)| *known == path).map_or(usual, |(_, most)| *most)
    };
    let long: Vec<String> = shaders
        .chain(rust)
        .map(|(path, lines, usual)| (lines, most(&path, usual), path))
        .filter(|(lines, most, _)| lines > most)
        .map(|(lines, most, path)| format!("  {path}: {lines} lines, at most {most}"))
        .collect();
    assert!(long.is_empty(), "these files ask to be split:\n{}", long.join("\n"));
}
