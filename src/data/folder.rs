//! A folder of images: a sub-folder for each class, or flat files named by their class.
//!
//! Flat, the class is the stem before its last underscore (`maine_coon_12.png` is a `maine_coon`), and without
//! an underscore the stem less the digits at its end (`cat12.png` is a `cat`).

use std::collections::BTreeSet;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;
use super::{Image, KEEP_BYTES, ONLY_CLASS, Parts, Source, decode, short_name};
use crate::error::{Error, Result};

/// How far below a class folder files are looked for.
const MAX_DEPTH: usize = 8;

/// A file that is named like an image.
struct Found {
    path: PathBuf,
    /// Below the root, with `/` on every system.
    name: String,
    bytes: u64,
}

pub fn accepts(spec: &str) -> bool {
    Path::new(spec).is_dir()
}

pub fn open(spec: &str) -> Result<Parts> {
    let root = Path::new(spec);
    let mut found = Vec::new();
    collect(root, "", 0, &mut found)?;
    // By name, as the order of a directory is whatever the file system likes.
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        let what =
            "holds no images (.png, .jpg, .jpeg, .webp, .bmp or .gif), neither itself nor in sub-folders";
        return Err(Error::format(root, what));
    }

    let in_sub_folders = found.iter().any(|file| file.name.contains('/'));
    let keep = found.iter().map(|file| file.bytes).sum::<u64>() < KEEP_BYTES;
    let (mut skipped, mut files, mut classes, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut hashed = Vec::new();
    let mut all_grey = true;
    for file in found {
        let class = match file.name.split_once('/') {
            Some((class, _)) => class.to_string(),
            None if in_sub_folders => {
                skipped.push((file.name, "lies beside the class folders, not in one".to_string()));
                continue;
            }
            None => class_of_flat(&file.name),
        };
        match look(&file.path, keep) {
            Err(reason) => skipped.push((file.name, reason)),
            Ok((header, kept)) => {
                all_grey &= header.grey;
                sizes.push((header.width, header.height));
                classes.push(class);
                hashed.push((file.name, file.bytes));
                files.push(File { path: file.path, kept });
            }
        }
    }
    if files.is_empty() {
        let (count, (name, reason)) = (skipped.len(), &skipped[0]);
        let what = format!("not one of its {count} images can be read; the first is {name}: {reason}");
        return Err(Error::format(root, what));
    }

    let class_names: Vec<String> = classes.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let label = |class| class_names.binary_search(class).expect("every class is among the names") as u32;
    let labels: Vec<u32> = classes.iter().map(label).collect();
    let mut hash = Fingerprint::new(&class_names, &labels);
    for (name, bytes) in &hashed {
        hash.text(name);
        hash.number(*bytes);
    }
    let channels = if all_grey { 1 } else { 3 };
    Ok(Parts {
        name: short_name(spec),
        channels,
        class_names,
        labels,
        sizes,
        skipped,
        fingerprint: hash.finish(),
        source: Box::new(Files { channels, files }),
    })
}

