//! The published checkpoints: what their tensors do not say.
//!
//! From the model cards and READMEs of openai/guided-diffusion and openai/improved-diffusion (both MIT). A file is
//! recognised by the number of its tensors and parameters; where several share both (256x256 without classes and LSUN),
//! all of a row but its name is the same, or the name of the file decides.

use super::architecture::Shapes;
use super::config::STEPS;

/// How attention's channels are split into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// This many at every level.
    Count(usize),
    /// Of this many channels each.
    Channels(usize),
}

/// One published file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Its name without `.pt`.
    pub name: &'static str,
    /// Its tensors.
    pub tensors: usize,
    /// Its parameters.
    pub parameters: usize,
    /// Height and width of its pictures.
    pub image_size: usize,
    /// Its attention's heads.
    pub heads: Heads,
    /// Whether its qkv channels are in the new order.
    pub new_order: bool,
    /// `linear` or `cosine`.
    pub schedule: &'static str,
    /// Steps T it was trained for.
    pub steps: usize,
    /// Whether the network is told t·1000/T instead of t.
    pub rescale: bool,
    /// The pictures it was trained on.
    pub data: &'static str,
    /// Steps to sample with.
    pub sampling_steps: usize,
}

const ADM: Published = Published {
    name: "",
    tensors: 0,
    parameters: 0,
    image_size: 0,
    heads: Heads::Channels(64),
    new_order: false,
    schedule: "linear",
    steps: 1000,
    rescale: false,
    data: "ImageNet",
    sampling_steps: STEPS,
};

const LSUN: Published =
    Published { tensors: 566, parameters: 552_814_086, image_size: 256, sampling_steps: 1000, ..ADM };

const IDDPM: Published =
    Published { heads: Heads::Count(4), schedule: "cosine", steps: 4000, rescale: true, ..ADM };

const LSUN_IDDPM: Published = Published {
    tensors: 426,
    parameters: 113_676_678,
    image_size: 256,
    heads: Heads::Count(1),
    schedule: "linear",
    steps: 1000,
    rescale: false,
    ..IDDPM
};

/// All of them.
#[rustfmt::skip]
pub const PUBLISHED: &[Published] = &[
    Published { name: "64x64_diffusion", tensors: 541, parameters: 295_904_454, image_size: 64, new_order: true, schedule: "cosine", ..ADM },
    Published { name: "128x128_diffusion", tensors: 493, parameters: 421_529_606, image_size: 128, heads: Heads::Count(4), ..ADM },
    Published { name: "256x256_diffusion", tensors: 567, parameters: 553_838_086, image_size: 256, ..ADM },
    Published { name: "256x256_diffusion_uncond", tensors: 566, parameters: 552_814_086, image_size: 256, ..ADM },
    Published { name: "512x512_diffusion", tensors: 645, parameters: 558_997_638, image_size: 512, ..ADM },
    Published { name: "64_256_upsampler", tensors: 567, parameters: 311_795_910, image_size: 256, heads: Heads::Count(4), ..ADM },
    Published { name: "128_512_upsampler", tensors: 537, parameters: 308_835_270, image_size: 512, ..ADM },
    Published { name: "64x64_classifier", tensors: 307, parameters: 65_438_568, image_size: 64, schedule: "cosine", ..ADM },
    Published { name: "128x128_classifier", tensors: 221, parameters: 42_568_040, image_size: 128, ..ADM },
    Published { name: "256x256_classifier", tensors: 249, parameters: 54_096_360, image_size: 256, ..ADM },
    Published { name: "512x512_classifier", tensors: 281, parameters: 54_448_360, image_size: 512, ..ADM },
    Published { name: "lsun_bedroom", data: "LSUN bedroom", ..LSUN },
    Published { name: "lsun_cat", data: "LSUN cat", ..LSUN },
    Published { name: "lsun_horse", data: "LSUN horse", ..LSUN },
    Published { name: "lsun_horse_nodropout", data: "LSUN horse", ..LSUN },
    Published { name: "imagenet64_cond_270M_250K", tensors: 451, parameters: 273_049_350, image_size: 64, rescale: false, ..IDDPM },
    Published { name: "imagenet64_uncond_100M_1500K", tensors: 450, parameters: 121_063_942, image_size: 64, ..IDDPM },
    Published { name: "imagenet64_uncond_vlb_100M_1500K", tensors: 450, parameters: 121_063_942, image_size: 64, ..IDDPM },
    Published { name: "cifar10_uncond_50M_500K", tensors: 446, parameters: 52_546_438, image_size: 32, data: "CIFAR-10", ..IDDPM },
    Published { name: "cifar10_uncond_vlb_50M_500K", tensors: 446, parameters: 52_546_438, image_size: 32, data: "CIFAR-10", ..IDDPM },
    Published { name: "upsample_cond_500K", tensors: 457, parameters: 279_792_390, image_size: 256, rescale: false, schedule: "linear", ..IDDPM },
    Published { name: "lsun_uncond_100M_1200K_bs128", data: "LSUN bedroom", ..LSUN_IDDPM },
    Published { name: "lsun_uncond_100M_2400K_bs64", data: "LSUN bedroom", ..LSUN_IDDPM },
];

/// The published file that has these tensors, if there is one; `stem` (the file's name) decides among several.
pub fn recognise(shapes: &Shapes, stem: &str) -> Option<&'static Published> {
    let parameters: usize = shapes
        .values()
        .map(|shape| shape.iter().fold(1, |p: usize, dim| p.saturating_mul(*dim)))
        .fold(0, usize::saturating_add);
    let fits = |file: &&Published| file.tensors == shapes.len() && file.parameters == parameters;
    let candidates = || PUBLISHED.iter().filter(fits);
    candidates().find(|file| file.name == stem).or_else(|| candidates().next())
}
