//! Help texts about samplers, made of their table.

use crate::diffusion::moves::{Entry, SAMPLERS};

/// Of the option that names one.
pub fn help() -> String {
    let names: Vec<&str> = SAMPLERS.iter().map(|entry| entry.name).collect();
    format!(
        "The sampler: {} [default: ancestral; on a model of discrete time ddim below 50 steps, on a flow always]; see below",
        names.join(", ")
    )
}

/// Of η: which samplers have one, those of the same default together.
pub fn eta_help() -> String {
    let mut defaults: Vec<f64> = SAMPLERS.iter().filter_map(|entry| entry.eta).collect();
    defaults.dedup();
    let of = |default: f64| {
        let named: Vec<&str> = SAMPLERS.iter().filter(|e| e.eta == Some(default)).map(|e| e.name).collect();
        format!("{} (default {default})", named.join(" and "))
    };
    let all: Vec<String> = defaults.into_iter().map(of).collect();
    format!("η of {}: 0 adds no noise, 1 as much as the posterior", all.join(", "))
}

/// Every sampler, for the end of a help text.
pub fn table() -> String {
    let line = |entry: &Entry| format!("  {:<16} {}\n", entry.name, entry.about);
    format!("Samplers:\n{}", SAMPLERS.iter().map(line).collect::<String>())
}
