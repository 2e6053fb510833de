//! BERT's tokenizer: words in lower case without accents, each taken apart into the longest pieces that there are
//! (Wu et al. 2016).
//!
//! It follows `BertTokenizer` of transformers 5.24.0. A text is split at special words as they are written; then control
//! characters go, spaces of all kinds become one, Chinese characters stand by themselves, accents go (NFD without its
//! non-spacing marks) and every letter is lowered by itself, as far as the tokenizer's files say so; words end at spaces and at
//! punctuation, each sign of which is a word. Signs and marks that Unicode took in after version 7 are such here, and none there.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::added::{Added, Part, split};
use super::folder::read;
use super::tokens::Tokens;
use crate::error::{Error, Result, brief};

/// A longer word is unknown as a whole.
const LONGEST_WORD: usize = 100;
/// What stands before a piece that continues a word.
const CONTINUES: &str = "##";

/// Texts to tokens as BERT and its descendants were trained on them.
#[derive(Debug)]
pub struct WordPiece {
    pieces: HashMap<String, u32>,
    words: HashMap<u32, String>,
    special: Vec<Added>,
    begin: u32,
    end: u32,
    pad: u32,
    unknown: u32,
    how: How,
}

/// What is done with a text before it is taken apart.
#[derive(Clone, Copy, Debug)]
struct How {
    clean: bool,
    lower: bool,
    chinese: bool,
    accents: bool,
}

/// The parts of `tokenizer.json` that are read.
#[derive(Deserialize)]
struct Whole {
    normalizer: Option<Normalizer>,
    model: Model,
}

#[derive(Deserialize)]
struct Normalizer {
    clean_text: Option<bool>,
    handle_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    lowercase: Option<bool>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: serde_json::Value,
}

/// The parts of `tokenizer_config.json` that are read.
#[derive(Default, Deserialize)]
struct Settings {
    do_lower_case: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
}

impl WordPiece {
    /// Reads the tokenizer of a folder: `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] for files that are missing, damaged or of another kind of tokenizer, by name.
    pub fn open(folder: &Path) -> Result<WordPiece> {
        let path = folder.join("tokenizer.json");
        if path.is_file() {
            let Whole { normalizer, model } = read(&path)?;
            let bad = |what: String| Error::format(&path, what);
            if let Some(kind) = model.kind.filter(|kind| kind != "WordPiece") {
                return Err(bad(format!(
                    "is a tokenizer of the kind {}, where BERT's is expected",
                    brief(&kind)
                )));
            }
            let pieces = serde_json::from_value(model.vocab)
                .map_err(|error| bad(format!("has a vocabulary that is none: {error}")))?;
            let none = Normalizer {
                clean_text: None,
                handle_chinese_chars: None,
                strip_accents: None,
                lowercase: None,
            };
            let Normalizer { clean_text, handle_chinese_chars, strip_accents, lowercase } =
                normalizer.unwrap_or(none);
            let lower = lowercase.unwrap_or(true);
            let how = How {
                clean: clean_text.unwrap_or(true),
                lower,
                chinese: handle_chinese_chars.unwrap_or(true),
                accents: !strip_accents.unwrap_or(lower),
            };
            return WordPiece::new(&path, pieces, how);
        }
        let path = folder.join("vocab.txt");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let pieces = text.lines().zip(0..).map(|(piece, token)| (piece.to_owned(), token)).collect();
        let settings = folder.join("tokenizer_config.json");
        let settings: Settings = if settings.is_file() { read(&settings)? } else { Settings::default() };
        let lower = settings.do_lower_case.unwrap_or(true);
        let how = How {
            clean: true,
            lower,
            chinese: settings.tokenize_chinese_chars.unwrap_or(true),
            accents: !settings.strip_accents.unwrap_or(lower),
        };
        WordPiece::new(&path, pieces, how)
    }

    /// Whether a folder holds the files of such a tokenizer.
    pub fn is_in(folder: &Path) -> bool {
        folder.join("vocab.txt").is_file() || folder.join("tokenizer.json").is_file()
    }

