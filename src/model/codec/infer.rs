//! The sizes of an autoencoder that only its tensors tell of.

use crate::error::{Error, Result};
use crate::io::TensorSource;
use crate::nn::{KlConfig, Latents, TinyConfig};

use super::names::{Naming, Root, names_of};

/// Levels, blocks and layers beyond those of any network.
const MOST: usize = 64;

/// A file's tensors by the names of parameters.
struct Shapes<'a> {
    file: &'a dyn TensorSource,
    root: &'a Root,
    names: Vec<String>,
}

impl<'a> Shapes<'a> {
    fn new(file: &'a dyn TensorSource, root: &'a Root) -> Self {
        Shapes { file, root, names: file.names() }
    }

    fn find(&self, name: &str) -> Option<String> {
        let all =
            names_of(self.root.naming, name).into_iter().map(|name| format!("{}{name}", self.root.prefix));
        all.into_iter().find(|name| self.names.binary_search(name).is_ok())
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Outputs and inputs of a convolution.
    fn conv(&self, name: &str) -> Result<[usize; 2]> {
        let Some(found) = self.find(name) else {
            let theirs = names_of(self.root.naming, name).into_iter().next().unwrap_or(name.to_owned());
            let theirs = format!("{}{theirs}", self.root.prefix);
            return Err(Error::tensor(self.file.path(), theirs, "is missing"));
        };
        match self.file.about(&found)?.1[..] {
            [outputs, inputs, 3, 3] => Ok([outputs, inputs]),
            ref other => Err(Error::tensor(
                self.file.path(),
                found,
                format!("is {other:?}, where a 3x3 convolution is expected"),
            )),
        }
    }
}

/// An [`KlConfig`] without factors, of a file with either half.
pub(super) fn kl(file: &dyn TensorSource, root: &Root) -> Result<KlConfig> {
    let shapes = Shapes::new(file, root);
    let decodes = shapes.has("decoder.conv_in.weight");
    let count = |part: &dyn Fn(usize) -> String| (0..MOST).take_while(|i| shapes.has(&part(*i))).count();
    let levels = match root.naming {
        Naming::Ldm(levels) => levels,
        _ if decodes => count(&|i| format!("decoder.up_blocks.{i}.resnets.0.conv1.weight")),
        _ => count(&|i| format!("encoder.down_blocks.{i}.resnets.0.conv1.weight")),
    };
    let block = |level: usize, layer: usize| match decodes {
        true => {
            format!("decoder.up_blocks.{}.resnets.{layer}.conv1.weight", levels.saturating_sub(1 + level))
        }
        false => format!("encoder.down_blocks.{level}.resnets.{layer}.conv1.weight"),
    };
    let channels =
        (0..levels).map(|level| Ok(shapes.conv(&block(level, 0))?[0])).collect::<Result<Vec<_>>>()?;
    let layers = count(&|layer| block(0, layer)).saturating_sub(usize::from(decodes));
    let half = if decodes { "decoder" } else { "encoder" };
    let [picture_channels, latent_channels] = match decodes {
        true => [shapes.conv("decoder.conv_out.weight")?[0], shapes.conv("decoder.conv_in.weight")?[1]],
        false => [shapes.conv("encoder.conv_in.weight")?[1], shapes.conv("encoder.conv_out.weight")?[0] / 2],
    };
    let config = KlConfig {
        picture_channels,
        channels,
        layers,
        latent_channels,
        groups: 32,
        attends: shapes.has(&format!("{half}.mid_block.attentions.0.to_q.weight")),
        quant: shapes.has("quant_conv.weight"),
        post_quant: shapes.has("post_quant_conv.weight"),
        latents: Latents::default(),
        unit_pictures: false,
    };
    config.check().map_err(|error| {
        let what = format!("{error}; where its tensors do not tell, a config.json beside it is needed");
        Error::format(file.path(), what)
    })?;
    Ok(config)
}

/// A half's residual blocks by level, and the number behind its last layer; `first` is the first block's.
fn blocks(shapes: &Shapes<'_>, half: &str, first: usize, between: usize) -> Vec<usize> {
    let (mut all, mut number) = (Vec::new(), first);
    loop {
        let mut blocks = 0;
        while blocks < MOST && shapes.has(&format!("{half}.layers.{number}.conv.0.weight")) {
            (blocks, number) = (blocks + 1, number + 1);
        }
        all.push(blocks);
        // What has a bias is the last.
        let resampling = number + between - 1;
        let conv = |leaf: &str| shapes.has(&format!("{half}.layers.{resampling}.{leaf}"));
        if all.len() == MOST || !conv("weight") || conv("bias") {
            return all;
        }
        number += between;
    }
}

/// A [`TinyConfig`] of files with either half or both.
pub(super) fn tiny(halves: [Option<(&dyn TensorSource, &Root)>; 2]) -> Result<TinyConfig> {
    let [encoder, decoder] = halves.map(|half| half.map(|(file, root)| Shapes::new(file, root)));
    let encoder = encoder.filter(|shapes| shapes.has("encoder.layers.0.weight"));
    let decoder = decoder.filter(|shapes| shapes.has("decoder.layers.0.weight"));
    let down = encoder.as_ref().map(|shapes| blocks(shapes, "encoder", 1, 1));
    let up = decoder.as_ref().map(|shapes| blocks(shapes, "decoder", 2, 2));
    let turned = |blocks: &Vec<usize>| blocks.iter().rev().copied().collect::<Vec<_>>();
    let encoder_blocks = down.clone().or(up.as_ref().map(turned)).unwrap_or_default();
    let decoder_blocks = up.or(down.as_ref().map(turned)).unwrap_or_default();
    let [width, latent_channels, picture_channels] = match (&decoder, &encoder) {
        (Some(shapes), _) => {
            let [width, latent] = shapes.conv("decoder.layers.0.weight")?;
            let last = 1 + decoder_blocks.iter().sum::<usize>() + 2 * decoder_blocks.len() - 1;
            [width, latent, shapes.conv(&format!("decoder.layers.{last}.weight"))?[0]]
        }
        (None, Some(shapes)) => {
            let [width, pictures] = shapes.conv("encoder.layers.0.weight")?;
            let last = encoder_blocks.iter().sum::<usize>() + encoder_blocks.len();
            [width, shapes.conv(&format!("encoder.layers.{last}.weight"))?[0], pictures]
        }
        (None, None) => [0; 3],
    };
    let latents = Latents::default();
    Ok(TinyConfig { picture_channels, latent_channels, width, encoder_blocks, decoder_blocks, latents })
}

/// Factors and shifts of families whose single files are told apart by a tensor.
const FAMILIES: [(&str, &str, f64, f64); 4] = [
    ("conditioner.embedders.", "SDXL", 0.13025, 0.0),
    ("model.diffusion_model.joint_blocks.", "SD3", 1.5305, 0.0609),
    ("model.diffusion_model.double_blocks.", "Flux", 0.3611, 0.1159),
    ("model.diffusion_model.input_blocks.", "Stable Diffusion 1 and 2", 0.18215, 0.0),
];

/// What a file without a configuration makes of its own latents, and what is to be told of it.
pub(super) fn latents(file: &dyn TensorSource, channels: usize) -> Result<(Latents, String)> {
    let names = file.names();
    let own =
        |name: &String, wanted: &str| name.rsplit('/').next().is_some_and(|name| name.starts_with(wanted));
    let named = |wanted: &str| names.iter().find(|name| own(name, wanted));
    if let (Some(mean), Some(std)) = (named("edm_mean"), named("edm_std")) {
        let read = |name: &str| {
            file.values(name).map(|(_, values)| values.into_iter().map(f64::from).collect::<Vec<_>>())
        };
        let latents = Latents::standardised(&read(mean)?, &read(std)?, 0.5);
        let latents = latents.map_err(|error| Error::tensor(file.path(), std, error.to_string()))?;
        return Ok((
            latents,
            "its latents have the means and spreads that it holds, with the factor 0.5".into(),
        ));
    }
    if let Some((_, family, factor, shift)) = FAMILIES.iter().find(|(tensor, ..)| named(tensor).is_some()) {
        let shifted = if *shift == 0.0 { String::new() } else { format!(" and the shift {shift}") };
        let note = format!("its latents have the factor {factor}{shifted}, as in {family}");
        return Ok((Latents::scaled(*factor, *shift)?, note));
    }
    if channels != 4 {
        let what = format!(
            "does not say the factor of its latents of {channels} channels: put its config.json beside it, or say the factor"
        );
        return Err(Error::format(file.path(), what));
    }
    let note = "it does not say the factor of its latents: 0.18215 is assumed, that of Stable Diffusion 1 and 2 (SDXL's is 0.13025)";
    Ok((Latents::scaled(0.18215, 0.0)?, note.into()))
}
