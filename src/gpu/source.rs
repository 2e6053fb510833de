//! Joins WGSL text: `#import name` takes in a library file once, `elem` names the storage type. Where a library file has
//! twins, the [`Dialect`] says which is taken.
//!
//! This is all the preprocessing there is: imports are concatenation, `enable` directives are hoisted to the top, and
//!
//! ```text
//! #unroll i in 0..4
//! var sum${i} = 0.0;
//! #end
//! ```
//!
//! repeats lines, for what must be variables of their own: cooperative matrices in an array would live in memory.
//! `${i+1}` and `${i+2}` are the values after.
//! `${vectors}` stands for the vectors of four elements in sixteen bytes of `elem`: see `shaders/pack_f32.wgsl`.

use super::kernel::Elem;

/// The files that others may import.
const LIBRARY: &[(&str, &str)] = &[
    ("attention_coop_parts", crate::wgsl!("attention_coop_parts")),
    ("attention_params", crate::wgsl!("attention_params")),
    ("attention_sequence", crate::wgsl!("attention_sequence")),
    ("attention_tile", crate::wgsl!("attention_tile")),
    ("chw", crate::wgsl!("chw")),
    ("conv2d_gather", crate::wgsl!("conv2d_gather")),
    ("conv2d_params", crate::wgsl!("conv2d_params")),
    ("coop_tile", crate::wgsl!("coop_tile")),
    ("coop_write", crate::wgsl!("coop_write")),
    ("eights", crate::wgsl!("eights")),
    ("gelu_curve", crate::wgsl!("gelu_curve")),
    ("guided", crate::wgsl!("guided")),
    ("index", crate::wgsl!("index")),
    ("layer_norm_parts", crate::wgsl!("layer_norm_parts")),
    ("multiply_wide", crate::wgsl!("multiply_wide")),
    ("multiply_wide_int64", crate::wgsl!("multiply_wide_int64")),
    ("norm_affine", crate::wgsl!("norm_affine")),
    ("norm_slab", crate::wgsl!("norm_slab")),
    ("norm_tile", crate::wgsl!("norm_tile")),
    ("normal", crate::wgsl!("normal")),
    ("pack_f16", crate::wgsl!("pack_f16")),
    ("pack_f32", crate::wgsl!("pack_f32")),
    ("philox", crate::wgsl!("philox")),
    ("rule_cfg", crate::wgsl!("rule_cfg")),
    ("silu_curve", crate::wgsl!("silu_curve")),
    ("sum_of_lanes", crate::wgsl!("sum_of_lanes")),
];

/// What a shader's text depends on besides the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// The storage type.
    pub elem: Elem,
    /// Whether the device has 64-bit integers.
    pub int64: bool,
}

impl Dialect {
    /// The library file that an import means.
    fn file(self, import: &str) -> &str {
        match (import, self.elem, self.int64) {
            ("pack", Elem::F32, _) => "pack_f32",
            ("pack", Elem::F16, _) => "pack_f16",
            ("multiply_wide", _, true) => "multiply_wide_int64",
            _ => import,
        }
    }

    /// Vectors of four elements in sixteen bytes.
    fn vectors(self) -> u32 {
        match self.elem {
            Elem::F32 => 1,
            Elem::F16 => 2,
        }
    }
}

/// The whole text of a shader: directives, the `elem` alias, imported files in order, then the file itself.
///
/// # Panics
/// If the file imports what is not in the library or an `#unroll` is malformed; a test walks all files.
pub fn join(text: &str, dialect: Dialect) -> String {
    let elem = dialect.elem;
    let mut imported: Vec<&str> = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    let mut directives: Vec<&str> = if elem == Elem::F16 { vec!["enable f16;"] } else { Vec::new() };
    take_in(text, dialect, &mut imported, &mut lines, &mut directives);
    let mut body = String::new();
    unroll(&lines, &mut vec![("vectors", dialect.vectors())], &mut body);
    let directives: String = directives.iter().map(|line| format!("{line}\n")).collect();
    format!("{directives}alias elem = {};\n{body}", elem.wgsl())
}

fn take_in<'a>(
    text: &'a str,
    dialect: Dialect,
    imported: &mut Vec<&'a str>,
    lines: &mut Vec<&'a str>,
    directives: &mut Vec<&'a str>,
) {
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#import ") {
            let name = dialect.file(name.trim());
            if !imported.contains(&name) {
                imported.push(name);
                let found = LIBRARY.iter().find(|(known, _)| *known == name);
                let (_, library) = found.unwrap_or_else(|| panic!("no shader library is named {name:?}"));
                take_in(library, dialect, imported, lines, directives);
            }
        } else if line.starts_with("enable ") {
            if !directives.contains(&line.trim()) {
                directives.push(line.trim());
            }
        } else {
            lines.push(line);
        }
    }
}

