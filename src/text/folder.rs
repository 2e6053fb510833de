//! A tokenizer's own files: `tokenizer.json`, or `vocab.json` and `merges.txt`, and what lies beside them about special words.
//!
//! What a file says goes before what is usual. Two things follow that are easily missed: where the pad token is `!`, as in the
//! folders of Stable Diffusion 2 and of SDXL's second encoder, `!` is a special word, so that one in a prompt becomes the padding's token; and special words
//! that are marked as normalised are found in any case of letters.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::added::Added;
use super::bpe::{Bpe, END, Merge, byte_letters};
use super::clip::ClipTokenizer;
use crate::error::{Error, Result, brief};

/// Tokens of the largest vocabulary that is read: a number beyond is a damaged file's.
const MOST_TOKENS: u32 = 1 << 21;

/// What every file of a tokenizer comes to.
struct Files {
    /// What errors name.
    path: PathBuf,
    vocabulary: HashMap<String, u32>,
    merges: Vec<[String; 2]>,
    added: Vec<Added>,
}

/// `tokenizer.json`.
#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Pair>,
    end_of_word_suffix: Option<String>,
}

/// A merge: two words in one text, or each by itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Joined(String),
    Apart([String; 2]),
}

#[derive(Deserialize)]
struct AddedToken {
    id: Option<u32>,
    content: String,
    #[serde(default)]
    normalized: bool,
}

/// A special word: a text, or a text with its settings.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Special {
    Plain(String),
    Set {
        content: String,
        #[serde(default)]
        normalized: bool,
    },
}

impl Special {
    fn text(&self) -> &str {
        match self {
            Special::Plain(text) | Special::Set { content: text, .. } => text,
        }
    }
}

/// The parts of `tokenizer_config.json` and of `special_tokens_map.json` that are read.
#[derive(Default, Deserialize)]
struct Settings {
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    unk_token: Option<Special>,
    pad_token: Option<Special>,
    added_tokens_decoder: Option<BTreeMap<String, AddedToken>>,
}

impl ClipTokenizer {
    /// Whether a folder holds a tokenizer's files.
    pub fn is_in(folder: &Path) -> bool {
        folder.join("tokenizer.json").is_file() || folder.join("vocab.json").is_file()
    }

    /// Reads the tokenizer of a folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] for files that are missing, damaged, of another kind of tokenizer, or that
    /// contradict each other, by name.
    pub fn open(folder: &Path) -> Result<ClipTokenizer> {
        let mut files = match folder.join("tokenizer.json").is_file() {
            true => whole(folder)?,
            false => apart(folder)?,
        };
        let settings = settings(folder, &mut files)?;
        let usual =
            |token: &Option<Special>, usual: &str| token.clone().unwrap_or(Special::Plain(usual.into()));
        let begin = usual(&settings.bos_token, "<|startoftext|>");
        let end = usual(&settings.eos_token, "<|endoftext|>");
        let unknown = usual(&settings.unk_token, end.text());
        let pad = usual(&settings.pad_token, end.text());
        let [begin, end, unknown, pad] = [("bos", begin), ("eos", end), ("unk", unknown), ("pad", pad)]
            .map(|(what, word)| files.special(what, &word));
        let (begin, end, pad) = (begin?, end?, pad?);
        let bpe = files.bpe(unknown?)?;
        // The longest words that are found in lower case are written so.
        for word in files.added.iter_mut().filter(|word| word.normalised) {
            word.text = word.text.chars().flat_map(char::to_lowercase).collect();
        }
        files.added.retain(|word| !word.text.is_empty());
        Ok(ClipTokenizer { bpe, added: files.added, begin, end, pad })
    }
}

impl Files {
    /// The token of a special word, which from then on is looked for before all else.
    fn special(&mut self, what: &str, word: &Special) -> Result<u32> {
        if let Some(known) = self.added.iter().find(|known| known.text == word.text()) {
            return Ok(known.token);
        }
        let token = *self.vocabulary.get(word.text()).ok_or_else(|| {
            let what = format!("has no token `{}`, which is its {what}_token", brief(word.text()));
            Error::format(&self.path, what)
        })?;
        let normalised = matches!(word, Special::Set { normalized: true, .. });
        self.added.push(Added { text: word.text().into(), token, normalised });
        Ok(token)
    }

