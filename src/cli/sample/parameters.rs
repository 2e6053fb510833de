//! What a picture's file says of how it was made.

use crate::diffusion::{Guidance, Process, Respacing};
use crate::sample::SamplerOptions;
use crate::tensor::DType;

use super::Args;

pub(super) fn parameters(
    args: &Args,
    options: &SamplerOptions,
    process: &Process,
    guidance: Guidance,
) -> Vec<(String, String)> {
    let method = &options.method;
    let mut sampler = process.sampler(method, options.steps).to_string();
    if let Some(eta) = method.eta {
        sampler += &format!(", eta {eta}");
    }
    if let Some(variance) = &args.variance {
        sampler += &format!(", variance {variance}");
    }
    let steps = method.respacing.as_ref().map_or(options.steps.to_string(), Respacing::to_string);
    let has_exponent = process.has_variance_exponent(method, options.steps);
    let spaced = method.respacing.is_none().then(|| process.spacing(method, options.steps).to_string());
    let pairs = [
        ("Software", format!("freeguide {}", env!("CARGO_PKG_VERSION"))),
        (
            "model",
            args.model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        ),
        ("guidance_weight", guidance.weight().to_string()),
        ("guidance_scale", guidance.scale().to_string()),
        ("sampler", sampler),
        ("steps", steps),
        ("spacing", spaced.unwrap_or_default()),
        ("v", if has_exponent { options.variance_exponent.to_string() } else { String::new() }),
        ("clip", options.clip.to_string()),
        ("precision", if options.dtype == DType::F16 { "f16" } else { "f32" }.to_owned()),
    ];
    // What does not decide the picture is left out.
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(key, value)| (key.to_owned(), value)).collect()
}
