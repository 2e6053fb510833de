//! The modules of a crate and who imports what of whom: `use` and paths, resolved through re-exports to the files that
//! define the names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::tokens::{Word, after_brackets, after_item, words};

/// A file, and whether it is its tests that are meant: they are built apart, so they are a node of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    pub file: String,
    pub test: bool,
}

/// What a node takes of which others, and by which path.
pub type Imports = BTreeMap<Node, BTreeMap<Node, BTreeSet<String>>>;

/// A leaf of a `use`.
struct Use {
    path: Vec<String>,
    /// The name it has here; `*` for a glob.
    name: String,
    /// Handed on: only what the file uses of it counts as an import.
    public: bool,
    test: bool,
}

struct Module {
    file: String,
    parent: Option<usize>,
    test: bool,
    children: BTreeMap<String, usize>,
    /// Names that it defines, and whether for tests alone.
    items: BTreeMap<String, bool>,
    uses: Vec<Use>,
    /// All that is in items.
    code: Vec<Word>,
}

/// The modules of crates; a crate's root has its name.
#[derive(Default)]
pub struct House {
    modules: Vec<Module>,
    roots: BTreeMap<String, usize>,
}

/// What a name stands for.
#[derive(Default)]
struct Meaning {
    module: Option<usize>,
    item: Option<Node>,
}

const MOST_RE_EXPORTS: usize = 12;

