//! Normal numbers by an integer-only inverse normal distribution function: the same bits on every machine.
//!
//! WGSL's log, sin and cos differ between adapters and compilers reassociate float polynomials, so the rule uses
//! only 32-bit integers and one exact scaling. For a word w: the sign is w & 1 and r = w >> 1; the leading zeros of r
//! choose the octave, the next 4 bits one of its 16 segments, the next 16 bits the position t in it. A quadratic
//! with table coefficients gives Q4.20:
//!
//!   q = c0 - ((c1 - (c2·t >> 16))·t >> 16),   |z| = q·2^-20 ≈ -Φ^-1((r + 1/2)·2^-32).
//!
//! q is below 2^23, so the result is exact in f32. The largest error against the exact quantile is 3.8e-6 over all
//! words but the two with r = 0 (which share the value of r = 1); the largest |z| is 6.17.

use super::philox::{Stream, words};

/// Rows of the table: octaves of 16 segments; 31 octaves are used, the last 16 rows are zero.
const ROWS: usize = 32 * 16;

/// Little-endian rows [c0, c1, c2, 0], least squares at the Chebyshev nodes of each segment.
static TABLE_BYTES: &[u8; ROWS * 16] = include_bytes!("normal_table.bin");

static TABLE: [[u32; 4]; ROWS] = parse(TABLE_BYTES);

const fn parse(bytes: &[u8; ROWS * 16]) -> [[u32; 4]; ROWS] {
    let mut table = [[0; 4]; ROWS];
    let mut word = 0;
    while word < ROWS * 4 {
        let at = word * 4;
        table[word / 4][word % 4] =
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        word += 1;
    }
    table
}

/// The bits of 8.0, whose last place is 2^-20: `EIGHT + q` are the bits of 8 + q·2^-20.
const EIGHT: u32 = 0x4100_0000;

static SHADER_TABLE: [[u32; 2]; ROWS] = {
    let mut rows = [[0; 2]; ROWS];
    let mut row = 16;
    while row < ROWS {
        let [c0, c1, c2, _] = TABLE[row - 16];
        rows[row] = [EIGHT + c0, c1 << 16 | c2];
        row += 1;
    }
    rows
};

/// The quadratics as a kernel binds them (`shaders/normal.wgsl`): 512 rows [bits of 8 + c0·2^-20, c1·2^16 + c2], of which
/// the first 16 are never read.
pub fn normal_table() -> &'static [[u32; 2]] {
    &SHADER_TABLE
}

/// The standard normal number of a random word; |z| ≤ 6.1665, never zero.
pub fn normal(word: u32) -> f32 {
    let r = word >> 1;
    // r has 31 bits, so at least one leading zero; r = 0 shares the octave of r = 1.
    let octave = r.leading_zeros().min(31);
    let fraction = r << octave;
    let [c0, c1, c2, _] = TABLE[((octave - 1) * 16 + ((fraction >> 27) & 15)) as usize];
    let t = (fraction >> 11) & 0xffff;
    let q = (c0 - (((c1 - ((c2 * t) >> 16)) * t) >> 16)) as i32;
    let signed = if word & 1 == 1 { -q } else { q };
    signed as f32 * (1.0 / 1_048_576.0)
}

