//! CLIP's own vocabulary, which this library carries: it follows from the merges, as `assets/clip_merges.py` has it.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use super::added::Added;
use super::bpe::{Bpe, Merge, byte_order};
use super::clip::ClipTokenizer;

/// Pairs of tokens in four planes: left low, left high, right low, right high.
const MERGES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/clip-merges.zlib"));

/// How many.
const COUNT: usize = 48_894;

/// Tokens that are bytes, and bytes at the end of a word.
const SYMBOLS: u32 = 512;

const BEGIN: u32 = SYMBOLS + COUNT as u32;
const END: u32 = BEGIN + 1;

impl ClipTokenizer {
    /// The tokenizer of OpenAI's CLIP and of OpenCLIP, by which every Stable Diffusion was trained: 49,408 tokens. It is decoded
    /// when it is first asked for.
    pub fn shipped() -> Arc<ClipTokenizer> {
        static SHIPPED: OnceLock<Arc<ClipTokenizer>> = OnceLock::new();
        Arc::clone(SHIPPED.get_or_init(|| Arc::new(decoded())))
    }
}

fn decoded() -> ClipTokenizer {
    let mut planes = Vec::with_capacity(4 * COUNT);
    flate2::read::ZlibDecoder::new(MERGES).read_to_end(&mut planes).expect("the library's own file is whole");
    let number = |plane: usize, i: usize| u32::from(planes[plane * COUNT + i]);
    let token = |plane: usize, i: usize| number(plane, i) | number(plane + 1, i) << 8;

    let mut bpe = Bpe::new(END);
    for at_end in [false, true] {
        for byte in byte_order() {
            bpe.bytes[usize::from(at_end)][usize::from(byte)] = bpe.spelled.len() as u32;
            bpe.spelled.push(&[byte], at_end);
        }
    }
    bpe.merges.reserve(COUNT);
    for i in 0..COUNT {
        let (left, right) = (token(0, i), token(2, i));
        bpe.merges.insert((left, right), Merge { rank: i as u32, token: SYMBOLS + i as u32 });
        bpe.spelled.push_pair(left, right);
    }
    let special = |text: &str, token| Added { text: text.into(), token, normalised: false };
    ClipTokenizer {
        bpe,
        added: vec![special("<|startoftext|>", BEGIN), special("<|endoftext|>", END)],
        begin: BEGIN,
        end: END,
        pad: END,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_clips() {
        let clip = ClipTokenizer::shipped();
        assert_eq!((clip.begin(), clip.end(), clip.pad(), clip.count()), (49406, 49407, 49407, 49408));
        // The first and the last merge, and what candle and others pad with.
        assert_eq!(clip.bpe.spelled.of(512), Some((&b"in"[..], false)));
        assert_eq!(clip.bpe.spelled.of(49405), Some((&b"jekyll"[..], true)));
        assert_eq!(clip.bpe.spelled.of(0), Some((&b"!"[..], false)));
        assert_eq!(clip.bpe.merges.len(), COUNT);
    }
}
