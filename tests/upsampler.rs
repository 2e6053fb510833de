//! Two stages: a network that makes small pictures, and one that makes them large.

mod common;

use common::{digits, gpu, requests, sampler_options, tiny, train};
use freeguide::data::{Dataset, Image, Loader, LoaderOptions};
use freeguide::model::Model;
use freeguide::sample::{Sampler, Upsampling};
use freeguide::shape::Extent;
use freeguide::train::TrainOptions;

fn upsampler(images: u64) -> TrainOptions {
    let mut options = TrainOptions { upsample_from: Some(Extent::square(4)), ..tiny(images) };
    options.unet.low_res_channels = 1;
    options
}

#[test]
fn an_upsampler_keeps_to_the_small_picture() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions { batch: 32, microbatch: 32, ..upsampler(9600) };
    train(&gpu, &options, dir.path());
    let model = Model::load(&gpu, dir.path()).unwrap();
    // Real digits made small by the mean over 2x2 pixels.
    let loading =
        LoaderOptions { image_size: Extent::square(8), crop: Default::default(), flip: false, seed: 4 };
    let batch = Loader::new(digits(), loading).batch(0, 24).unwrap();
    let small = |large: &[u8]| -> Vec<u8> {
        let at = |x: usize, y: usize| u32::from(large[y * 8 + x]);
        let mean = |i: usize| {
            let (x, y) = (i % 4 * 2, i / 4 * 2);
            ((at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1)) / 4) as u8
        };
        (0..16).map(mean).collect()
    };
    let shown: Vec<Image> =
        batch.images.chunks(64).map(|large| Image::new(4, 4, 1, small(large)).unwrap()).collect();
    let upsampling = Upsampling::new(&gpu, &model, Extent::square(4), sampler_options(16, 32)).unwrap();
    let asked: Vec<_> = requests(1, 24)
        .iter()
        .zip(&batch.labels)
        .map(|(request, label)| freeguide::sample::Request {
            condition: Some(*label).into(),
            ..request.clone()
        })
        .collect();
    let mut steps = 0;
    let large = upsampling
        .upsample(&shown, &asked, || {
            steps += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!((large.len(), large[0].width, steps), (24, 8, 64));
    let again: Vec<Image> =
        large.iter().map(|image| Image::new(4, 4, 1, small(&image.pixels)).unwrap()).collect();
    let own = common::difference(&again, &shown);
    let mut others = shown.clone();
    others.rotate_left(1);
    let other = common::difference(&again, &others);
    assert!(own < 0.5 * other, "off its own small picture by {own}, off another one by {other}");

    // What does not fit is refused.
    let error = |side| {
        Upsampling::new(&gpu, &model, Extent::square(side), sampler_options(2, 2)).err().unwrap().to_string()
    };
    assert!(error(3).contains("3x3") && error(8).contains("8x8"));
    assert!(upsampling.upsample(&shown[..1], &asked[..2], || Ok(())).is_err());
    let larger = Image::new(8, 8, 1, vec![0; 64]).unwrap();
    assert!(
        upsampling
            .upsample(&[larger], &asked[..1], || Ok(()))
            .unwrap_err()
            .to_string()
            .contains("upsampler of 4x4")
    );
    let process = model.config.process().unwrap();
    let alone = Sampler::new(&gpu, &model.unet, &model.weights(), process, sampler_options(1, 2));
    assert!(alone.err().unwrap().to_string().contains("--upsampler"));
}

#[test]
fn sizes_that_do_not_halve_are_refused() {
    let error = |options: TrainOptions| options.check().unwrap_err().to_string();
    assert!(
        error(TrainOptions { upsample_from: Some(Extent::square(3)), ..upsampler(8) })
            .contains("--upsample-from 3")
    );
    assert!(
        error(TrainOptions { upsample_from: Some(Extent::square(8)), ..upsampler(8) })
            .contains("--upsample-from 8")
    );
    assert!(error(TrainOptions { upsample_from: None, ..upsampler(8) }).contains("--upsample-from"));
    assert!(error(TrainOptions { upsample_from: Some(Extent::square(4)), ..tiny(8) }).contains("not 0"));
    upsampler(8).check().unwrap();
    assert_eq!(Dataset::open("digits", Some(Extent::square(4))).unwrap().image_size(), Extent::square(4));
}