impl House {
    /// Reads a crate from its root file, a path below the repository.
    pub fn read(&mut self, name: &str, root: &str) {
        let text = std::fs::read_to_string(below(root)).unwrap();
        let folder = Path::new(root).parent().unwrap().to_owned();
        let at = self.module(root, None, false, &words(&text), &folder);
        self.roots.insert(name.to_owned(), at);
    }

    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.iter().map(|module| &module.file[..]).collect()
    }

    fn module(
        &mut self,
        file: &str,
        parent: Option<usize>,
        test: bool,
        words: &[Word],
        folder: &Path,
    ) -> usize {
        let at = self.modules.len();
        let (children, items) = (BTreeMap::new(), BTreeMap::new());
        let file = file.to_owned();
        self.modules.push(Module { file, parent, test, children, items, uses: Vec::new(), code: Vec::new() });
        let mut i = 0;
        while i < words.len() {
            let (start, mut path) = (i, None);
            while words.get(i).is_some_and(|word| word.is("#")) {
                let open = i + 1 + usize::from(words[i + 1].is("!"));
                let end = after_brackets(words, open);
                path = path.or(words[i..end].iter().any(|word| word.is("path")).then_some(()));
                i = end;
            }
            if i == words.len() {
                break;
            }
            let end = after_item(words, i);
            let end = if end == i { i + 1 } else { end };
            // A file from elsewhere is another crate's, which is read there.
            if path.is_none() {
                self.item(at, &words[i..end], folder);
            }
            self.modules[at].code.extend_from_slice(&words[start..end]);
            i = end;
        }
        at
    }

    /// Takes in an item, behind its attributes.
    fn item(&mut self, at: usize, words: &[Word], folder: &Path) {
        let test = self.modules[at].test || words[0].test;
        let mut i = 0;
        if words[i].is("pub") {
            i += 1;
            if words.get(i).is_some_and(|word| word.is("(")) {
                i = after_brackets(words, i);
            }
        }
        while matches!(&words[i].text[..], "async" | "unsafe" | "extern") && i + 1 < words.len() {
            i += 1;
        }
        if words[i].is("const") && matches!(&words[i + 1].text[..], "fn" | "unsafe") {
            i += 1;
        }
        let Some(name) = words.get(i + 1).map(|word| word.text.clone()) else { return };
        match &words[i].text[..] {
            "mod" if words[i + 2].is(";") => {
                let plain = folder.join(format!("{name}.rs"));
                let inside = folder.join(&name);
                let file = if below(&plain).exists() { plain } else { inside.join("mod.rs") };
                let file = file.to_str().unwrap().replace('\\', "/");
                let text = std::fs::read_to_string(below(&file)).unwrap();
                let mut read = crate::tokens::words(&text);
                read.iter_mut().for_each(|word| word.test |= test);
                let child = self.module(&file, Some(at), test, &read, &inside);
                self.modules[at].children.insert(name, child);
            }
            "mod" => {
                let file = self.modules[at].file.clone();
                let inside = &words[i + 3..words.len() - 1];
                let child = self.module(&file, Some(at), test, inside, &folder.join(&name));
                self.modules[at].children.insert(name, child);
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                self.modules[at].items.insert(name, test);
            }
            // `macro_rules! name`: found from the crate's root.
            "macro_rules" => {
                let root = (0..).scan(Some(at), |up, _| {
                    let here = (*up)?;
                    *up = self.modules[here].parent;
                    Some(here)
                });
                let root = root.last().unwrap_or(at);
                let name = words[i + 2].text.clone();
                if root == at {
                    self.modules[at].items.insert(name, test);
                } else {
                    let path = self.path_of(at, &name);
                    self.modules[at].items.insert(name.clone(), test);
                    self.modules[root].uses.push(Use { path, name, public: true, test });
                }
            }
            _ => {}
        }
        let mut i = 0;
        while i < words.len() {
            if words[i].is("use") && !words[0].is("mod") && !is_inline_module(words) {
                let end = (i..words.len()).find(|i| words[*i].is(";")).unwrap_or(words.len());
                let (public, test) = (words[0].is("pub") && i < 6, self.modules[at].test || words[i].test);
                for (path, name) in leaves(&words[i + 1..end]) {
                    self.modules[at].uses.push(Use { path, name, public, test });
                }
                i = end;
            }
            i += 1;
        }
    }

    fn path_of(&self, at: usize, name: &str) -> Vec<String> {
        let mut path = vec![name.to_owned()];
        let mut here = at;
        while let Some(parent) = self.modules[here].parent {
            let siblings = &self.modules[parent].children;
            let found = siblings.iter().find(|(_, child)| **child == here);
            // The module that is being read is not yet known to its parent: its file's name is its own.
            let own = || {
                let path = Path::new(&self.modules[here].file);
                let stem = path.file_stem().unwrap().to_str().unwrap();
                let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                if stem == "mod" { folder.to_owned() } else { stem.to_owned() }
            };
            path.insert(0, found.map_or_else(own, |(name, _)| name.clone()));
            here = parent;
        }
        path.insert(0, "crate".to_owned());
        path
    }

    fn root_of(&self, mut at: usize) -> usize {
        while let Some(parent) = self.modules[at].parent {
            at = parent;
        }
        at
    }

    fn node(&self, at: usize, test: bool) -> Node {
        Node { file: self.modules[at].file.clone(), test: test || self.modules[at].test }
    }

    /// What `name` stands for in a module, whoever asks: `depth` ends a circle of globs.
    fn meaning(&self, at: usize, name: &str, depth: usize) -> Meaning {
        let module = &self.modules[at];
        let mut meaning = Meaning {
            module: module.children.get(name).copied(),
            item: module.items.get(name).map(|test| self.node(at, *test)),
        };
        if depth == 0 {
            return meaning;
        }
        for import in module.uses.iter().filter(|import| import.name == name || import.name == "*") {
            let mut path = import.path.clone();
            if import.name == "*" {
                path.push(name.to_owned());
            }
            let further = self.resolved(at, &path, depth - 1);
            meaning.module = meaning.module.or(further.module);
            meaning.item = meaning.item.or(further.item);
        }
        meaning
    }

    /// What a path stands for that is written in the module `at`.
    fn resolved(&self, at: usize, path: &[String], depth: usize) -> Meaning {
        let mut here = match &path[0][..] {
            "crate" => Meaning { module: Some(self.root_of(at)), item: None },
            "self" => Meaning { module: Some(at), item: None },
            "super" => Meaning { module: self.modules[at].parent, item: None },
            first => match self.meaning_but_itself(at, first, path, depth) {
                Meaning { module: None, item: None } => {
                    Meaning { module: self.roots.get(first).copied(), item: None }
                }
                found => found,
            },
        };
        for name in &path[1..] {
            // Past an item there are variants and functions of its own.
            let Some(module) = here.module else { return here };
            here = match &name[..] {
                "super" => Meaning { module: self.modules[module].parent, item: None },
                "self" => here,
                _ => match self.meaning(module, name, depth) {
                    Meaning { module: None, item: None } if here.item.is_some() => return here,
                    found => found,
                },
            };
        }
        here
    }

    /// The first name of a path: `use a::b` does not look for `a` in itself.
    fn meaning_but_itself(&self, at: usize, first: &str, path: &[String], depth: usize) -> Meaning {
        let own = self.modules[at].uses.iter().any(|import| import.path == path && import.name == first);
        let module = &self.modules[at];
        if own {
            let item = module.items.get(first).map(|test| self.node(at, *test));
            return Meaning { module: module.children.get(first).copied(), item };
        }
        self.meaning(at, first, depth.min(MOST_RE_EXPORTS / 2))
    }

    /// Who imports what.
    pub fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for at in 0..self.modules.len() {
            let module = &self.modules[at];
            let mut add = |path: &[String], test: bool| {
                let from = self.node(at, test);
                if let Some(to) =
                    self.resolved(at, path, MOST_RE_EXPORTS).item.filter(|to| to.file != from.file)
                {
                    imports.entry(from).or_default().entry(to).or_default().insert(path.join("::"));
                }
            };
            for import in module.uses.iter().filter(|import| !import.public && import.name != "*") {
                add(&import.path, import.test);
            }
            for (path, test) in paths(&module.code) {
                let known = module.items.contains_key(&path[0]) && path.len() == 1;
                if !known {
                    add(&path, test);
                }
            }
        }
        imports
    }
}

