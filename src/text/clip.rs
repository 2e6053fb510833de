//! CLIP's tokenizer: words in lower case, taken apart by byte-pair encoding.
//!
//! It follows `CLIPTokenizer` of transformers 5.24.0 (which has the fast one alone). A text is split at the words that are tokens
//! themselves (`<|startoftext|>`, `<|endoftext|>`, as they are written), normalised (composed characters, NFC; every letter in
//! lower case by itself, so that a last sigma is σ), and split into `'s 't 're 've 'm 'll 'd`, runs of letters, single digits
//! and runs of what is neither letter, digit nor space. Spaces only separate.
//!
//! Where others differ: OpenAI's and OpenCLIP's own tokenizers repair a text by ftfy first, which turns HTML's entities (`&amp;`),
//! curly quotation marks, ligatures (`ﬁ`), letters of full width and control characters into others; they lower whole words
//! (`ΣΑΣ` ends in ς); and OpenCLIP reads special words as plain text. The slow tokenizer of transformers 4 lowered `<|ENDOFTEXT|>`
//! to the special word, which here is plain text in any other than lower case. Letters that Unicode took in after version 16
//! are letters here, and none there.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::added::{Added, Part, split};
use super::bpe::Bpe;
use super::tokens::Tokens;

/// Texts to tokens as CLIP's text encoders were trained on them.
#[derive(Debug)]
pub struct ClipTokenizer {
    pub(super) bpe: Bpe,
    pub(super) added: Vec<Added>,
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) pad: u32,
}

/// A text as it is read, and its tokens with the place where each ends in it.
struct Read {
    text: String,
    tokens: Vec<(u32, usize)>,
}

impl ClipTokenizer {
    /// The token that every sequence begins with.
    pub fn begin(&self) -> u32 {
        self.begin
    }

    /// The token that every sequence ends with.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The token that a tokenizer's own files pad with; those of a network may have been trained with another.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// One more than the highest number of a token.
    pub fn count(&self) -> usize {
        let added = self.added.iter().map(|word| word.token as usize + 1).max().unwrap_or(0);
        self.bpe.spelled.len().max(added)
    }

    /// The numbers of a text's tokens, without beginning, end and padding.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        self.read(text).tokens.into_iter().map(|(token, _)| token).collect()
    }

    /// The tokens of a text for a network of so many `places`, beginning and end among them, padded with `pad`. What has no
    /// place is left out at the end.
    pub fn encode(&self, text: &str, places: usize, pad: u32) -> Tokens {
        let Read { text, tokens } = self.read(text);
        let fit = tokens.len().min(places.saturating_sub(2));
        let left_out = (fit < tokens.len()).then(|| {
            let from = fit.checked_sub(1).map_or(0, |last| tokens[last].1);
            // A token may end within a character.
            let from = (0..=from).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text[from..].trim().to_owned()
        });
        let words = tokens[..fit].iter().map(|(token, _)| *token);
        let mut ids: Vec<u32> =
            [self.begin].into_iter().chain(words).chain([self.end]).take(places).collect();
        let used = ids.len();
        ids.resize(places, pad);
        Tokens { ids, used, left_out }
    }

    /// A text of tokens, for messages: words in lower case with a space behind each, beginning and end left out. Bytes that are
    /// no text become `�`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for id in ids.iter().filter(|id| ![self.begin, self.end].contains(id)) {
            if let Some(word) = self.added.iter().find(|word| word.token == *id) {
                bytes.extend_from_slice(word.text.as_bytes());
                bytes.push(b' ');
            } else if let Some((spelled, last)) = self.bpe.spelled.of(*id) {
                bytes.extend_from_slice(spelled);
                bytes.extend(last.then_some(b' '));
            }
        }
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    fn read(&self, text: &str) -> Read {
        let (normalised, written): (Vec<&Added>, Vec<&Added>) =
            self.added.iter().partition(|word| word.normalised);
        let mut read = Read { text: String::with_capacity(text.len()), tokens: Vec::new() };
        for part in split(text, &written) {
            match part {
                Part::Word(token, range) => read.word(token, &text[range]),
                Part::Between(range) => {
                    let lower: String = text[range].nfc().flat_map(char::to_lowercase).collect();
                    for part in split(&lower, &normalised) {
                        match part {
                            Part::Word(token, range) => read.word(token, &lower[range]),
                            Part::Between(range) => self.words(&lower[range], &mut read),
                        }
                    }
                }
            }
        }
        read
    }

    /// Reads a normalised text without special words.
    fn words(&self, text: &str, read: &mut Read) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = word_length(rest, first);
            let (word, behind) = rest.split_at(length);
            rest = behind;
            if !first.is_whitespace() {
                let mut end = read.text.len();
                for piece in self.bpe.pieces(word.as_bytes()) {
                    end += piece.bytes;
                    read.tokens.push((piece.token, end));
                }
            }
            read.text.push_str(word);
        }
    }
}

impl Read {
    fn word(&mut self, token: u32, text: &str) {
        self.text.push_str(text);
        self.tokens.push((token, self.text.len()));
    }
}

/// What is split off before all else.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Space,
    Other,
}

fn class(c: char) -> Class {
    match c.general_category_group() {
        _ if c.is_whitespace() => Class::Space,
        GeneralCategoryGroup::Letter => Class::Letter,
        GeneralCategoryGroup::Number => Class::Digit,
        _ => Class::Other,
    }
}

/// The bytes of the word, or of the space, that `text` begins with; `first` is its first character.
fn word_length(text: &str, first: char) -> usize {
    if let Some(contraction) = CONTRACTIONS.into_iter().find(|short| text.starts_with(short)) {
        return contraction.len();
    }
    match class(first) {
        Class::Digit => first.len_utf8(),
        of => text.find(|c| class(c) != of).unwrap_or(text.len()),
    }
}

#[cfg(test)]
mod tests;
