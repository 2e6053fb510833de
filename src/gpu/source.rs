//! Joins WGSL text: `#import name` takes in a library file once, `elem` names the storage type.
//!
//! This is all the preprocessing there is: imports are concatenation, directives are hoisted to the top.

use super::kernel::Elem;

/// The files that others may import.
const LIBRARY: &[(&str, &str)] = &[
    ("chw", crate::wgsl!("chw")),
    ("index", crate::wgsl!("index")),
    ("normal", crate::wgsl!("normal")),
    ("philox", crate::wgsl!("philox")),
];

/// The whole text of a shader: directives, the `elem` alias, imported files in order, then the file itself.
///
/// # Panics
/// If the file imports what is not in the library; a test walks all files.
pub fn join(text: &str, elem: Elem) -> String {
    let mut imported: Vec<&str> = Vec::new();
    let mut body = String::new();
    let mut enable_f16 = elem == Elem::F16;
    take_in(text, &mut imported, &mut body, &mut enable_f16);
    let directive = if enable_f16 { "enable f16;\n" } else { "" };
    format!("{directive}alias elem = {};\n{body}", elem.wgsl())
}

fn take_in<'a>(text: &'a str, imported: &mut Vec<&'a str>, body: &mut String, enable_f16: &mut bool) {
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#import ") {
            let name = name.trim();
            if !imported.contains(&name) {
                imported.push(name);
                let found = LIBRARY.iter().find(|(known, _)| *known == name);
                let (_, library) = found.unwrap_or_else(|| panic!("no shader library is named {name:?}"));
                take_in(library, imported, body, enable_f16);
            }
        } else if line.trim() == "enable f16;" {
            *enable_f16 = true;
        } else {
            body.push_str(line);
            body.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_taken_once_and_directives_come_first() {
        let text = "#import index\nenable f16;\n#import index\nfn main() {}\n";
        let joined = join(text, Elem::F32);
        assert!(joined.starts_with("enable f16;\nalias elem = f32;\n"));
        assert_eq!(joined.matches("fn linear_index").count(), 1);
        assert!(!joined.contains("#import"));
    }
}
