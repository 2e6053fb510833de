#![no_main]
//! `config.json` of a folder, and a file of flags: a network of whatever size is declared is refused or checked against
//! a file that holds nothing.

mod common;

use freeguide::model::{Checkpoint, Flags};

/// A safetensors file without tensors.
const EMPTY: &[u8] = b"\x08\0\0\0\0\0\0\0{}      ";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("flags.json", bytes, |path| drop(Flags::read(path)));
    common::with_file("model.safetensors", EMPTY, |model| {
        common::with_file("config.json", bytes, |_| {
            assert!(Checkpoint::open(model, None).is_err());
        });
    });
});
