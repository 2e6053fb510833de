//! What is promised of data sets in folders and zips.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};
use std::path::Path;

use ::image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn rgb(width: u32, height: u32, red: u8) -> Vec<u8> {
    encoded(RgbImage::from_pixel(width, height, Rgb([red, 99, 199])), ImageFormat::Png)
}

fn grey(value: u8) -> Vec<u8> {
    encoded(GrayImage::from_pixel(5, 5, Luma([value])), ImageFormat::Png)
}

/// A picture whose header is whole and whose data is not.
fn cut(format: ImageFormat) -> Vec<u8> {
    let mut bytes =
        encoded(RgbImage::from_fn(5, 5, |x, y| Rgb([x as u8 * 50, y as u8 * 50, (x * y) as u8])), format);
    bytes.truncate(bytes.len() - if format == ImageFormat::Jpeg { 9 } else { 30 });
    bytes
}

/// Files by name, as a folder and as a zip.
struct Place {
    dir: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("set")).unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("set").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Place { dir, files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn folder(&self, options: &DataOptions) -> Result<Dataset> {
        Dataset::open_with(self.path("set").to_str().unwrap(), options)
    }

    fn zip(&self, around: &str, options: &DataOptions) -> Result<Dataset> {
        let path = self.path("set.zip");
        let mut writer = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (i, (name, bytes)) in self.files.iter().enumerate() {
            let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
            writer
                .start_file(
                    format!("{around}{name}"),
                    SimpleFileOptions::default().compression_method(method),
                )
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open_with(path.to_str().unwrap(), options)
    }

    /// The set of these files in every way, each time the same.
    fn everywhere(&self, options: &DataOptions) -> Dataset {
        let folder = self.folder(options).unwrap();
        for zip in [self.zip("", options).unwrap(), self.zip("around/", options).unwrap()] {
            assert_eq!((zip.labels(), &zip.class_names), (folder.labels(), &folder.class_names));
            assert_eq!(zip.fingerprint(), folder.fingerprint());
        }
        folder
    }
}

fn side(image_size: usize) -> DataOptions {
    DataOptions { image_size: Some(image_size), ..DataOptions::default() }
}

fn refusal(opened: Result<Dataset>) -> String {
    opened.err().expect("a set that is refused").to_string()
}

fn left_out(set: &Dataset) -> Vec<&str> {
    set.left_out().iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn a_missing_path_lists_what_may_be_given() {
    let message = refusal(Dataset::open("no/such/place", None));
    assert!(message.contains("no/such/place") && message.contains("digits") && message.contains("IDX"));
}

#[test]
fn sizes_must_agree_unless_one_is_asked_for() {
    assert_eq!(one_square_size("x", &[(7, 7)]).unwrap(), 7);
    assert!(one_square_size("x", &[(7, 5)]).unwrap_err().to_string().contains("7x5"));
    assert!(one_square_size("x", &[(7, 7), (9, 9)]).unwrap_err().to_string().contains("9x9"));
    assert!(Dataset::open("digits", Some(0)).is_err());
    assert_eq!(Dataset::open("digits", Some(13)).unwrap().image_size(), 13);
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
        "7x5 (2), 5x5 (1), brought to 4x4",
        "4 files were left out",
    ] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
}

#[test]
fn labels_files_are_read_in_folders_and_zips() {
    let (a, b, c) = (grey(1), grey(2), grey(3));
    let pictures = [("0/a.png", &a[..]), ("0/b.png", &b), ("1/c.png", &c)];
    let with = |file: &str, text: &str, options: &DataOptions| {
        let place = Place::new(&[&pictures[..], &[(file, text.as_bytes())]].concat());
        let set = place.everywhere(options);
        let classes: Vec<String> =
            set.labels().iter().map(|label| set.class_names[*label as usize].clone()).collect();
        (classes, set)
    };
    let plain = DataOptions::default();
    for json in [
        r#"{"labels": [["0/b.png", 0], ["0/a.png", 2], ["1/c.png", 2]]}"#,
        r#"{"labels": [["0/b.png", 0.0], ["0/a.png", 2.0], ["1/c.png", 2.0]]}"#,
        r#"{"labels": [["0/b.png", [1, 0, 0]], ["0/a.png", [0, 0, 1]], ["1/c.png", [0, 0, 1]]]}"#,
        r#"{"labels": {"0/b.png": 0, "0/a.png": 2, "1/c.png": 2}}"#,
    ] {
        let (classes, set) = with("dataset.json", json, &plain);
        assert_eq!((classes.join(" "), set.num_classes()), ("2 0 2".into(), 3), "{json}");
        assert!(set.warnings()[0].contains("1 of 3 classes has no pictures: 1"), "{:?}", set.warnings());
    }
    let (classes, set) = with("dataset.json", r#"{"labels": null}"#, &plain);
    assert!(classes == ["all"; 3] && set.is_unlabelled());
    let (classes, set) =
        with("dataset.json", r#"{"labels": [["0/a.png", 1], ["1/c.png", 1], ["x.png", 0]]}"#, &plain);
    assert_eq!((classes.join(" "), left_out(&set)), ("1 1".into(), vec!["0/b.png", "x.png"]));
    assert!(set.warnings()[0].contains("count from 1"));

    let csv = "file_name,label,kind,text\n0/a.png,owl,x,\"a, b\"\n./0/b.png,cat,y,\n1/c.png,cat,y,c\n";
    let (classes, set) = with("metadata.csv", csv, &plain);
    assert_eq!(classes, ["owl", "cat", "cat"]);
    assert_eq!((set.caption(0), set.caption(2)), (Some("a, b"), Some("c")));
    let kind = DataOptions { label: Some("kind".into()), ..plain.clone() };
    assert_eq!(with("metadata.csv", csv, &kind).0, ["x", "y", "y"]);
    let lines =
        "{\"file_name\": \"a.png\", \"label\": \"cat\"}\n{\"file_name\": \"b.png\", \"label\": \"cat\"}\n";
    let (classes, set) = with("0/metadata.jsonl", lines, &plain);
    assert_eq!((classes.join(" "), left_out(&set)), ("cat cat".into(), vec!["1/c.png"]));
    // Without a column of labels, folders tell; that is said.
    let (classes, set) = with("metadata.csv", "file_name,text,kind\n0/a.png,owl,x\n", &plain);
    assert_eq!((classes.join(" "), set.caption(0)), ("0 0 1".into(), Some("owl")));
    assert!(set.warnings()[0].contains("no column `label`") && set.warnings()[0].contains("kind"));
    let none = DataOptions { labelling: Labelling::None, ..plain };
    assert_eq!(with("metadata.csv", csv, &none).0, ["all"; 3]);
}

#[test]
fn damaged_labels_files_are_named() {
    let a = grey(3);
    let message = |files: &[(&str, &str)]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        let place = Place::new(&[&[("a.png", &a[..])], &files[..]].concat());
        let plain = DataOptions::default();
        let message = refusal(place.folder(&plain));
        assert_eq!(
            message.split_once(": ").unwrap().1,
            refusal(place.zip("", &plain)).split_once(": ").unwrap().1
        );
        message
    };
    for (file, text, part) in [
        ("dataset.json", "{", "dataset.json"),
        ("dataset.json", "{}", "`labels`"),
        ("dataset.json", r#"{"labels": [["a.png", -1]]}"#, "-1"),
        ("dataset.json", r#"{"labels": [["a.png", 4000000000]]}"#, "4000000000"),
        ("dataset.json", r#"{"labels": [["b.png", 0]]}"#, "no label in dataset.json"),
        ("metadata.csv", "name,label\na.png,1\n", "no column `file_name`, but label, name"),
        ("metadata.csv", "file_name,label\na.png,1\na.png,2\n", "twice"),
        ("metadata.csv", "file_name,label\na.png\n", "metadata.csv"),
        ("metadata.jsonl", "{\"file_name\": 3}\n", "metadata.jsonl"),
        ("metadata.jsonl", "{\"file_name\": \"a.png\"}\nx\n", "line 2"),
    ] {
        assert!(message(&[(file, text)]).contains(part), "{text}: {}", message(&[(file, text)]));
    }
    let three = r#"{"labels": [["a.png", 3]]}"#;
    assert!(message(&[("dataset.json", three), ("classes.json", r#"["x"]"#)]).contains("up to 3"));
    assert!(
        message(&[("dataset.json", three), ("metadata.csv", "file_name,label\n")]).contains("keep the one")
    );
    let rows = "file_name,label\n";
    assert!(message(&[("test/metadata.csv", rows), ("train/metadata.csv", rows)]).contains("parts of a set"));
    let wrong = DataOptions { label: Some("colour".into()), ..DataOptions::default() };
    assert!(refusal(Place::new(&[("a.png", &a)]).folder(&wrong)).contains("`colour`"));
}

#[test]
fn what_is_no_labelling_is_refused() {
    let picture = grey(9);
    let place =
        |names: &[&str]| Place::new(&names.iter().map(|name| (*name, &picture[..])).collect::<Vec<_>>());
    let splits = ["train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png"];
    let unlabelled = DataOptions { labelling: Labelling::None, ..DataOptions::default() };
    for (names, part) in [
        (&splits[..], "set/train"),
        (&["8f3a.png", "b77e.png", "c1d4.png"], "3 pictures of 3 classes"),
        (&["a/0.png", "b/0.png"], "2 pictures of 2 classes"),
    ] {
        let place = place(names);
        let message = refusal(place.folder(&DataOptions::default()));
        assert!(message.contains(part) && message.contains("unlabelled"), "{message}");
        assert_eq!(place.folder(&unlabelled).unwrap().class_names, ["all"]);
        let trusting = DataOptions { labelling: Labelling::Trusted, ..DataOptions::default() };
        assert!(place.folder(&trusting).unwrap().warnings()[0].contains(part));
    }
    let parts = place(&["train/a.png", "train/b.png", "val/a.png"]).folder(&DataOptions::default()).unwrap();
    assert!(parts.warnings()[0].contains("parts of a set"));
    std::fs::create_dir_all(place(&splits).path("set/none")).unwrap();
    let empties = place(&["full/a.png", "full/b.png"]);
    std::fs::create_dir(empties.path("set/none")).unwrap();
    assert!(empties.folder(&DataOptions::default()).unwrap().warnings()[0].contains("none without pictures"));
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

/// A PNG with all its checksums right, whose compressed data is none: only decoding finds out.
pub fn hollow() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in
        [(b"IHDR", &b"\0\0\0\x05\0\0\0\x05\x08\0\0\0\0"[..]), (b"IDAT", b"nothing"), (b"IEND", b"")]
    {
        let mut crc = flate2::Crc::new();
        crc.update(&[&name[..], data].concat());
        png.extend((data.len() as u32).to_be_bytes());
        png.extend([&name[..], data, &crc.sum().to_be_bytes()].concat());
    }
    png
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
            LoaderOptions { image_size: 5, crop: Crop::Center, flip: false, seed: 3 },
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
    let loader = Loader::new(set, LoaderOptions { image_size: 5, crop: Crop::Center, flip: false, seed: 3 });
    assert!(loader.batch(0, 1).unwrap_err().to_string().contains("not one of its 1 pictures"));
}

#[cfg(unix)]
#[test]
fn links_lead_to_each_file_once() {
    use std::os::unix::fs::symlink;
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
            let options = DataOptions { labelling, image_size: Some(4), ..DataOptions::default() };
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
