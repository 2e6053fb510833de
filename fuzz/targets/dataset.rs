#![no_main]
//! Data sets: IDX files and zips. The first byte says under which name the rest is opened.

mod common;

use freeguide::data::Dataset;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = ["x-images-idx3-ubyte", "x-images-idx3-ubyte.gz", "x.zip"][*kind as usize % 3];
    common::with_file(name, bytes, |path| {
        let Ok(set) = Dataset::open(path.to_str().expect("a plain name"), Some(freeguide::shape::Extent::square(8))) else { return };
        for i in 0..set.len().min(16) {
            let _ = set.decode(i);
        }
    });
});