fn below(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn is_inline_module(words: &[Word]) -> bool {
    words.iter().take(6).any(|word| word.is("mod"))
}

/// The paths in code, names alone among them, but for `use`, modules and what follows a dot or names a field.
fn paths(code: &[Word]) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < code.len() {
        let word = &code[i];
        let before = i.checked_sub(1).map_or("", |i| &code[i].text);
        if word.is("use") {
            i = (i..code.len()).find(|i| code[*i].is(";")).unwrap_or(code.len());
        } else if word.is("mod") {
            i = after_item(code, i);
        } else if word.is_name() && !matches!(before, "." | "::" | "fn") {
            let mut path = vec![word.text.clone()];
            while code.get(i + 1).is_some_and(|word| word.is("::"))
                && code.get(i + 2).is_some_and(Word::is_name)
            {
                path.push(code[i + 2].text.clone());
                i += 2;
            }
            found.push((path, word.test));
            i += 1;
        } else {
            i += 1;
        }
    }
    found
}

/// The leaves of a tree of imports: `a::{b, c as d, e::*}`.
fn leaves(tree: &[Word]) -> Vec<(Vec<String>, String)> {
    let mut path = Vec::new();
    let mut i = 0;
    while i < tree.len() {
        match &tree[i].text[..] {
            "::" => i += 1,
            "{" => {
                let inside = &tree[i + 1..after_brackets(tree, i) - 1];
                let under = |(further, name): (Vec<String>, String)| {
                    let own = further == ["self"];
                    let name =
                        if own && name == "self" { path.last().cloned().unwrap_or(name) } else { name };
                    (if own { path.clone() } else { [&path[..], &further].concat() }, name)
                };
                return branches(inside).into_iter().flat_map(leaves).map(under).collect();
            }
            "*" => return vec![(path, "*".to_owned())],
            "as" => return vec![(path, tree[i + 1].text.clone())],
            _ => {
                path.push(tree[i].text.clone());
                i += 1;
            }
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    vec![(path, name)]
}

/// What stands between the commas that are in no brackets.
fn branches(inside: &[Word]) -> Vec<&[Word]> {
    let (mut found, mut start, mut i) = (Vec::new(), 0, 0);
    while i < inside.len() {
        match &inside[i].text[..] {
            "{" => i = after_brackets(inside, i),
            "," => {
                found.push(&inside[start..i]);
                (start, i) = (i + 1, i + 1);
            }
            _ => i += 1,
        }
    }
    found.push(&inside[start..]);
    found.retain(|branch| !branch.is_empty());
    found
}
