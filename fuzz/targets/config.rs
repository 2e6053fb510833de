#![no_main]
//! `config.json` of this program's and of diffusers' folders, an index of shards, and a file of flags: a network of
//! whatever size is declared is refused or checked against a file that holds nothing.

mod common;

use freeguide::model::{Checkpoint, Flags};

/// A safetensors file without tensors.
const EMPTY: &[u8] = b"\x08\0\0\0\0\0\0\0{}      ";
const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("flags.json", bytes, |path| drop(Flags::read(path)));
    common::with_file("scheduler_config.json", b"{}", |_| ());
    common::with_file("model.safetensors", EMPTY, |model| {
        common::with_file("config.json", bytes, |_| {
            assert!(Checkpoint::open(model, None).is_err());
        });
    });
    common::with_file("diffusion_pytorch_model.safetensors", EMPTY, |weights| {
        assert!(Checkpoint::open(weights, None).is_err());
        // Without the file its index is looked for.
        std::fs::remove_file(weights).expect("it was written");
        common::with_file("config.json", include_bytes!("../seeds/config/unet2d"), |_| {
            common::with_file(INDEX, bytes, |index| {
                assert!(Checkpoint::open(index, None).is_err());
            });
        });
    });
});
