//! Philox 4x32-10: four random words from a counter and a key, without any state.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// What a random number is for. Two streams never share a counter, so their numbers are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Stream {
    /// The latent that a sampler starts from.
    InitialNoise = 0,
    /// The noise of a sampler's step; the index is the step.
    StepNoise = 1,
    /// The noise that training adds to an image; the index is the image's.
    TrainingNoise = 2,
    /// The log signal-to-noise ratio or discrete time of a training image.
    Time = 3,
    /// Whether a training image loses its label.
    LabelDrop = 4,
    /// Dropout; see [`dropout_words`].
    Dropout = 5,
    /// Flips and crops of a training image.
    FlipCrop = 6,
    /// The order of a data set.
    Shuffle = 7,
    /// Initial parameters; the index is the tensor's.
    Init = 8,
    /// The noise on a sample's condition; the index is the sampler's step.
    ConditionNoise = 9,
    /// The guidance weight that a distilled network is trained at; the index is the image's.
    Guidance = 10,
}

/// Philox 4x32-10 of `counter` under `key`.
///
/// A round maps (c0, c1, c2, c3) to (hi(M1·c2) ^ c1 ^ k0, lo(M1·c2), hi(M0·c0) ^ c3 ^ k1, lo(M0·c0)); then the key
/// moves by the Weyl constants.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (high0, low0) = multiply(MULTIPLIERS[0], c0);
        let (high1, low1) = multiply(MULTIPLIERS[1], c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The high and the low half of a·b.
fn multiply(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// Four words of `stream`: elements `4·element_block` .. `4·element_block + 3` of step or image `index`.
///
/// The key is (low, high) of `seed`: a sample's own when sampling, the run's when training. The counter is
/// (`element_block`, low of `index`, high of `index`, `stream`).
pub fn words(seed: u64, element_block: u32, index: u64, stream: Stream) -> [u32; 4] {
    keyed(seed, element_block, index, stream as u32)
}

/// As [`words`] for [`Stream::Dropout`], with the layer's number in the counter's last word above its low byte:
/// `5 | layer << 8`, so `layer` is below 2^24 (higher bits are lost).
pub fn dropout_words(seed: u64, element_block: u32, index: u64, layer: u32) -> [u32; 4] {
    keyed(seed, element_block, index, Stream::Dropout as u32 | (layer << 8))
}

fn keyed(seed: u64, element_block: u32, index: u64, last: u32) -> [u32; 4] {
    philox4x32_10(
        [element_block, index as u32, (index >> 32) as u32, last],
        [seed as u32, (seed >> 32) as u32],
    )
}

/// A uniform number in [0, 1) on a grid of 2^-24, exact in f32: (word >> 8)·2^-24.
pub fn uniform(word: u32) -> f64 {
    f64::from(word >> 8) * 2f64.powi(-24)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter, key), expected, "counter {counter:x?} key {key:x?}");
        }
    }

    #[test]
    fn the_counter_is_laid_out_as_stated() {
        let seed = 0x0123_4567_89ab_cdef;
        let index = 0xfeed_f00d_dead_beef;
        let expected = philox4x32_10([9, 0xdead_beef, 0xfeed_f00d, 6], [0x89ab_cdef, 0x0123_4567]);
        assert_eq!(words(seed, 9, index, Stream::FlipCrop), expected);
        assert_eq!(dropout_words(seed, 9, index, 0), words(seed, 9, index, Stream::Dropout));
        assert_ne!(dropout_words(seed, 9, index, 1), words(seed, 9, index, Stream::Dropout));
    }

    #[test]
    fn uniforms_are_below_one_and_exact_in_f32() {
        assert_eq!(uniform(0), 0.0);
        assert_eq!(uniform(0x8000_0000), 0.5);
        let largest = uniform(u32::MAX);
        assert_eq!(largest, 1.0 - 2f64.powi(-24));
        assert_eq!(f64::from(largest as f32), largest);
    }
}
