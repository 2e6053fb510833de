//! The modules of a crate and who imports what of whom: `use` and paths, resolved through re-exports to the files that
//! define the names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::tokens::{Word, after_brackets, after_item, words as words_in};

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

/// The modules of crates below a folder.
pub struct House {
    base: PathBuf,
    modules: Vec<Module>,
    /// The crates' root modules by name.
    roots: BTreeMap<String, usize>,
    /// Macros, which are named from their crate's root.
    macros: BTreeMap<String, Node>,
}

/// What a name stands for.
#[derive(Default)]
struct Meaning {
    module: Option<usize>,
    item: Option<Node>,
}

/// So many times is a name handed on, at the most.
const MOST_RE_EXPORTS: usize = 12;

impl House {
    pub fn new(base: impl Into<PathBuf>) -> Self {
        let (modules, roots, macros) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        House { base: base.into(), modules, roots, macros }
    }

    /// Reads a crate from its root file, a path below the folder.
    pub fn read(&mut self, name: &str, root: &str) {
        let words = words_in(&self.text(Path::new(root)));
        let folder = Path::new(root).parent().unwrap();
        let at = self.module(root, None, false, &words, folder);
        self.roots.insert(name.to_owned(), at);
    }

    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.iter().map(|module| &module.file[..]).collect()
    }

    fn text(&self, file: &Path) -> String {
        let path = self.base.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Takes in a module: the words of `file`, or those between its brackets there. Its children lie in `folder`.
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
        let (uses, code) = (Vec::new(), Vec::new());
        self.modules.push(Module { file: file.to_owned(), parent, test, children, items, uses, code });
        let mut i = 0;
        while i < words.len() {
            let start = i;
            let mut elsewhere = false;
            while words.get(i).is_some_and(|word| word.is("#")) {
                let end = after_brackets(words, i + 1 + usize::from(words[i + 1].is("!")));
                elsewhere |= words[i..end].get(2).is_some_and(|word| word.is("path"));
                i = end;
            }
            if i == words.len() {
                break;
            }
            let end = after_item(words, i).max(i + 1);
            // A file of another place is another crate's.
            if !elsewhere {
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
        let kind = kind_of(words);
        let Some(name) = words.get(kind + 1).map(|word| word.text.clone()) else { return };
        match &words[kind].text[..] {
            "mod" => {
                let child = self.child(at, &words[kind..], test, folder);
                self.modules[at].children.insert(name, child);
                return;
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                self.modules[at].items.insert(name, test);
            }
            "macro_rules" => {
                self.macros.insert(words[kind + 2].text.clone(), self.node(at, test));
            }
            _ => {}
        }
        let public = words[kind].is("use") && kind > 0;
        let mut i = 0;
        while i < words.len() {
            if words[i].is("use") {
                let end = (i..words.len()).find(|i| words[*i].is(";")).unwrap_or(words.len());
                let test = self.modules[at].test || words[i].test;
                for (path, name) in leaves(&words[i + 1..end]) {
                    self.modules[at].uses.push(Use { path, name, public, test });
                }
                i = end;
            }
            i += 1;
        }
    }

    /// A module that is declared by `mod name;` or `mod name { … }`.
    fn child(&mut self, parent: usize, words: &[Word], test: bool, folder: &Path) -> usize {
        let inside = folder.join(&words[1].text);
        if !words[2].is(";") {
            let file = self.modules[parent].file.clone();
            return self.module(&file, Some(parent), test, &words[3..words.len() - 1], &inside);
        }
        let alone = inside.with_extension("rs");
        let file = if self.base.join(&alone).exists() { alone } else { inside.join("mod.rs") };
        let mut words = words_in(&self.text(&file));
        words.iter_mut().for_each(|word| word.test |= test);
        let file = file.to_str().unwrap().replace('\\', "/");
        self.module(&file, Some(parent), test, &words, &inside)
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
        let own = module.items.get(name).map(|test| self.node(at, *test));
        let of_root = || self.macros.get(name).filter(|_| module.parent.is_none()).cloned();
        let mut meaning = Meaning { module: module.children.get(name).copied(), item: own.or_else(of_root) };
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

/// The place of the word that says what an item is: behind `pub(…)`, `async`, `unsafe` and the like.
fn kind_of(words: &[Word]) -> usize {
    let mut i = 0;
    if words[i].is("pub") {
        i += 1;
        if words.get(i).is_some_and(|word| word.is("(")) {
            i = after_brackets(words, i);
        }
    }
    while i + 1 < words.len() {
        let is_const_fn = words[i].is("const") && matches!(&words[i + 1].text[..], "fn" | "unsafe");
        if !is_const_fn && !matches!(&words[i].text[..], "async" | "unsafe" | "extern") {
            break;
        }
        i += 1;
    }
    i.min(words.len() - 1)
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
    // `::name` is another crate's, whatever is called so here.
    if tree.first().is_some_and(|word| word.is("::")) {
        return Vec::new();
    }
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
