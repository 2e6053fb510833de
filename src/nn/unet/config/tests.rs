//! What is refused, and with which words.

use super::*;
use crate::nn::unet::tests::small;

#[test]
fn sizes_that_cannot_be_halved_are_refused_with_the_numbers() {
    let config = UNetConfig {
        sample_size: Extent::square(30),
        channel_mult: vec![1.0, 1.0, 1.0],
        attention_resolutions: vec![],
        ..small()
    };
    let message = config.check().unwrap_err().to_string();
    assert!(message.contains("30 -> 15 -> 7.5") && message.contains("multiple of 4"), "{message}");
    let fits = UNetConfig { sample_size: Extent::square(28), ..config };
    fits.check().unwrap();
    assert_eq!(fits.sizes(), [28, 14, 7]);
}

#[test]
fn both_axes_are_halved_and_the_longer_one_names_the_level() {
    let config = UNetConfig {
        sample_size: Extent::Plane { height: 24, width: 40 },
        channel_mult: vec![1.0; 4],
        attention_resolutions: vec![20, 5],
        ..small()
    };
    config.check().unwrap();
    assert_eq!((config.sizes(), config.divides()), (vec![40, 20, 10, 5], 8));
    let attends: Vec<bool> = (0..4).map(|level| config.attends(level)).collect();
    assert_eq!(attends, [false, true, false, true]);
    let narrow = UNetConfig { sample_size: Extent::Plane { height: 12, width: 40 }, ..config.clone() };
    let message = narrow.check().unwrap_err().to_string();
    assert!(
        message.contains("12x40 -> 6x20 -> 3x10 -> 1.5x5") && message.contains("multiple of 8"),
        "{message}"
    );
    // A size that only the shorter side has is no level's.
    let shorter = UNetConfig { attention_resolutions: vec![12], ..config };
    assert!(shorter.check().unwrap_err().to_string().contains("--attention 12"));
}

#[test]
fn extents_of_a_request_are_taken_where_every_level_stays_whole() {
    let config = UNetConfig { channel_mult: vec![1.0; 4], attention_resolutions: vec![], ..small() };
    let about = config.about();
    for (height, width) in [(16, 16), (8, 96), (96, 64)] {
        about.check_extent(Extent::Plane { height, width }).unwrap();
    }
    let refused = |extent| about.check_extent(extent).unwrap_err().to_string();
    let message = refused(Extent::Plane { height: 96, width: 60 });
    for part in ["96x60", "multiples of 8", "96x56 or 96x64"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(refused(Extent::square(3)).ends_with("as in 8x8"), "{}", refused(Extent::square(3)));
    assert!(refused(Extent::Line(64)).contains("network of planes, made for 16x16"));
    assert!(refused(Extent::square(1 << 20)).contains("between 1 and 16384"));
    assert!(refused(Extent::Plane { height: 0, width: 8 }).contains("between 1"));
}

#[test]
fn what_divides_is_proposed() {
    let config =
        UNetConfig { model_channels: 16, norm_num_groups: 32, channel_mult: vec![1.0, 1.5], ..small() };
    let config = UNetConfig { sample_size: Extent::square(8), attention_resolutions: vec![], ..config };
    let message = config.check().unwrap_err().to_string();
    for part in
        ["level 0 has 16 channels", "32 norm groups", "--norm-groups 8 ", "--channels 64 suits 32 groups"]
    {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    UNetConfig { norm_num_groups: 8, ..config.clone() }.check().unwrap();
    UNetConfig { model_channels: 64, ..config.clone() }.check().unwrap();
    let none = UNetConfig { norm_num_groups: 0, ..config }.check().unwrap_err().to_string();
    assert!(none.contains("--norm-groups"), "{none}");
}

#[test]
fn what_does_not_divide_is_refused() {
    for config in [
        UNetConfig { norm_num_groups: 5, ..small() },
        UNetConfig { num_attention_heads: Some(3), ..small() },
        UNetConfig { attention_resolutions: vec![5], ..small() },
        UNetConfig { dropout: 1.0, ..small() },
        UNetConfig { channel_mult: vec![], ..small() },
        UNetConfig { channel_mult: vec![1.0; 70], ..small() },
        UNetConfig { attention_head_dim: None, model_channels: 512, ..small() },
    ] {
        assert!(config.check().is_err(), "{config:?}");
    }
}