/// `len` normal numbers of step or image `index`, elements in C, H, W order: element e is word e % 4 of block e / 4.
///
/// A sample of more than 2^34 elements would repeat itself.
pub fn fill_normal(seed: u64, index: u64, stream: Stream, len: usize) -> Vec<f32> {
    let blocks = (0..len.div_ceil(4)).map(|block| words(seed, block as u32, index, stream));
    blocks.flatten().take(len).map(normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTRE: [[f64; 8]; 2] = [
        [
            2509.0809287301227,
            33430.57558358813,
            67265.7709270087,
            45921.95393154987,
            13731.69376550946,
            1971.5909503065513,
            133.14166789178438,
            3.3871328727963665,
        ],
        [
            5226.495278852854,
            28729.085735721943,
            39307.89580009271,
            21213.794301586597,
            5394.196021424751,
            687.1870074920579,
            42.31333070160091,
            1.0,
        ],
    ];
    const TAIL: [[f64; 8]; 2] = [
        [
            0.0007745450142783414,
            0.022723844989269184,
            0.2417807251774506,
            1.2704582524523684,
            3.6478483247632045,
            5.769497221460691,
            4.630337846156546,
            1.4234371107496835,
        ],
        [
            1.0507500716444169e-09,
            0.0005475938084995345,
            0.015198666563616457,
            0.14810397642748008,
            0.6897673349851,
            1.6763848301838038,
            2.053191626637759,
            1.0,
        ],
    ];
    const FAR_TAIL: [[f64; 8]; 2] = [
        [
            2.0103343992922881e-07,
            2.7115555687434876e-05,
            0.0012426609473880784,
            0.026532189526576124,
            0.29656057182850487,
            1.7848265399172913,
            5.463784911164114,
            6.657904643501103,
        ],
        [
            2.0442631033899397e-15,
            1.421511758316446e-07,
            1.8463183175100548e-05,
            0.0007868691311456133,
            0.014875361290850615,
            0.1369298809227358,
            0.599832206555888,
            1.0,
        ],
    ];

    /// Φ^-1, relative error 1e-16 (Wichura, algorithm AS 241, Applied Statistics 37, 1988).
    fn quantile(p: f64) -> f64 {
        let horner = |c: [f64; 8], r: f64| c.iter().fold(0.0, |sum, c| sum * r + c);
        let q = p - 0.5;
        if q.abs() <= 0.425 {
            let r = 0.180625 - q * q;
            return q * horner(CENTRE[0], r) / horner(CENTRE[1], r);
        }
        let r = (-p.min(1.0 - p).ln()).sqrt();
        let size = if r <= 5.0 {
            horner(TAIL[0], r - 1.6) / horner(TAIL[1], r - 1.6)
        } else {
            horner(FAR_TAIL[0], r - 5.0) / horner(FAR_TAIL[1], r - 5.0)
        };
        size.copysign(q)
    }

    /// Every (row, position) at the first and the last r that maps to it: with a quantile that falls as r grows,
    /// no other word can err more. (On random words alone the largest error seen is about 3.3e-6.)
    #[test]
    fn close_to_the_exact_quantile_for_every_word() {
        let (mut largest, mut at) = (0.0, 0);
        for octave in 1..32 {
            for leading in 1u32 << 20..1 << 21 {
                for fraction in [leading << 11, (leading << 11) + 2047] {
                    let word = (fraction >> octave) << 1;
                    let exact = -quantile((f64::from(word >> 1) + 0.5) / 4_294_967_296.0);
                    let error = (f64::from(normal(word)) - exact).abs();
                    if error > largest {
                        (largest, at) = (error, word);
                    }
                    debug_assert_eq!(normal(word | 1), -normal(word));
                }
            }
        }
        assert!(largest < 3.8e-6, "error {largest:e} at word {at:#x}, allowed 3.8e-6");
    }

    /// r = 0 shares the row of r = 1, so these two words of 2^32 stop short of their quantile.
    #[test]
    fn the_last_words_stop_at_the_largest_number() {
        assert_eq!(normal(0), normal(2));
        assert_eq!(normal(1), -normal(0));
        let short = -quantile(0.5 / 4_294_967_296.0) - f64::from(normal(0));
        assert!((short - 0.1715).abs() < 1e-3, "{short}");
    }

    /// Made by the independent numpy version of the rule.
    #[test]
    fn golden_values() {
        for (word, bits) in [
            (0u32, 0x40c5_5364u32),
            (1, 0xc0c5_5364),
            (2, 0x40c5_5364),
            (3, 0xc0c5_5364),
            (4, 0x40c2_b92e),
            (5, 0xc0c2_b92e),
            (0xffff_ffff, 0xb580_0000),
            (0xffff_fffe, 0x3580_0000),
            (0x8000_0000, 0x3f2c_ab50),
            (0x7fff_ffff, 0xbf2c_ab60),
            (0x1234_5678, 0x3fe7_02a8),
            (0xdead_beef, 0xbe27_cc40),
            (0x9e37_79b9, 0xbeff_4d80),
            (0x0001_0000, 0x408a_65b6),
            (0x4000_0001, 0xbf93_3ea0),
            (0x0bad_f00d, 0xbfff_dae0),
        ] {
            assert_eq!(normal(word).to_bits(), bits, "word {word:#x} gives {}", normal(word));
        }
    }

    #[test]
    fn the_table_is_the_scripts() {
        let table = TABLE;
        assert_eq!(table[0], [707_253, 51_537, 798, 0]);
        assert_eq!(table[7 * 16 + 5], [2_934_909, 16_118, 332, 0]);
        assert_eq!(table[495], [6_384_947, 4_304, 52, 0]);
        assert!(table[496..].iter().all(|row| *row == [0; 4]));
        // No intermediate of the rule leaves 32 bits, at either end of any segment.
        for [c0, c1, c2, _] in &table[..496] {
            assert!(c1.checked_mul(0xffff).is_some() && c2.checked_mul(0xffff).is_some());
            let slope = c1 - ((c2 * 0xffff) >> 16);
            assert!(c0 > &((slope * 0xffff) >> 16), "row [{c0}, {c1}, {c2}] goes below zero at its end");
        }
    }

    /// The shader's arithmetic on its own table, in the same words: every row at every position.
    #[test]
    fn the_shaders_table_says_the_same() {
        for (row, [base, packed]) in normal_table().iter().enumerate().skip(16) {
            let [c0, c1, c2, _] = TABLE[row - 16];
            for t in 0..=0xffff {
                let slope = ((packed | 0xffff) - (packed & 0xffff) * t) >> 16;
                let z = f32::from_bits(base - ((slope * t) >> 16)) - 8.0;
                let q = c0 - (((c1 - ((c2 * t) >> 16)) * t) >> 16);
                assert_eq!(z, q as f32 * (1.0 / 1_048_576.0), "row {row}, t {t}");
            }
        }
    }

    #[test]
    fn moments_over_many_words() {
        let count = 1_000_000;
        let numbers = fill_normal(7, 0, Stream::StepNoise, count);
        let moment = |power| numbers.iter().map(|z| f64::from(*z).powi(power)).sum::<f64>() / count as f64;
        // Five standard errors: sqrt(1), sqrt(2), sqrt(15), sqrt(96), each over sqrt(count).
        let unit = 5.0 / (count as f64).sqrt();
        assert!(moment(1).abs() < unit, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 2f64.sqrt() * unit, "variance {}", moment(2));
        assert!(moment(3).abs() < 15f64.sqrt() * unit, "third moment {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 96f64.sqrt() * unit, "fourth moment {}", moment(4));
        assert!(numbers.iter().all(|z| z.abs() < 6.17));
    }

    /// Without sampling error: every 1024th word.
    #[test]
    fn variance_is_one() {
        let count = 1u32 << 22;
        let sum: f64 = (0..count).map(|i| f64::from(normal((i * 1024 + 512) & !1)).powi(2)).sum();
        let excess = sum / f64::from(count) - 1.0;
        assert!(excess.abs() < 2e-6, "variance - 1 = {excess:e}");
    }

    #[test]
    fn elements_come_four_to_a_block() {
        let all = fill_normal(3, 11, Stream::InitialNoise, 10);
        assert_eq!(all.len(), 10);
        assert_eq!(all[6], normal(words(3, 1, 11, Stream::InitialNoise)[2]));
        assert_eq!(all[..7], fill_normal(3, 11, Stream::InitialNoise, 7));
        assert!(fill_normal(3, 11, Stream::InitialNoise, 0).is_empty());
    }
}