    fn bpe(&self, unknown: u32) -> Result<Bpe> {
        let bad = |what: String| Error::format(&self.path, what);
        let mut bpe = Bpe::new(unknown);
        let letters = byte_letters();
        for (byte, letter) in letters.iter().enumerate() {
            let token = |end: &str| self.vocabulary.get(&format!("{letter}{end}")).copied();
            bpe.bytes[0][byte] = token("").unwrap_or(unknown);
            bpe.bytes[1][byte] = token(END).unwrap_or(unknown);
        }
        for (rank, [left, right]) in self.merges.iter().enumerate() {
            let token = |word: &str| {
                self.vocabulary.get(word).copied().ok_or_else(|| {
                    bad(format!(
                        "has a merge of `{}` and `{}`, but no token `{}`",
                        brief(left),
                        brief(right),
                        brief(word)
                    ))
                })
            };
            let made = token(&format!("{left}{right}"))?;
            let merge = Merge { rank: rank as u32, token: made };
            bpe.merges.insert((token(left)?, token(right)?), merge);
        }
        let bytes: HashMap<char, u8> = (0..=255).map(|byte: u8| (letters[usize::from(byte)], byte)).collect();
        let mut words: Vec<Option<&str>> = Vec::new();
        for (word, token) in &self.vocabulary {
            if *token >= MOST_TOKENS {
                return Err(bad(format!(
                    "gives `{}` the number {token}; so many tokens are not read",
                    brief(word)
                )));
            }
            words.resize(words.len().max(*token as usize + 1), None);
            words[*token as usize] = Some(word);
        }
        for word in words {
            let word = word.unwrap_or_default();
            let (letters, last) = word.strip_suffix(END).map_or((word, false), |letters| (letters, true));
            let mut spelled = Vec::with_capacity(letters.len());
            for letter in letters.chars() {
                match bytes.get(&letter) {
                    Some(byte) => spelled.push(*byte),
                    None => spelled.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
                }
            }
            bpe.spelled.push(&spelled, last);
        }
        Ok(bpe)
    }
}

fn whole(folder: &Path) -> Result<Files> {
    let path = folder.join("tokenizer.json");
    let Whole { added_tokens, model } = read(&path)?;
    let bad = |what: String| Error::format(&path, what);
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(bad(format!(
            "is a tokenizer of the kind {}, where CLIP's byte-pair encoding is expected",
            brief(kind)
        )));
    }
    if model.end_of_word_suffix.as_deref() != Some(END) {
        let what = match &model.end_of_word_suffix {
            Some(suffix) => format!("marks the ends of words with `{}`", brief(suffix)),
            None => "does not mark the ends of words".into(),
        };
        return Err(bad(format!("is no tokenizer of CLIP's: it {what}, where `{END}` is expected")));
    }
    let vocabulary: HashMap<String, u32> = serde_json::from_value(model.vocab)
        .map_err(|error| bad(format!("has a vocabulary that is none: {error}")))?;
    let pair = |pair: Pair| match pair {
        Pair::Apart(pair) => Ok(pair),
        Pair::Joined(text) => {
            two(&text).ok_or_else(|| bad(format!("has the merge `{}`, which is no pair", brief(&text))))
        }
    };
    let merges = model.merges.into_iter().map(pair).collect::<Result<_>>()?;
    let word = |word: AddedToken| {
        let token = word
            .id
            .ok_or_else(|| bad(format!("gives the added word `{}` no number", brief(&word.content))))?;
        Ok(Added { text: word.content, token, normalised: word.normalized })
    };
    let added = added_tokens.into_iter().map(word).collect::<Result<_>>()?;
    Ok(Files { path, vocabulary, merges, added })
}

fn apart(folder: &Path) -> Result<Files> {
    let (path, merged) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let vocabulary = read(&path)?;
    let text = std::fs::read_to_string(&merged).map_err(Error::io(&merged))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty());
    let pair = |(i, line): (usize, &str)| {
        two(line).ok_or_else(|| {
            Error::format(&merged, format!("has `{}` in line {}, which is no pair", brief(line), i + 1))
        })
    };
    let merges = lines.map(pair).collect::<Result<_>>()?;
    Ok(Files { path, vocabulary, merges, added: Vec::new() })
}

fn two(text: &str) -> Option<[String; 2]> {
    let (left, right) = text.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then(|| [left.into(), right.into()])
}

/// What the files beside say of special words; words that were added to the vocabulary come to those that are looked for.
fn settings(folder: &Path, files: &mut Files) -> Result<Settings> {
    let path = folder.join("tokenizer_config.json");
    let mut settings: Settings = if path.is_file() { read(&path)? } else { Settings::default() };
    let known = |files: &Files, text: &str| files.added.iter().any(|word| word.text == text);
    if let Some(decoder) = settings.added_tokens_decoder.take() {
        for (token, word) in decoder {
            let token = token.parse().map_err(|_| {
                Error::format(
                    &path,
                    format!("gives an added word the number `{}`, which is none", brief(&token)),
                )
            })?;
            if !known(files, &word.content) {
                files.added.push(Added { text: word.content, token, normalised: word.normalized });
            }
        }
        return Ok(settings);
    }
    // Before there was such a list, these two files went before the settings.
    let path = folder.join("special_tokens_map.json");
    if path.is_file() {
        let map: Settings = read(&path)?;
        settings = Settings {
            bos_token: map.bos_token.or(settings.bos_token),
            eos_token: map.eos_token.or(settings.eos_token),
            unk_token: map.unk_token.or(settings.unk_token),
            pad_token: map.pad_token.or(settings.pad_token),
            added_tokens_decoder: None,
        };
    }
    let path = folder.join("added_tokens.json");
    if path.is_file() {
        let words: BTreeMap<String, u32> = read(&path)?;
        for (text, token) in words {
            let special =
                [&settings.bos_token, &settings.eos_token, &settings.unk_token, &settings.pad_token];
            let is_special = special.into_iter().flatten().any(|word| word.text() == text);
            if !is_special && !known(files, &text) {
                files.added.push(Added { text, token, normalised: true });
            }
        }
    }
    Ok(settings)
}

/// A JSON file of a tokenizer's.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))
}