/// Gathers image files below `folder`, whose own name below the root is `prefix`.
fn collect(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<Found>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let path = entry.path();
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if file_name.starts_with('.') || file_name == "__MACOSX" {
            continue;
        }
        let name = format!("{prefix}{file_name}");
        // Follows links; one that leads nowhere is left out unless it is named like an image.
        match std::fs::metadata(&path) {
            Ok(about) if about.is_dir() => {
                // A linked class folder is common; deeper, a link may lead round in a circle.
                let linked = entry.file_type().map_err(Error::io(&path))?.is_symlink();
                if depth < MAX_DEPTH && (depth == 0 || !linked) {
                    collect(&path, &format!("{name}/"), depth + 1, found)?;
                }
            }
            Ok(about) if !about.is_file() => {}
            about if decode::is_image_name(&file_name) => {
                let bytes = about.map_or(0, |about| about.len());
                found.push(Found { path, name, bytes });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The class that a flat file's name tells.
fn class_of_flat(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let class = match stem.rsplit_once('_') {
        Some((class, _)) => class,
        None => stem.trim_end_matches(|c: char| c.is_ascii_digit()),
    };
    if class.is_empty() { ONLY_CLASS.to_string() } else { class.to_string() }
}

/// Reads a file's header, and keeps its bytes if that is wanted.
fn look(path: &Path, keep: bool) -> Result<(decode::Header, Option<Vec<u8>>), String> {
    if keep {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Ok((decode::header(Cursor::new(&bytes))?, Some(bytes)))
    } else {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        Ok((decode::header(BufReader::new(file))?, None))
    }
}

struct File {
    path: PathBuf,
    kept: Option<Vec<u8>>,
}

struct Files {
    channels: usize,
    files: Vec<File>,
}

impl Source for Files {
    fn decode(&self, index: usize) -> Result<Image> {
        let File { path, kept } = &self.files[index];
        let decoded = match kept {
            Some(bytes) => decode::pixels(Cursor::new(bytes), self.channels),
            None => {
                let file = std::fs::File::open(path).map_err(Error::io(path))?;
                decode::pixels(BufReader::new(file), self.channels)
            }
        };
        decoded.map_err(|reason| {
            Error::format(path, format!("cannot be decoded: {reason}; repair it or take it out of the set"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use ::image::{GrayImage, Luma, Rgb, RgbImage};

    fn rgb(path: PathBuf, width: u32, height: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, height, Rgb([9, 99, 199])).save(path).unwrap();
    }

    fn grey(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(5, 5, Luma([77])).save(path).unwrap();
    }

    #[test]
    fn sub_folders_are_classes_and_bad_files_are_named() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("set");
        rgb(root.join("dog/b.png"), 7, 5);
        rgb(root.join("dog/more/a.png"), 7, 5);
        grey(root.join("cat/z.png"));
        std::fs::write(root.join("cat/bad.png"), b"no image").unwrap();
        std::fs::write(root.join("cat/notes.txt"), b"text").unwrap();
        grey(root.join("stray.png"));
        let spec = root.to_str().unwrap();
        assert!(Dataset::open(spec, None).err().unwrap().to_string().contains("differ in size"));
        let set = Dataset::open(spec, Some(4)).unwrap();
        assert_eq!(
            (set.class_names.as_slice(), set.labels()),
            (&["cat".into(), "dog".into()][..], &[0, 1, 1][..])
        );
        assert_eq!((set.channels, set.native_size()), (3, (5, 5)));
        assert_eq!(set.decode(0).unwrap().pixels, [77; 75]);
        assert_eq!(set.decode(1).unwrap().pixels[..3], [9, 99, 199]);
        let skipped: Vec<_> = set.skipped().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(skipped, ["cat/bad.png", "stray.png"]);

        let before = set.fingerprint();
        let moved = parent.path().join("moved");
        std::fs::rename(&root, &moved).unwrap();
        assert_eq!(Dataset::open(moved.to_str().unwrap(), Some(4)).unwrap().fingerprint(), before);
        rgb(moved.join("dog/c.png"), 7, 5);
        assert_ne!(Dataset::open(moved.to_str().unwrap(), Some(4)).unwrap().fingerprint(), before);
    }

    #[test]
    fn flat_names_tell_the_class() {
        for (name, class) in [
            ("cat_001.png", "cat"),
            ("maine_coon_12.jpg", "maine_coon"),
            ("cat12.png", "cat"),
            ("cat.png", "cat"),
            ("0001.png", "all"),
            ("_1.png", "all"),
        ] {
            assert_eq!(class_of_flat(name), class, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        grey(dir.path().join("b_1.png"));
        grey(dir.path().join("a_2.png"));
        grey(dir.path().join("b_0.png"));
        let set = Dataset::open(dir.path().to_str().unwrap(), None).unwrap();
        assert_eq!((set.labels(), set.channels, set.image_size()), (&[0, 1, 1][..], 1, 5));
    }

    #[test]
    fn nothing_good_is_an_error_with_the_first_file() {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().to_str().unwrap();
        assert!(Dataset::open(spec, None).err().unwrap().to_string().contains("no images"));
        std::fs::write(dir.path().join("a.png"), b"").unwrap();
        std::fs::write(dir.path().join("b.jpg"), b"\xff\xd8\xff").unwrap();
        let message = Dataset::open(spec, None).err().unwrap().to_string();
        assert!(message.contains("2 images") && message.contains("a.png"), "{message}");
    }
}
