//! Options, presets and what they refuse.

use super::*;
use crate::data::Dataset;
use crate::shape::Extent;
use crate::train::presets::{PRESETS, Preset};

fn digits() -> TrainOptions {
    let dataset = Dataset::open("digits", None).unwrap();
    Preset::named("digits").unwrap().options(&dataset, 0)
}

#[test]
fn small_sets_are_seen_in_small_batches_and_large_ones_in_the_presets() {
    let custom = Preset::named("custom").unwrap();
    for (images, batch) in [(1, 8), (200, 8), (300, 16), (1023, 32), (1024, 64), (1_000_000, 64)] {
        assert_eq!(custom.batch_on(images), (batch, batch), "{images} pictures");
    }
    let imagenet = Preset::named("imagenet64").unwrap();
    assert_eq!(imagenet.batch_on(1_281_167), (2048, 32));
    assert_eq!(imagenet.batch_on(600), (32, 32));
    assert_eq!((digits().batch, digits().warmup_images), (32, 640));
}

#[test]
fn every_preset_is_sound() {
    let dataset = Dataset::open("digits", Some(Extent::square(64))).unwrap();
    for preset in PRESETS {
        preset.options(&dataset, 0).check().unwrap();
    }
}

#[test]
fn the_learning_rate_rises_over_the_warm_up() {
    let options = TrainOptions { warmup_images: 320, batch: 32, learning_rate: 1.0, ..digits() };
    assert_eq!(options.learning_rate_at(0), 0.1);
    assert_eq!(options.learning_rate_at(288), 1.0);
    assert_eq!(options.learning_rate_at(1 << 40), 1.0);
}

#[test]
fn nonsense_is_refused() {
    for options in [
        TrainOptions { batch: 32, microbatch: 5, ..digits() },
        TrainOptions { learning_rate: f64::NAN, ..digits() },
        TrainOptions { unconditional_probability: 1.5, ..digits() },
        TrainOptions { ema_rates: vec![], ..digits() },
        TrainOptions { ema_rates: vec![1.0], ..digits() },
        TrainOptions { log_snr_min: 3.0, log_snr_max: 2.0, ..digits() },
        TrainOptions { images: u64::MAX, ..digits() },
        TrainOptions { batch: usize::MAX, microbatch: usize::MAX, ..digits() },
        TrainOptions { learning_rate: 1e300, ..digits() },
    ] {
        assert!(options.check().is_err());
    }
}
