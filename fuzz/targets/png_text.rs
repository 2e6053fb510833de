#![no_main]
//! Notes in PNG files.

mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("x.png", bytes, |path| drop(freeguide::io::read_png_text(path)));
});
