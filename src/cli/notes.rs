//! What a file of pictures says of how it was made: all that decides them, under the names of the options.
//!
//! Structures are taken apart whole, so that an option that is new is written down, or left out on purpose, before the
//! program builds again.

use std::path::Path;

use crate::diffusion::{Method, Process, Variance};
use crate::gpu::Gpu;
use crate::model::{ClassifierModel, Model, ModelConfig, named_again};
use crate::sample::{SamplerOptions, Uncond};
use crate::tensor::DType;

/// (keyword, value) each.
pub type Notes = Vec<(String, String)>;

/// A note.
pub fn note(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

/// The program, and the device whose last bits these are.
pub fn program(gpu: &Gpu) -> Notes {
    let device = gpu.capabilities();
    vec![
        note("Software", format!("freeguide {}", env!("CARGO_PKG_VERSION"))),
        note("device", format!("{}, {} kernels", device.name, device.rung)),
    ]
}

/// A model as it was named, its weights' checksum and its process, under `role`.
pub fn of_model(role: &str, named: &Path, model: &Model) -> Notes {
    of_network(role, file_name(named), model.checksum(), &model.config)
}

/// The same of a second model, for which no other option says which of its weights these are.
pub fn of_second(role: &str, named: &Path, model: &Model) -> Notes {
    let name = model.found.as_ref().map_or_else(|| file_name(named), |found| named_again(named, found));
    of_network(role, name, model.checksum(), &model.config)
}

/// The same of a classifier.
pub fn of_classifier(role: &str, named: &Path, classifier: &ClassifierModel) -> Notes {
    of_network(role, named_again(named, &classifier.found), classifier.checksum(), &classifier.config)
}

fn of_network(role: &str, name: String, checksum: u32, config: &ModelConfig) -> Notes {
    let scheduler = serde_json::to_string(&config.scheduler).expect("plain values");
    vec![
        note(role, name),
        note(&format!("{role}_weights"), weights(checksum)),
        note(&format!("{role}_scheduler"), scheduler),
    ]
}

/// A path's last part: where a file lies is nobody's business but its owner's.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A checksum of weights, as notes have it.
pub fn weights(checksum: u32) -> String {
    format!("crc32 {checksum:08x}")
}

/// How pictures are drawn. `batch` is said where it decides.
pub fn of_sampling(options: &SamplerOptions, process: &Process) -> Notes {
    // How the two halves of guidance are evaluated changes no picture.
    let SamplerOptions {
        batch,
        steps,
        method,
        variance_exponent,
        clip,
        guided: _,
        guiders,
        uncond,
        two_pass: _,
        tokens: _,
        dtype,
        fast,
        conditions: _,
        size,
    } = options;
    let Method { kind: _, eta, respacing, variance, spacing: _ } = method;
    let mut notes = vec![note("sampler", process.sampler(method, *steps))];
    notes.extend(size.map(|size| note("size", size)));
    notes.extend(eta.map(|eta| note("eta", eta)));
    notes.extend(variance.map(|variance| note("variance", variance_name(variance))));
    notes.push(respacing.as_ref().map_or_else(|| note("steps", steps), |spec| note("respacing", spec)));
    if respacing.is_none() {
        notes.push(note("spacing", process.spacing(method, *steps)));
    }
    if process.has_variance_exponent(method, *steps) {
        notes.push(note("v", variance_exponent));
    }
    notes.push(note("clip", clip));
    notes.push(note("precision", if *dtype == DType::F16 { "f16" } else { "f32" }));
    if *fast {
        notes.push(note("fast", format!("in batches of {batch}")));
    }
    if !guiders.is_empty() {
        notes.push(note("guider", guiders));
    }
    match uncond {
        Uncond::Null => {}
        Uncond::FromClasses { prior } => {
            notes.push(note("uncond", "from-classes"));
            notes.extend(prior.as_ref().map(|prior| note("uncond_prior", format!("{prior:?}"))));
        }
    }
    notes
}

fn variance_name(variance: Variance) -> &'static str {
    match variance {
        Variance::Small => "small",
        Variance::Large => "large",
        Variance::Learned | Variance::LearnedRange => "learned",
    }
}
