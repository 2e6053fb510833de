//! Archives of arrays, good and bad.

use super::*;

#[test]
fn batches_come_back_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("samples.npz");
    let mut writer = NpzWriter::create(&path, 5, Extent::Plane { height: 7, width: 3 }).unwrap();
    let text = [("greek".to_owned(), "σ\n\u{1b}".to_owned()), ("steps".to_owned(), "3".to_owned())];
    writer.annotate(&text).unwrap();
    assert!(writer.annotate(&[("long".into(), "x".repeat(70_000))]).is_err());
    let colour: Vec<u8> = (0..2 * 63).collect();
    writer.push(&colour, 3, &[4, 0]).unwrap();
    assert!(!path.exists());
    let grey: Vec<u8> = (0..3 * 21).collect();
    writer.push(&grey, 1, &[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read_npz_text(&path).unwrap(), text);
    let read = read_npz_images(&path).unwrap();
    assert_eq!((read.count, read.width, read.height, read.channels), (5, 3, 7, 3));
    assert_eq!(read.labels, Some(vec![4, 0, 1, 2, 3]));
    assert_eq!(read.images[..126], colour);
    assert_eq!(read.images[126..132], [0, 0, 0, 1, 1, 1]);
}

#[test]
fn counts_must_agree_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let mut writer = NpzWriter::create(&path, 3, Extent::square(1)).unwrap();
    assert!(writer.push(&[0; 7], 3, &[0, 0]).is_err());
    assert!(writer.push(&[0; 4], 1, &[0; 4]).is_err());
    writer.push(&[9; 2], 1, &[0; 2]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("2 images came, but 3"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// An array's file with this header.
fn npy(shape: &str, dtype: &str, fortran: bool, elements: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(elements);
    bytes
}

#[test]
fn the_last_index_of_fortran_order_runs_slowest() {
    // a[i, j, k] = 100i + 10j + k of shape (2, 3, 2), in both orders.
    let value = |i: u16, j: u16, k: u16| (100 * i + 10 * j + k).to_le_bytes();
    let mut fortran = Vec::new();
    for k in 0..2 {
        (0..3).for_each(|j| (0..2).for_each(|i| fortran.extend(value(i, j, k))));
    }
    let mut c = Vec::new();
    for i in 0..2 {
        (0..3).for_each(|j| (0..2).for_each(|k| c.extend(value(i, j, k))));
    }
    assert_eq!(to_c_order(&fortran, &[2, 3, 2], 2), c);
    assert_eq!(to_c_order(&[], &[0, 3], 2), [0u8; 0]);
    assert_eq!(to_c_order(&[7, 8], &[], 2), [7, 8]);
}

#[test]
fn labels_of_any_whole_numbers_and_images_in_any_order_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    // Three images of 1x2 pixels of one channel: a[n, 0, w, 0] = 10n + w, the first index fastest.
    let images = npy("(3, 1, 2, 1)", "|u1", true, &[0, 10, 20, 1, 11, 21]);
    for (dtype, shape, bytes) in [
        ("<i4", "(3,)", vec![5, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
        (">i4", "(3,)", vec![0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 1, 0]),
        ("<u2", "(3, 1)", vec![5, 0, 1, 0, 0, 1]),
        (">i8", "(3,)", [5u64, 1, 256].iter().flat_map(|x| x.to_be_bytes()).collect()),
        ("<u8", "(3,)", [5u64, 1, 256].iter().flat_map(|x| x.to_le_bytes()).collect()),
    ] {
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in [("arr_0.npy", &images), ("arr_1.npy", &npy(shape, dtype, true, &bytes))] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        let read = read_npz_images(&path).unwrap();
        assert_eq!(read.labels, Some(vec![5, 1, 256]), "{dtype}");
        assert_eq!(read.images, [0, 1, 10, 11, 20, 21]);
        let mut parts = Vec::new();
        crate::io::NpzArrays::open(&path)
            .unwrap()
            .for_pictures(2, |part, size| {
                parts.push((part.to_vec(), size));
                Ok(true)
            })
            .unwrap();
        assert_eq!(parts, [(vec![0, 1, 10, 11], (2, 1, 1)), (vec![20, 21], (2, 1, 1))]);
    }
}

#[test]
fn hostile_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let open = |shape: &str, dtype: &str| {
        let bytes = npy(shape, dtype, false, &[1; 30]);
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("arr_0.npy", SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
        zip.finish().unwrap();
        read_npz_images(&path).map_err(|error| error.to_string())
    };
    assert_eq!(open("(1, 2, 5, 3)", "|u1").unwrap().labels, None);
    for shape in ["(4294967296, 4294967296, 4294967296, 3)", "(0, 4294967296, 4294967296, 4294967296)"] {
        assert!(open(shape, "|u1").unwrap_err().contains("arr_0"));
    }
    assert!(open("(1000000000, 100, 100, 3)", "|u1").unwrap_err().contains("30000000000000"));
    assert!(open("(1, 2, 5, 3)", "<f4").unwrap_err().contains("<f4"));
    assert!(open("(30,)", "|u1").unwrap_err().contains("(N, H, W"));
    let _ = open(&"(".repeat(4000), "|u1");
}
