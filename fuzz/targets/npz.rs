#![no_main]
//! Archives of NumPy arrays.

mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("x.npz", bytes, |path| {
        let Ok(read) = freeguide::io::read_npz_images(path) else { return };
        assert_eq!(read.images.len(), read.count * read.width * read.height * read.channels);
    });
});
