#![no_main]
//! Safetensors: every tensor that a file is said to hold can be read.

mod common;

use freeguide::io::SafetensorsFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("x.safetensors", bytes, |path| {
        let Ok(file) = SafetensorsFile::open(path) else { return };
        for name in file.names() {
            let (dtype, shape, held) = file.tensor(&name).expect("a tensor that was checked");
            assert_eq!(held.len() * 8, shape.iter().product::<usize>() * dtype.bitsize());
            let _ = file.to_f32(&name);
        }
    });
});
