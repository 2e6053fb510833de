//! What families of models want of a text encoder.

use crate::error::{Error, Result};
use crate::nn::{ClipTextConfig, Given};

/// Whose text encoder it is. From this follow the states that are given, the pooled vector and, where no tokenizer's files say
/// it, the padding.
///
/// | family | states | pooled | padding |
/// |---|---|---|---|
/// | `Sd1` | last layer, final norm | - | the end token |
/// | `Sd2` | layer 23 of 24, final norm | - | token 0 |
/// | `SdxlFirst` (CLIP-L) | last but one, no norm | - | the end token |
/// | `SdxlSecond` (OpenCLIP-G; the refiner's only one) | last but one, no norm | last layer, norm, projection | token 0 |
/// | `Alone` | last layer, final norm | where there is a projection | its tokenizer's |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFamily {
    /// Stable Diffusion 1.
    Sd1,
    /// Stable Diffusion 2.
    Sd2,
    /// The first of SDXL's two.
    SdxlFirst,
    /// The second of SDXL's two, or the refiner's.
    SdxlSecond,
    /// An encoder of no model.
    Alone,
}

/// Layers of OpenCLIP-H, of which Stable Diffusion 2 takes the last but one's states: single files hold all, folders of
/// diffusers all that are needed.
const OPEN_CLIP_H: (usize, usize) = (1024, 24);

impl TextFamily {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            TextFamily::Sd1 => "Stable Diffusion 1",
            TextFamily::Sd2 => "Stable Diffusion 2",
            TextFamily::SdxlFirst => "SDXL, the first",
            TextFamily::SdxlSecond => "SDXL, the second",
            TextFamily::Alone => "by itself",
        }
    }

    /// The states that it wants of an encoder.
    pub(super) fn given(self, config: &ClipTextConfig) -> Given {
        let last = whole(config);
        let layer = match self {
            TextFamily::Sd1 | TextFamily::Alone => config.layers,
            TextFamily::Sd2 | TextFamily::SdxlFirst | TextFamily::SdxlSecond => last - 1,
        };
        let norm = !matches!(self, TextFamily::SdxlFirst | TextFamily::SdxlSecond);
        let pooled = match self {
            TextFamily::SdxlSecond => true,
            TextFamily::Alone => config.projection.is_some(),
            _ => false,
        };
        Given { layer, norm, pooled }
    }

    /// The token that it pads with, where no tokenizer says; `end` is the end token.
    pub(super) fn pad(self, end: u32) -> u32 {
        match self {
            TextFamily::Sd2 | TextFamily::SdxlSecond => 0,
            TextFamily::Sd1 | TextFamily::SdxlFirst | TextFamily::Alone => end,
        }
    }
}

/// Layers of the encoder as it was trained, those that a file leaves out counted.
fn whole(config: &ClipTextConfig) -> usize {
    let (width, layers) = OPEN_CLIP_H;
    let cut = config.width == width && config.layers + 1 == layers;
    config.layers + usize::from(cut)
}

/// The layer that "clip skip" means: 1 is the encoder's last as it was trained, 2 the last but one, whatever the family, as the
/// web UI and stable-diffusion.cpp count. (diffusers counts 1 as the last but one in SD 1, and as the third from the end in
/// SDXL.)
pub(super) fn layer_of_skip(config: &ClipTextConfig, skip: usize) -> Result<usize> {
    let last = whole(config);
    if !(1..=last).contains(&skip) {
        let what =
            format!("clip skip {skip}: the text encoder has {last} layers, so it is 1 (the last) to {last}");
        return Err(Error::Config(what));
    }
    let layer = last + 1 - skip;
    if layer > config.layers {
        let what =
            format!("clip skip {skip}: the file holds {} of the text encoder's {last} layers", config.layers);
        return Err(Error::Config(what));
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Gelu;

    fn config(width: usize, layers: usize, projection: Option<usize>) -> ClipTextConfig {
        let (hidden, heads) = (4 * width, width / 64);
        ClipTextConfig { width, layers, heads, hidden, places: 77, act: Gelu::Erf, eps: 1e-5, projection }
    }

    /// The table of families and settings of clip skip.
    #[test]
    fn states_and_skips_are_layers_by_their_index() {
        let (l, g) = (config(768, 12, None), config(1280, 32, Some(1280)));
        let (file, folder) = (config(1024, 24, Some(1024)), config(1024, 23, None));
        let table = [
            (TextFamily::Sd1, &l, (12, true, false), [Some(12), Some(11), Some(10)]),
            (TextFamily::Sd2, &file, (23, true, false), [Some(24), Some(23), Some(22)]),
            (TextFamily::Sd2, &folder, (23, true, false), [None, Some(23), Some(22)]),
            (TextFamily::SdxlFirst, &l, (11, false, false), [Some(12), Some(11), Some(10)]),
            (TextFamily::SdxlSecond, &g, (31, false, true), [Some(32), Some(31), Some(30)]),
            (TextFamily::Alone, &l, (12, true, false), [Some(12), Some(11), Some(10)]),
            (TextFamily::Alone, &g, (32, true, true), [Some(32), Some(31), Some(30)]),
        ];
        for (family, config, (layer, norm, pooled), skips) in table {
            assert_eq!(family.given(config), Given { layer, norm, pooled }, "{family:?}");
            for (skip, wanted) in (1..).zip(skips) {
                assert_eq!(layer_of_skip(config, skip).ok(), wanted, "{family:?}, clip skip {skip}");
            }
        }
        for (skip, words) in [(0, "1 (the last) to 12"), (13, "clip skip 13")] {
            let told = layer_of_skip(&l, skip).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
        assert!(layer_of_skip(&folder, 1).unwrap_err().to_string().contains("23 of the text encoder's 24"));
        assert_eq!(
            [TextFamily::Sd1, TextFamily::Sd2, TextFamily::SdxlSecond].map(|family| family.pad(7)),
            [7, 0, 0]
        );
    }
}
