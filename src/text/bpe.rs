//! Byte-pair encoding (Sennrich et al. 2016) of the bytes of words.
//!
//! A word begins as one token a byte, the last of which is another token than the same byte further in front. Of all
//! neighbours the pair that was merged first in training becomes one token, the leftmost where there are several of it, until
//! no pair is left that was ever merged.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// What stands at the end of a word's last token in files.
pub(super) const END: &str = "</w>";

/// A vocabulary and its merges.
#[derive(Debug)]
pub(super) struct Bpe {
    /// The token of each byte within a word, and of each byte at its end.
    pub bytes: Box<[[u32; 256]; 2]>,
    /// What a pair of tokens becomes, and how early.
    pub merges: HashMap<(u32, u32), Merge>,
    /// What each token stands for; nothing of a number that is none.
    pub spelled: Spelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub rank: u32,
    pub token: u32,
}

/// A token of a word and how many of its bytes it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub token: u32,
    pub bytes: usize,
}

/// A piece among others. One that was merged into its left neighbour has no bytes left.
#[derive(Clone, Copy)]
struct Link {
    piece: Piece,
    before: usize,
    behind: usize,
}

/// No neighbour.
const NONE: usize = usize::MAX;

impl Bpe {
    /// A vocabulary of nothing, whose bytes are all `unknown`.
    pub fn new(unknown: u32) -> Bpe {
        let bytes = Box::new([[unknown; 256]; 2]);
        Bpe { bytes, merges: HashMap::new(), spelled: Spelling::default() }
    }

    /// The tokens of a word, which has no space in it.
    pub fn pieces(&self, word: &[u8]) -> Vec<Piece> {
        let Some(last) = word.len().checked_sub(1) else { return Vec::new() };
        let link = |(i, byte): (usize, &u8)| Link {
            piece: Piece { token: self.bytes[usize::from(i == last)][usize::from(*byte)], bytes: 1 },
            before: i.checked_sub(1).unwrap_or(NONE),
            behind: if i == last { NONE } else { i + 1 },
        };
        let mut links: Vec<Link> = word.iter().enumerate().map(link).collect();
        let mut waiting = BinaryHeap::new();
        for i in 0..last {
            self.offer(&links, i, &mut waiting);
        }
        while let Some(Reverse((_, left, token))) = waiting.pop() {
            // Since it was offered, either of the two may have become part of another.
            if self.merge(&links, left).is_none_or(|merge| merge.token != token) {
                continue;
            }
            let right = links[left].behind;
            let Link { piece: Piece { bytes, .. }, behind, .. } = links[right];
            links[right].piece.bytes = 0;
            links[left].piece = Piece { token, bytes: links[left].piece.bytes + bytes };
            links[left].behind = behind;
            if behind != NONE {
                links[behind].before = left;
            }
            self.offer(&links, left, &mut waiting);
            if links[left].before != NONE {
                self.offer(&links, links[left].before, &mut waiting);
            }
        }
        links.into_iter().map(|link| link.piece).filter(|piece| piece.bytes > 0).collect()
    }

    /// What the piece at `left` and the one behind it become.
    fn merge(&self, links: &[Link], left: usize) -> Option<Merge> {
        let link = links[left];
        if link.piece.bytes == 0 || link.behind == NONE {
            return None;
        }
        self.merges.get(&(link.piece.token, links[link.behind].piece.token)).copied()
    }

    fn offer(&self, links: &[Link], left: usize, waiting: &mut BinaryHeap<Reverse<(u32, usize, u32)>>) {
        if let Some(Merge { rank, token }) = self.merge(links, left) {
            waiting.push(Reverse((rank, left, token)));
        }
    }
}

/// The bytes of every token, and whether a word ends with it.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    bytes: Vec<u8>,
    /// Where each token's bytes end; the next one's begin there.
    ends: Vec<usize>,
    last: Vec<bool>,
}

impl Spelling {
    /// Takes in the next token.
    pub fn push(&mut self, bytes: &[u8], last: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.last.push(last);
    }

    /// Takes in the next token, which two before it make.
    pub fn push_pair(&mut self, left: u32, right: u32) {
        for part in [left, right] {
            let (from, to) = self.range(part).expect("a merge is of tokens before it");
            self.bytes.extend_from_within(from..to);
        }
        self.ends.push(self.bytes.len());
        self.last.push(self.last[right as usize]);
    }