/// Writes `lines` with every `#unroll` written out, `${name}` replaced by the values `known` so far.
fn unroll<'a>(lines: &[&'a str], known: &mut Vec<(&'a str, u32)>, body: &mut String) {
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let Some(head) = line.trim_start().strip_prefix("#unroll ") else {
            body.push_str(&filled_in(line, known));
            body.push('\n');
            continue;
        };
        let (name, first, last) =
            parse_unroll(head, known).unwrap_or_else(|| panic!("#unroll {head}: malformed"));
        let mut depth = 1;
        let inside = lines[at..].iter().position(|line| {
            let line = line.trim();
            depth += i32::from(line.starts_with("#unroll ")) - i32::from(line == "#end");
            depth == 0
        });
        let inside = inside.unwrap_or_else(|| panic!("#unroll {head}: there is no #end"));
        for value in first..last {
            known.push((name, value));
            unroll(&lines[at..at + inside], known, body);
            known.pop();
        }
        at += inside + 1;
    }
}

/// A line with the values of the names that it holds.
fn filled_in(line: &str, known: &[(&str, u32)]) -> String {
    known.iter().fold(line.to_owned(), |line, (name, value)| {
        let line = line.replace(&format!("${{{name}}}"), &value.to_string());
        (1..=2).fold(line, |line, more| {
            line.replace(&format!("${{{name}+{more}}}"), &(value + more).to_string())
        })
    })
}

/// `i in 0..4`.
fn parse_unroll<'a>(head: &'a str, known: &[(&str, u32)]) -> Option<(&'a str, u32, u32)> {
    let (name, range) = head.split_once(" in ")?;
    let range = filled_in(range, known);
    let (first, last) = range.split_once("..")?;
    Some((name.trim(), first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(text: &str, elem: Elem) -> String {
        super::join(text, Dialect { elem, int64: false })
    }

    #[test]
    fn imports_are_taken_once_and_directives_come_first() {
        let text = "#import index\nenable f16;\n#import index\nfn main() {}\n";
        let joined = join(text, Elem::F32);
        assert!(joined.starts_with("enable f16;\nalias elem = f32;\n"));
        assert_eq!(joined.matches("fn linear_index").count(), 1);
        assert!(!joined.contains("#import"));
    }

    #[test]
    fn directives_are_hoisted_once() {
        let text = "// A file.\nenable f16;\nenable wgpu_cooperative_matrix;\nfn main() {}\n";
        let joined = join(text, Elem::F16);
        let want =
            "enable f16;\nenable wgpu_cooperative_matrix;\nalias elem = f16;\n// A file.\nfn main() {}\n";
        assert_eq!(joined, want);
    }

    #[test]
    fn loops_are_written_out() {
        let text =
            "#unroll i in 0..2\n  a${i};\n  #unroll j in 1..3\n  s${i}_${j} = ${j}u;\n  #end\n#end\nb;\n";
        let joined = join(text, Elem::F32);
        let lines: Vec<&str> = joined.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, ["a0;", "s0_1 = 1u;", "s0_2 = 2u;", "a1;", "s1_1 = 1u;", "s1_2 = 2u;", "b;"]);
    }

    #[test]
    fn twins_are_taken_by_the_dialect() {
        let text = "#import pack\n#unroll v in 0..${vectors}\n  put${v}(${vectors}u);\n#end\n";
        let (single, half) = (join(text, Elem::F32), join(text, Elem::F16));
        assert!(single.contains("alias pack = vec4<f32>;") && single.ends_with("  put0(1u);\n"));
        assert!(half.contains("alias pack = vec4<u32>;") && half.ends_with("  put0(2u);\n  put1(2u);\n"));
        let wide = Dialect { elem: Elem::F32, int64: true };
        assert!(super::join("#import philox\n", wide).contains("u64(a)"));
        assert!(!join("#import philox\n", Elem::F32).contains("u64(a)"));
    }

    #[test]
    fn a_loop_knows_its_next_values() {
        let joined = join("#unroll i in 3..5\na${i+1} + b${i+2};\n#end\n", Elem::F32);
        assert!(joined.ends_with("a4 + b5;\na5 + b6;\n"), "{joined}");
    }

    #[test]
    #[should_panic(expected = "#unroll i in 0..2: there is no #end")]
    fn an_open_loop_is_refused() {
        join("#unroll i in 0..2\na;\n", Elem::F32);
    }
}
