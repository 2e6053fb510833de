//! Which files are read, and what is said of all others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::data::dataset::one_size;
use crate::shape::Extent;

#[test]
fn a_missing_path_lists_what_may_be_given() {
    let message = refusal(Dataset::open("no/such/place", None));
    assert!(message.contains("no/such/place") && message.contains("digits") && message.contains("IDX"));
}

#[test]
fn sizes_must_agree_unless_one_is_asked_for() {
    assert_eq!(one_size("x", &[(7, 7)]).unwrap(), Extent::square(7));
    assert_eq!(one_size("x", &[(7, 5)]).unwrap(), Extent::Plane { height: 5, width: 7 });
    assert!(one_size("x", &[(7, 7), (9, 5)]).unwrap_err().to_string().contains("7x7 and 5x9"));
    assert!(Dataset::open("digits", Some(Extent::square(0))).is_err());
    assert!(Dataset::open("digits", Some(Extent::Line(8))).is_err());
    assert_eq!(Dataset::open("digits", Some(Extent::square(13))).unwrap().image_size(), Extent::square(13));
}

#[test]
fn folders_are_classes_and_everything_else_is_named() {
    let (dog, cat, tiff) = (rgb(7, 5, 9), grey(77), b"II*\0\x08\0\0\0");
    let place = Place::new(&[
        ("dog/b.png", &dog),
        ("dog/more/a.jfif", &encoded(RgbImage::new(7, 5), ImageFormat::Jpeg)),
        ("cat/z", &cat),
        ("cat/bad.png", b"no image"),
        ("cat/scan.tif", tiff),
        ("cat/.hidden.png", &cat),
        ("stray.png", &cat),
    ]);
    assert!(refusal(place.folder(&DataOptions::default())).contains("differ in size"));
    let set = place.everywhere(&side(4));
    assert_eq!((&set.class_names[..], set.labels()), (&["cat".into(), "dog".into()][..], &[0, 1, 1][..]));
    assert_eq!((set.channels, set.native_size()), (3, (5, 5)));
    assert_eq!(set.decode(0).unwrap().pixels, [77; 75]);
    assert_eq!(set.decode(1).unwrap().pixels[..3], [9, 99, 199]);
    assert_eq!(left_out(&set), ["cat/.hidden.png", "cat/bad.png", "cat/scan.tif", "stray.png"]);
    let reasons: Vec<&str> = set.left_out().iter().map(|file| file.reason.as_str()).collect();
    assert!(
        reasons[1].contains("text") && reasons[2].contains("TIFF") && reasons[3].contains("beside"),
        "{reasons:?}"
    );
    let table = set.table().to_string();
    for part in [
        "3 RGB pictures, 2 classes",
        "cat 1",
        "dog 2",
        "sizes, height first: 5x7 (2), 5x5 (1), brought to 4x4",
        "4 files were left out",
    ] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
}

#[test]
fn files_that_are_no_data_are_told_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, part) in [
        ("x.parquet", &b"PAR1 and so on"[..], "Parquet"),
        ("x.npy", b"\x93NUMPY\x01\0", "NumPy"),
        ("data_batch_1", b"\x80\x02}q\x01(U\x04", "pickle"),
        ("x.zip", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("set.zip", b"<!DOCTYPE html><html>", "web page"),
        ("one.png", &grey(1), "the folder it lies in"),
        ("cut.zip", b"PK\x03\x04 but no more", "cut.zip"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = refusal(Dataset::open(path.to_str().unwrap(), None));
        assert!(message.contains(part) && message.contains(name), "{message}");
    }
    let arrays = Place::new(&[("arr_0.npy", b"\x93NUMPY\x01\0")]);
    assert!(refusal(arrays.zip("", &DataOptions::default())).contains("arr_0.npy: is a NumPy array"));
    let empty = Place::new(&[]);
    assert!(refusal(empty.folder(&DataOptions::default())).contains("no images"));
}

#[cfg(unix)]
#[test]
fn links_lead_to_each_file_once() {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    let (a, b) = (grey(1), grey(2));
    let place = Place::new(&[("cat/1.png", &a), ("cat/2.png", &b), ("dog/1.png", &b)]);
    std::fs::create_dir_all(place.path("elsewhere/deep")).unwrap();
    std::fs::write(place.path("elsewhere/9.png"), &a).unwrap();
    let link = |target: &Path, name: &str| symlink(target, place.path("set").join(name)).unwrap();
    link(Path::new("."), "self");
    link(Path::new("../../set"), "cat/up");
    link(Path::new("1.png"), "cat/again.png");
    link(Path::new("cat"), "kitten");
    link(Path::new("nowhere"), "gone.png");
    link(Path::new("/"), "root");
    link(&place.path("elsewhere"), "owl");
    link(&place.path("elsewhere"), "dog/out");
    link(&place.path("elsewhere/9.png"), "dog/9.png");
    let set = place.folder(&DataOptions::default()).unwrap();
    assert_eq!((set.len(), set.class_names.join(" ")), (4, "cat dog owl".into()), "{}", set.table());
    let named = ["cat/again.png", "cat/up", "dog/9.png", "dog/out", "gone.png", "kitten", "root", "self"];
    assert_eq!(left_out(&set), named, "{}", set.table());
    assert!(set.table().to_string().contains("owl is a link to"));
}

/// Files of all kinds, good and bad, by names that may be alike.
fn files() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let name = "[a-c]{0,1}/?[a-c.é_]{1,3}(\\.(png|jpg|tif|txt))?";
    let bytes = prop_oneof![
        any::<u8>().prop_map(grey),
        any::<u8>().prop_map(|red| rgb(4, 6, red)),
        Just(cut(ImageFormat::Png)),
        Just(cut(ImageFormat::Jpeg)),
        Just(encoded(RgbImage::new(3, 3), ImageFormat::Gif)),
        Just(hollow()),
        Just(b"II*\0".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::btree_map(name, bytes, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_file_is_read_or_named(files in files()) {
        let dir = tempfile::tempdir().unwrap();
        let mut there = BTreeSet::new();
        for (name, bytes) in &files {
            let name = name.trim_start_matches('/');
            let path = dir.path().join(name);
            // A name may be a folder of another file's, or no name of a file.
            let made = path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok());
            if made && !name.is_empty() && !name.ends_with('/') && !path.exists() && std::fs::write(&path, bytes).is_ok() {
                there.insert(name.to_owned());
            }
        }
        for labelling in [Labelling::Checked, Labelling::Trusted, Labelling::None] {
            let options = DataOptions { labelling, image_size: Some(Extent::square(4)), ..DataOptions::default() };
            let set = match Dataset::open_with(dir.path().to_str().unwrap(), &options) {
                Ok(set) => set,
                // Refused, and said why.
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    continue;
                }
            };
            let read: Vec<String> = (0..set.len()).map(|i| set.parts.source.name(i)).collect();
            let all: Vec<&str> =
                read.iter().map(String::as_str).chain(set.left_out().iter().map(|file| file.name.as_str())).collect();
            let named: BTreeSet<&str> = all.iter().copied().collect();
            prop_assert_eq!(named.len(), all.len(), "each once: {:?}", all);
            for name in &there {
                // What lies in a hidden folder is named by it.
                let hidden = name.split('/').next().filter(|folder| folder.starts_with('.'));
                prop_assert!(named.contains(hidden.unwrap_or(name)), "{} is not in {:?}", name, all);
            }
            for index in 0..set.len() {
                let decoded = set.decode_good(index).unwrap();
                prop_assert!(decoded.is_some() || set.damage(index).is_some());
            }
        }
    }
}
