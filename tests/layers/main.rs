//! How the house hangs together: no two files import each other, in a loop of any length, and nothing points upwards.
//!
//! A file imports what its `use`s and paths name, at the file that defines it: a name that a `mod.rs` hands on is its
//! definer's, and to hand it on is no import. A file's tests are a node of their own, since they are built after what they
//! test; that they may look up to the rooms which prove things is said below, room by room.

mod house;
mod tokens;

use std::collections::BTreeMap;

use house::{House, Imports, Node};

/// The rooms from the ground up; those of one line stand beside each other and may import each other.
const ROOMS: &[&[&str]] = &[
    &["error", "shape", "sizes"],
    &["random"],
    &["gpu"],
    &["tensor"],
    &["diffusion"],
    &["ops"],
    &["autograd"],
    &["testing"],
    &["nn"],
    &["data", "io", "text"],
    &["model"],
    &["sample"],
    &["session", "toy", "train"],
    &["eval"],
    &["cli"],
    &["benches"],
];

/// Rooms above, which a test may look up to wherever it is: they compare, and start the tape.
const PROOFS: &[&str] = &["autograd", "testing"];

/// Circles that are still to be opened.
const CIRCLES: &[&str] = &[
    "src/diffusion/moves/ancestral.rs src/diffusion/moves/ddim.rs src/diffusion/moves/dpmpp.rs \
     src/diffusion/moves/edm.rs src/diffusion/moves/entry.rs src/diffusion/moves/mod.rs",
    "src/io/kind_of_file.rs src/io/signatures.rs",
    "src/sample/batches.rs src/sample/run.rs src/sample/sampler.rs",
    "src/sample/checks.rs src/sample/networks.rs src/sample/settled.rs src/sample/slots.rs src/sample/step.rs \
     src/sample/walk.rs",
];

fn imports() -> Imports {
    let mut house = House::new(env!("CARGO_MANIFEST_DIR"));
    house.read("freeguide", "src/lib.rs");
    house.read("kernels", "benches/kernels/main.rs");
    let files = house.files().len();
    assert!(files > 300, "only {files} files were found");
    house.imports()
}

fn room(node: &Node) -> &str {
    let mut parts = node.file.split('/');
    match (parts.next(), parts.next()) {
        (Some("src"), Some(room)) => room.trim_end_matches(".rs"),
        _ => "benches",
    }
}

fn shown(node: &Node) -> String {
    if node.test { format!("{} (tests)", node.file) } else { node.file.clone() }
}

/// Tarjan's strongly connected components of more than one node.
fn circles(imports: &Imports) -> Vec<Vec<&Node>> {
    #[derive(Default)]
    struct Walk<'a> {
        numbers: BTreeMap<&'a Node, usize>,
        lowest: BTreeMap<&'a Node, usize>,
        stack: Vec<&'a Node>,
        found: Vec<Vec<&'a Node>>,
    }
    fn visit<'a>(walk: &mut Walk<'a>, imports: &'a Imports, node: &'a Node) {
        let number = walk.numbers.len();
        walk.numbers.insert(node, number);
        walk.lowest.insert(node, number);
        walk.stack.push(node);
        for to in imports.get(node).into_iter().flat_map(BTreeMap::keys) {
            if !walk.numbers.contains_key(to) {
                visit(walk, imports, to);
                walk.lowest.insert(node, walk.lowest[node].min(walk.lowest[to]));
            } else if walk.stack.contains(&to) {
                walk.lowest.insert(node, walk.lowest[node].min(walk.numbers[to]));
            }
        }
        if walk.lowest[node] == number {
            let start = walk.stack.iter().position(|on_stack| *on_stack == node).unwrap();
            let mut circle = walk.stack.split_off(start);
            circle.sort();
            walk.found.push(circle);
        }
    }
    let mut walk = Walk::default();
    for node in imports.keys() {
        if !walk.numbers.contains_key(node) {
            visit(&mut walk, imports, node);
        }
    }
    walk.found.retain(|circle| circle.len() > 1);
    walk.found.sort();
    walk.found
}

#[test]
fn no_files_import_each_other() {
    let imports = imports();
    let mut wrong = String::new();
    let mut known = CIRCLES.to_vec();
    for circle in circles(&imports) {
        let names: Vec<String> = circle.iter().map(|node| shown(node)).collect();
        let expected = known.iter().position(|files| *files == names.join(" "));
        if let Some(at) = expected {
            known.remove(at);
            continue;
        }
        wrong += &format!("\na circle of {}:\n", names.join(", "));
        for from in &circle {
            for (to, paths) in imports[*from].iter().filter(|(to, _)| circle.contains(to)) {
                wrong += &format!("  {} -> {}: {paths:?}\n", shown(from), shown(to));
            }
        }
    }
    for files in known {
        wrong += &format!("\nthis is a circle no more, take it out of CIRCLES: {files}\n");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_points_upwards() {
    let level = |room: &str| {
        let level = ROOMS.iter().position(|rooms| rooms.contains(&room));
        level.unwrap_or_else(|| panic!("{room} has no place in ROOMS"))
    };
    let imports = imports();
    let mut wrong = String::new();
    for (from, to, paths) in
        imports.iter().flat_map(|(from, tos)| tos.iter().map(move |(to, paths)| (from, to, paths)))
    {
        let (here, there) = (room(from), room(to));
        let proves = from.test && PROOFS.contains(&there);
        if !proves && level(here) < level(there) {
            wrong += &format!("  {} -> {}: {paths:?}\n", shown(from), shown(to));
        }
        if to.test && !from.test {
            wrong += &format!("  {} takes {paths:?} of tests\n", shown(from));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The test of the test: a crate of five files, whose imports are known.
#[test]
fn imports_are_followed_to_the_files_that_define_them() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("src/lib.rs", "pub mod a; pub mod b; mod c; pub use b::Thing; macro_rules! said { () => {} }");
    put(
        "src/a/mod.rs",
        "mod inner;\npub use inner::Inner;\nuse crate::Thing;\n// crate::c::h\n/* use crate::c::h; */
         pub fn f<'a>(_: &'a Thing) -> &'a str { r#\"crate::c::h(\"#; 'c'; \"crate::c::h()\" }",
    );
    put("src/a/inner.rs", "pub struct Inner;\n#[cfg(test)]\nmod tests { use crate::c::{self, h}; }");
    put("src/b.rs", "pub struct Thing; fn g() { crate::a::f(&super::Thing); crate::said!(); ::a::f(); }");
    put("src/c.rs", "use crate::a::*; pub const fn h() -> Option<Inner> { None }");
    let mut house = House::new(folder.path());
    house.read("crate_of_five", "src/lib.rs");
    let imports = house.imports();
    let all = imports.iter().flat_map(|(from, tos)| tos.keys().map(move |to| (from, to)));
    let found: Vec<String> = all.map(|(from, to)| format!("{} -> {}", shown(from), shown(to))).collect();
    let wanted = [
        "src/a/inner.rs (tests) -> src/c.rs",
        "src/a/mod.rs -> src/b.rs",
        "src/b.rs -> src/a/mod.rs",
        "src/b.rs -> src/lib.rs",
        "src/c.rs -> src/a/inner.rs",
    ];
    assert_eq!(found, wanted);
    let circles: Vec<Vec<String>> =
        circles(&imports).iter().map(|circle| circle.iter().map(|node| shown(node)).collect()).collect();
    assert_eq!(circles, [["src/a/mod.rs", "src/b.rs"]]);
}
