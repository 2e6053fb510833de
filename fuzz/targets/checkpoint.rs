#![no_main]
//! A file of any kind as a checkpoint, its configuration read off its tensors. The flags are those of a small network,
//! so that files that are not published get as far as being checked.

mod common;

use freeguide::model::Checkpoint;

const FLAGS: &[u8] = br#"{"image_size": 16, "num_heads": 2, "noise_schedule": "linear"}"#;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    common::with_file("flags.json", FLAGS, |flags| {
        common::with_file("x", bytes, |path| {
            for flags in [None, Some(flags)] {
                let Ok(checkpoint) = Checkpoint::open(path, flags) else { continue };
                for name in checkpoint.source.names() {
                    let _ = checkpoint.source.values(&name);
                }
            }
        });
    });
});
