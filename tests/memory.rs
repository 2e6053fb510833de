//! Memory in use stays flat over a thousand steps. Alone in its file: other tests in the process would be measured too.

#![cfg(target_os = "linux")]

mod common;

use common::{gpu, tiny};
use freeguide::train::{Event, TrainOptions, Trainer};

/// Resident memory of this process in MiB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

#[test]
fn a_thousand_steps_take_no_more_memory_than_two_hundred() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = TrainOptions { batch: 2, microbatch: 2, ..tiny(2000) };
    options.unet.channel_mult = vec![1.0];
    options.unet.attention_resolutions = vec![];
    let mut trainer = Trainer::open(&gpu(), common::digits(), &options, dir.path()).unwrap();
    let mut measured = Vec::new();
    let mut step = 0;
    let watch = |_: &Trainer, event: Event<'_>| {
        if let Event::Step(_) = event {
            step += 1;
            if step % 200 == 0 {
                measured.push(resident());
            }
        }
        Ok(())
    };
    trainer.run(|| false, watch).unwrap();
    assert_eq!(measured.len(), 5);
    let growth = measured[4] - measured[0];
    println!("resident after every 200 steps: {measured:.1?} MiB");
    assert!(growth < 4.0, "resident memory grew by {growth:.1} MiB: {measured:.1?}");
}