    fn new(path: &Path, pieces: HashMap<String, u32>, how: How) -> Result<WordPiece> {
        let token = |word: &str| {
            let what = || format!("has no token `{word}`, which BERT's tokenizers have");
            pieces.get(word).copied().ok_or_else(|| Error::format(path, what()))
        };
        let [begin, end, pad, unknown] = [token("[CLS]")?, token("[SEP]")?, token("[PAD]")?, token("[UNK]")?];
        let special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"].into_iter().filter_map(|word| {
            Some(Added { text: word.into(), token: *pieces.get(word)?, normalised: false })
        });
        let special = special.collect();
        let words = pieces.iter().map(|(piece, token)| (*token, piece.clone())).collect();
        Ok(WordPiece { words, special, begin, end, pad, unknown, how, pieces })
    }

    /// One more than the highest number of a token.
    pub fn count(&self) -> usize {
        self.words.keys().max().map_or(0, |last| *last as usize + 1)
    }

    /// The token that stands for nothing.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The numbers of a text's tokens, without beginning, end and padding.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let special: Vec<&Added> = self.special.iter().collect();
        for part in split(text, &special) {
            match part {
                Part::Word(token, _) => ids.push(token),
                Part::Between(range) => {
                    let text = self.how.normalised(&text[range]);
                    for word in text.split(char::is_whitespace) {
                        let mut start = 0;
                        for (at, sign) in word.char_indices().filter(|(_, c)| is_punctuation(*c)) {
                            self.take_apart(&word[start..at], &mut ids);
                            start = at + sign.len_utf8();
                            self.take_apart(&word[at..start], &mut ids);
                        }
                        self.take_apart(&word[start..], &mut ids);
                    }
                }
            }
        }
        ids
    }

    /// The tokens of a text for a network of so many `places`, beginning and end among them, padded. What has no place is left
    /// out at the end.
    pub fn encode(&self, text: &str, places: usize) -> Tokens {
        let words = self.ids(text);
        let fit = words.len().min(places.saturating_sub(2));
        let left_out = (fit < words.len()).then(|| self.decode(&words[fit..]));
        let all = [self.begin].into_iter().chain(words[..fit].iter().copied()).chain([self.end]);
        let mut ids: Vec<u32> = all.take(places).collect();
        let used = ids.len();
        ids.resize(places, self.pad);
        Tokens { ids, used, left_out }
    }

    /// A text of tokens, for messages; beginning, end and padding left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        for id in ids.iter().filter(|id| ![self.begin, self.end, self.pad].contains(id)) {
            let Some(piece) = self.words.get(id) else { continue };
            match piece.strip_prefix(CONTINUES) {
                Some(rest) => text.push_str(rest),
                None if text.is_empty() => text.push_str(piece),
                None => text.extend([" ", piece]),
            }
        }
        text
    }

    /// The longest pieces of a word from its beginning on; a word of which some part is no piece is unknown.
    fn take_apart(&self, word: &str, ids: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let (known, mut rest) = (ids.len(), word);
        let short = word.chars().nth(LONGEST_WORD).is_none();
        let mut piece = String::new();
        while short && !rest.is_empty() {
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let found = ends.into_iter().find_map(|end| {
                piece.clear();
                piece.push_str(if rest.len() < word.len() { CONTINUES } else { "" });
                piece.push_str(&rest[..end]);
                self.pieces.get(&piece).map(|token| (*token, end))
            });
            let Some((token, end)) = found else { break };
            ids.push(token);
            rest = &rest[end..];
        }
        if !short || !rest.is_empty() {
            ids.truncate(known);
            ids.push(self.unknown);
        }
    }
}

impl How {
    fn normalised(self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                _ if self.clean && is_control(c) => {}
                _ if self.clean && c.is_whitespace() => clean.push(' '),
                _ if self.chinese && is_chinese(c) => clean.extend([' ', c, ' ']),
                _ => clean.push(c),
            }
        }
        if !self.accents {
            let is_mark = |c: &char| c.general_category() == GeneralCategory::NonspacingMark;
            clean = clean.nfd().filter(|c| !is_mark(c)).collect();
        }
        if self.lower { clean.chars().flat_map(char::to_lowercase).collect() } else { clean }
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

fn is_control(c: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse};
    let other = matches!(c.general_category(), Control | Format | PrivateUse);
    c == '\u{fffd}' || other && !matches!(c, '\t' | '\n' | '\r')
}

fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x3400..=0x4dbf
            | 0x4e00..=0x9fff
            | 0xf900..=0xfaff
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0x2f800..=0x2fa1f
    )
}

#[cfg(test)]
mod tests;
