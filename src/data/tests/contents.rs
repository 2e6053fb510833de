//! What a set is known by, and damaged pictures.

use std::collections::BTreeSet;

use super::*;
use crate::shape::Extent;

#[test]
fn a_set_is_known_by_its_contents() {
    let place =
        Place::new(&[("a/1.bmp", &encoded(GrayImage::new(4, 4), ImageFormat::Bmp)), ("a/2.png", &grey(5))]);
    let cache = place.path("cache");
    let options = DataOptions { cache: Some(cache.clone()), ..side(4) };
    let open = |name: &str| Dataset::open_with(place.path(name).to_str().unwrap(), &options).unwrap();
    let before = open("set").fingerprint();
    let earlier = open("set").earlier_fingerprint().map(str::to_owned);
    assert_eq!(open("set").fingerprint(), before);
    std::fs::rename(place.path("set"), place.path("moved")).unwrap();
    assert_eq!(open("moved").fingerprint(), before);

    // Other pixels in a file of the same name and size.
    let other = encoded(GrayImage::from_pixel(4, 4, Luma([200])), ImageFormat::Bmp);
    std::fs::write(place.path("moved/a/1.bmp"), &other).unwrap();
    let changed = open("moved");
    assert_ne!(changed.fingerprint(), before);
    assert_eq!(changed.earlier_fingerprint().map(str::to_owned), earlier, "names and sizes are the same");
    assert_eq!(changed.decode(0).unwrap().pixels, [200; 48]);

    // What is kept is damaged, or cannot be kept: told, and no harm.
    for kept in std::fs::read_dir(&cache).unwrap() {
        std::fs::write(kept.unwrap().path(), "no").unwrap();
    }
    let again = open("moved");
    assert_eq!(again.fingerprint(), changed.fingerprint());
    assert!(again.table().to_string().contains("note: "), "{}", again.table());
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, "in the way").unwrap();
    assert!(open("moved").table().to_string().contains("cannot be kept"));
    // Nothing is written beside the pictures.
    assert_eq!(std::fs::read_dir(place.path("moved/a")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(place.path("moved")).unwrap().count(), 1);
}

#[test]
fn a_file_that_changes_after_the_opening_is_found_out() {
    let place = Place::new(&[("1.png", &rgb(5, 5, 1))]);
    let options = DataOptions { cache: Some(place.path("cache")), ..DataOptions::default() };
    place.folder(&options).unwrap();
    // Known, so that it is read only now.
    let set = place.folder(&options).unwrap();
    std::fs::write(place.path("set/1.png"), rgb(5, 5, 2)).unwrap();
    let message = set.decode(0).unwrap_err().to_string();
    assert!(message.contains("1.png") && message.contains("run the same command again"), "{message}");
    assert_eq!(place.folder(&options).unwrap().decode(0).unwrap().pixels[0], 2);
}

#[test]
fn trainings_of_an_earlier_version_know_their_data() {
    // What the first version said of these files.
    let place = Place::new(&[("cat/a.png", b""), ("dog/b.png", b"")]);
    for (name, value) in [("cat/a.png", 1), ("dog/b.png", 2), ("dog/c.png", 3)] {
        std::fs::write(
            place.path("set").join(name),
            encoded(GrayImage::from_pixel(2, 2, Luma([value])), ImageFormat::Bmp),
        )
        .unwrap();
    }
    let set = place.folder(&DataOptions::default()).unwrap();
    let mut listing = fingerprint::Fingerprint::new(&["cat".into(), "dog".into()], &[0, 1, 1]);
    for name in ["cat/a.png", "dog/b.png", "dog/c.png"] {
        listing.text(name);
        listing.number(std::fs::metadata(place.path("set").join(name)).unwrap().len());
    }
    assert_eq!(set.earlier_fingerprint(), Some(listing.finish().as_str()));
}

#[test]
fn cut_pictures_are_left_out_or_refused() {
    let whole = grey(7);
    let damaged: Vec<(String, Vec<u8>)> =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::WebP]
            .into_iter()
            .map(|format| (format!("a/cut.{}", format.extensions_str()[0]), cut(format)))
            .collect();
    let mut files: Vec<(&str, &[u8])> =
        damaged.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    files.extend([("a/1.png", &whole[..]), ("a/2.png", &whole)]);
    let place = Place::new(&files);
    let set = place.everywhere(&side(5));
    assert_eq!((set.len(), set.left_out().len()), (2, 5), "{:?}", set.left_out());
    assert!(set.left_out().iter().all(|file| file.damaged));
    let strict = DataOptions { strict: true, ..side(5) };
    for message in [refusal(place.folder(&strict)), refusal(place.zip("", &strict))] {
        assert!(message.contains("5 pictures") && message.contains("cut."), "{message}");
    }
    Place::new(&[("a/1.png", &whole)]).folder(&strict).unwrap();
}

#[test]
fn damage_that_only_decoding_finds_is_left_out_of_batches() {
    let good: Vec<Vec<u8>> = (0..6).map(|i| grey(10 * i)).collect();
    let bad = hollow();
    let mut files: Vec<(&str, &[u8])> = ["a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png"]
        .into_iter()
        .zip(good.iter().map(|g| &g[..]))
        .collect();
    files.push(("a/7.png", &bad));
    let place = Place::new(&files);
    assert!(refusal(place.folder(&DataOptions { strict: true, ..side(5) })).contains("a/7.png"));
    let loader = || {
        let set = place.folder(&side(5)).unwrap();
        assert_eq!((set.len(), set.left_out().len()), (7, 0));
        Loader::new(
            std::sync::Arc::new(set),
            LoaderOptions { image_size: Extent::square(5), crop: Crop::Center, flip: false, seed: 3 },
        )
    };
    let whole = loader();
    let three_epochs = whole.batch(0, 21).unwrap();
    assert_eq!(three_epochs.left_out.len(), 1);
    assert!(three_epochs.left_out[0].name == "a/7.png" && whole.dataset().damaged().len() == 1);
    // Each good picture in each epoch, one of them twice; its label with it.
    for (epoch, pictures) in three_epochs.images.chunks(7 * 25).enumerate() {
        let seen: BTreeSet<u8> = pictures.iter().copied().collect();
        assert_eq!(seen, (0..6).map(|i| 10 * i).collect(), "epoch {epoch}");
    }
    for (picture, label) in three_epochs.images.chunks(25).zip(&three_epochs.labels) {
        assert_eq!(u32::from(picture[0] >= 30), *label);
    }
    // The same however it is cut, and wherever it goes on.
    for first in 0..21 {
        let one = loader().batch(first, 1).unwrap();
        let at = first as usize;
        assert_eq!(
            (&one.images[..], one.labels[0]),
            (&three_epochs.images[at * 25..][..25], three_epochs.labels[at])
        );
    }
    let nothing = Place::new(&[("a.png", &bad)]);
    let set = std::sync::Arc::new(nothing.folder(&side(5)).unwrap());
    let loader = Loader::new(
        set,
        LoaderOptions { image_size: Extent::square(5), crop: Crop::Center, flip: false, seed: 3 },
    );
    assert!(loader.batch(0, 1).unwrap_err().to_string().contains("not one of its 1 pictures"));
}
