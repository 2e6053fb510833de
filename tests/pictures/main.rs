//! What guards a change of the sampling and training code: small random networks drawn from in every way there is, and
//! every picture, every plan and every file compared with what was recorded before the change.
//!
//! Recorded in `tests/fixtures/pictures/`, a line a case:
//!
//! * pictures and files of trainings: a hash of their bits, in a file for each adapter. Bits are those of an adapter, its
//!   driver and, of a software adapter, of the host's processor and its vectors; so the file's name holds a hash of the
//!   driver's description and of what a small kernel of exponentials, sines and sums returns (`probe.rs`). On any other adapter there is
//!   no record: there every fourth case runs twice, the runs are compared with each other, and the test says so.
//! * dispatches: how many a plan has and a hash of their kernels and workgroups in order, in a file for each rung of kernels.
//!
//! With the environment variable `FREEGUIDE_RECORD`:
//!
//! * `1` writes the records of the cases that run. Never in the commit that changes the code which they guard.
//! * `must` fails where there is no record.
//! * `lists` writes every plan's dispatches to `target/tmp/pictures/`, to be compared with those of another build. A plan that
//!   differs from its record is written there in any case.

mod guiders;
mod models;
mod networks;
mod probe;
mod record;
mod runs;
mod samplers;
mod sessions;
mod toys;
mod trainings;

/// Denoising steps of a picture, where a case does not say otherwise.
const STEPS: usize = 6;

/// The groups of cases, a test each.
const GROUPS: &[&str] = &[
    "continuous",
    "flow and edm",
    "linear and cosine",
    "learned variances",
    "options",
    "guiders, eps",
    "guiders, other outputs",
    "chains",
    "second networks",
    "classifier",
    "from classes",
    "late",
    "distilled",
    "upsampler",
    "session",
    "toy",
    "trainings",
    "students",
];
