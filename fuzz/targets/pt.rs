#![no_main]
//! PyTorch files, zip and older: every tensor that a file is said to hold can be read.

mod common;

use freeguide::io::{PtFile, TensorSource};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("x.pt", bytes, |path| {
        let Ok(file) = PtFile::open(path) else { return };
        for name in file.names() {
            let (dtype, shape) = file.about(&name).expect("a tensor that is named");
            let held = file.bytes(&name).expect("a tensor that was checked");
            assert_eq!(held.len() * 8, shape.iter().product::<usize>() * dtype.bitsize());
        }
    });
});
