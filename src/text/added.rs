//! Words that are tokens as they stand: they are looked for before a text is taken apart.

use std::ops::Range;

/// A word with a token of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub text: String,
    pub token: u32,
    /// Whether it is looked for in the normalised text, and so in any case of letters; else in the text as it was written.
    pub normalised: bool,
}

/// A part of a text: a word that was looked for, or what stands between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Word(u32, Range<usize>),
    Between(Range<usize>),
}

/// Takes a text apart at `words`: the leftmost goes first, of several that begin at one place the longest. None is empty.
pub(super) fn split(text: &str, words: &[&Added]) -> Vec<Part> {
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    let firsts: Vec<u8> = words.iter().filter_map(|word| word.text.bytes().next()).collect();
    while at < text.len() {
        // Only where a word can begin is one compared; a word's first byte begins a character.
        let found = firsts.contains(&text.as_bytes()[at]).then(|| &text.as_bytes()[at..]).and_then(|rest| {
            let fits = words.iter().filter(|word| rest.starts_with(word.text.as_bytes()));
            fits.max_by_key(|word| word.text.len())
        });
        match found {
            Some(word) => {
                if from < at {
                    parts.push(Part::Between(from..at));
                }
                from = at + word.text.len();
                parts.push(Part::Word(word.token, at..from));
                at = from;
            }
            None => at += 1,
        }
    }
    if from < text.len() {
        parts.push(Part::Between(from..text.len()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_longest_word_goes_first() {
        let word = |text: &str, token| Added { text: text.into(), token, normalised: false };
        let words = [word("<a>", 1), word("<a><b>", 2), word("é", 3)];
        let words: Vec<&Added> = words.iter().collect();
        let parts = split("x<a><a><b>éé y", &words);
        let wanted = [
            Part::Between(0..1),
            Part::Word(1, 1..4),
            Part::Word(2, 4..10),
            Part::Word(3, 10..12),
            Part::Word(3, 12..14),
            Part::Between(14..16),
        ];
        assert_eq!(parts, wanted);
        assert!(split("", &words).is_empty());
        assert_eq!(split("<a", &words), [Part::Between(0..2)]);
    }
}
