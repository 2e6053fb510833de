//! Rust text as words: names and punctuation, without comments, strings and numbers' insides. Enough to follow paths.

/// A word, and whether it stands in code that only tests are built of.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub test: bool,
}

impl Word {
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The words of a file; `::` is one.
pub fn words(text: &str) -> Vec<Word> {
    let text: Vec<char> = text.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let mut i = 0;
    while i < text.len() {
        let start = i;
        match at(i) {
            c if c.is_whitespace() => i += 1,
            '/' if at(i + 1) == '/' => i = after_line(&text, i),
            '/' if at(i + 1) == '*' => i = after_comment(&text, i),
            '"' => i = after_string(&text, i),
            '\'' => i = after_quote(&text, i),
            c if c.is_alphanumeric() || c == '_' => {
                i = after_name(&text, i);
                let name: String = text[start..i].iter().collect();
                match at(i) {
                    '"' if name.ends_with('r') => i = after_raw(&text, i),
                    '#' if matches!(&name[..], "r" | "br" | "cr") => i = after_raw(&text, i),
                    // The prefix of a string, which the next turn skips.
                    '"' | '\'' if matches!(&name[..], "b" | "c") => {}
                    _ => found.push(name),
                }
            }
            ':' if at(i + 1) == ':' => {
                found.push("::".to_owned());
                i += 2;
            }
            c => {
                found.push(c.to_string());
                i += 1;
            }
        }
    }
    let mut found: Vec<Word> = found.into_iter().map(|text| Word { text, test: false }).collect();
    mark_tests(&mut found);
    found
}

fn after_line(text: &[char], start: usize) -> usize {
    text[start..].iter().position(|c| *c == '\n').map_or(text.len(), |length| start + length)
}

fn after_comment(text: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < text.len() {
        match text[i..text.len().min(i + 2)] {
            ['/', '*'] => (depth, i) = (depth + 1, i + 2),
            ['*', '/'] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn after_string(text: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// From the first `#` or `"` of a raw string.
fn after_raw(text: &[char], start: usize) -> usize {
    let hashes = text[start..].iter().take_while(|c| **c == '#').count();
    let mut i = start + hashes + 1;
    let ends = |i: usize| text[i] == '"' && text[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    while i < text.len() && !ends(i) {
        i += 1;
    }
    i + 1 + hashes
}

/// A character, or the name of a lifetime.
fn after_quote(text: &[char], start: usize) -> usize {
    match text[start + 1..] {
        ['\\', _, ..] => {
            text[start + 3..].iter().position(|c| *c == '\'').map_or(text.len(), |i| start + i + 4)
        }
        [_, '\'', ..] => start + 3,
        _ => after_name(text, start + 1),
    }
}

fn after_name(text: &[char], start: usize) -> usize {
    let length = text[start..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    start + length
}

/// The place behind the bracket that closes the one at `open`.
pub fn after_brackets(words: &[Word], open: usize) -> usize {
    let (mut depth, mut i) = (0, open);
    while i < words.len() {
        match &words[i].text[..] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        i += 1;
        if depth == 0 {
            break;
        }
    }
    i
}

/// The place behind the item, statement or field that begins at `start`, behind its attributes.
pub fn after_item(words: &[Word], start: usize) -> usize {
    let mut kinds = words[start..].iter().filter(|word| word.is_name());
    let kind =
        kinds.find(|word| !matches!(&word.text[..], "pub" | "unsafe" | "async" | "super" | "in" | "self"));
    let kind = kind.map_or("", |word| &word.text);
    let is_const_fn = words[start..].iter().take(6).any(|word| word.is("fn"));
    let to_semicolon = matches!(kind, "let" | "const" | "static" | "use" | "type") && !is_const_fn;
    let is_item = matches!(kind, "fn" | "const" | "extern" | "impl" | "struct" | "enum" | "trait" | "mod");
    let mut i = start;
    while i < words.len() {
        match &words[i].text[..] {
            ";" => return i + 1,
            "," if !is_item && !to_semicolon => return i + 1,
            "}" => return i,
            "{" if !to_semicolon => return after_brackets(words, i),
            "(" | "[" | "{" => i = after_brackets(words, i),
            _ => i += 1,
        }
    }
    i
}

/// Whether the attribute whose `#` is at `at` asks for a build of tests.
fn asks_for_tests(words: &[Word], at: usize) -> bool {
    let inside = &words[at..after_brackets(words, at + 1)];
    let cfg = inside.iter().any(|word| word.is("cfg")) && !inside.iter().any(|word| word.is("not"));
    (cfg || inside.len() == 4) && inside.iter().any(|word| word.is("test"))
}

fn mark_tests(words: &mut [Word]) {
    let attributes =
        (0..words.len()).filter(|i| words[*i].is("#") && words.get(i + 1).is_some_and(|w| w.is("[")));
    for at in attributes.collect::<Vec<_>>() {
        if !asks_for_tests(words, at) {
            continue;
        }
        let mut start = at;
        while words.get(start).is_some_and(|word| word.is("#")) {
            start = after_brackets(words, start + 1);
        }
        let end = after_item(words, start);
        words[at..end].iter_mut().for_each(|word| word.test = true);
    }
}