    /// The tokens that were taken in.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A token's bytes, and whether a word ends with it.
    pub fn of(&self, token: u32) -> Option<(&[u8], bool)> {
        let (from, to) = self.range(token)?;
        Some((&self.bytes[from..to], self.last[token as usize]))
    }

    fn range(&self, token: u32) -> Option<(usize, usize)> {
        let token = token as usize;
        let to = *self.ends.get(token)?;
        Some((token.checked_sub(1).map_or(0, |before| self.ends[before]), to))
    }
}

/// The bytes in the order of CLIP's vocabulary, which is GPT-2's: those that Latin-1 can print go first.
pub(super) fn byte_order() -> [u8; 256] {
    let printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut order = [0; 256];
    let all = (0..=255).filter(printed).chain((0..=255).filter(|byte| !printed(byte)));
    order.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
    order
}

/// The letter that stands for each byte in files: itself where Latin-1 can print it, else one from U+0100 on.
pub(super) fn byte_letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut others = 0x100u32;
    for byte in byte_order() {
        let printed = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if printed { u32::from(byte) } else { others };
        others += u32::from(!printed);
        letters[usize::from(byte)] = char::from_u32(code).expect("codes below U+0200 are letters");
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens 0 to 255 are bytes, 256 to 511 bytes at the end, then the merges.
    fn small(merges: &[(u32, u32)]) -> Bpe {
        let mut bpe = Bpe::new(0);
        for byte in 0..=255u8 {
            bpe.bytes[0][usize::from(byte)] = u32::from(byte);
            bpe.bytes[1][usize::from(byte)] = 256 + u32::from(byte);
        }
        for (rank, pair) in merges.iter().enumerate() {
            bpe.merges.insert(*pair, Merge { rank: rank as u32, token: 512 + rank as u32 });
        }
        bpe
    }

    /// The definition: of all pairs that stand there the one of the lowest rank, leftmost, again and again.
    fn slowly(bpe: &Bpe, word: &[u8]) -> Vec<Piece> {
        let last = word.len() - 1;
        let token = |(i, byte): (usize, &u8)| Piece {
            token: bpe.bytes[usize::from(i == last)][usize::from(*byte)],
            bytes: 1,
        };
        let mut pieces: Vec<Piece> = word.iter().enumerate().map(token).collect();
        loop {
            let pair = |i: usize| bpe.merges.get(&(pieces[i].token, pieces[i + 1].token));
            let best = (0..pieces.len() - 1).filter_map(|i| Some((pair(i)?.rank, i))).min();
            let Some((_, i)) = best else { return pieces };
            let token = pair(i).unwrap().token;
            let bytes = pieces[i].bytes + pieces[i + 1].bytes;
            pieces.splice(i..i + 2, [Piece { token, bytes }]);
        }
    }

    #[test]
    fn pieces_are_those_of_the_definition() {
        let (a, b) = (u32::from(b'a'), u32::from(b'b'));
        let bpe = small(&[(a, a), (a, b), (512, 512), (b, 512), (514, 256 + a), (b, 256 + b), (513, 513)]);
        for number in 0..1 << 12 {
            for length in [1, 2, 5, 12] {
                let word: Vec<u8> =
                    (0..length).map(|i| if number >> i & 1 == 0 { b'a' } else { b'b' }).collect();
                assert_eq!(bpe.pieces(&word), slowly(&bpe, &word), "{word:?}");
            }
        }
        assert!(bpe.pieces(b"").is_empty());
    }

    #[test]
    fn a_long_word_takes_no_square_of_its_length() {
        let a = u32::from(b'a');
        let bpe = small(&[(a, a), (512, 512)]);
        let pieces = bpe.pieces(&vec![b'a'; 1 << 20]);
        assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<usize>(), 1 << 20);
    }

    #[test]
    fn letters_stand_for_bytes_as_in_gpt_2() {
        let letters = byte_letters();
        assert_eq!((letters[0], letters[b' ' as usize], letters[b'a' as usize]), ('Ā', 'Ġ', 'a'));
        assert_eq!((letters[0xad], letters[0xff]), ('Ń', 'ÿ'));
        assert_eq!((byte_order()[0], byte_order()[255]), (b'!', 0xad));
    }
}
