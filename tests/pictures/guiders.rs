//! Every guider of the table in samplers of every form of step, and chains of several.

use freeguide::diffusion::SamplerKind;
use freeguide::diffusion::guiders::GUIDERS;
use freeguide::sample::SamplerOptions;

use super::models::{self, Process};
use super::record::{Cases, group};
use super::runs::{guided, guided_at, options, refused};

/// A guider as it is asked for here.
fn text(name: &str, usage: &str) -> String {
    match name {
        "constant" => "constant(2)".into(),
        "autoguidance" => "autoguidance(weak)".into(),
        "negative" => "negative(star)".into(),
        "also" => "also(circle:0.5 2:1)".into(),
        _ => usage.into(),
    }
}

/// Why a guider means nothing in a sampler, where that is so.
fn reason(name: &str, kind: SamplerKind) -> Option<&'static str> {
    let noiseless = matches!(kind, SamplerKind::Ddim | SamplerKind::Heun | SamplerKind::Dpmpp2m);
    match name {
        "cfg++" | "zero-star" if kind.is_multistep() => Some("two evaluations together"),
        "low-noise" if noiseless => Some("adds no noise"),
        // Here networks are told classes alone.
        "parts" => Some("no part \"vector\""),
        _ => None,
    }
}

fn every_guider(cases: &mut Cases, process: Process, kind: SamplerKind) {
    let (model, weak) = (models::small(process), models::other(process));
    for entry in GUIDERS {
        let text = text(entry.name, entry.usage);
        let case = format!("{}, {kind}, {text}", process.name);
        let weak = (entry.name == "autoguidance").then_some(&weak);
        let run = || guided(&model, weak, &text, options(&model, kind));
        match reason(entry.name, kind) {
            Some(part) => refused(&case, run(), part),
            None => cases.check(&case.replace(" = ", " is "), || run().unwrap()),
        }
    }
}

#[test]
fn guiders_of_networks_that_predict_noise() {
    group("guiders, eps", |cases| {
        every_guider(cases, models::CONTINUOUS_EPS, SamplerKind::Ancestral);
        every_guider(cases, models::LINEAR_EPS, SamplerKind::Ddim);
        every_guider(cases, models::CONTINUOUS_EPS, SamplerKind::Heun);
    });
}

#[test]
fn guiders_of_other_networks() {
    group("guiders, other outputs", |cases| {
        every_guider(cases, models::CONTINUOUS_V, SamplerKind::EulerAncestral);
        every_guider(cases, models::LEARNED_RANGE, SamplerKind::Ancestral);
        every_guider(cases, models::CONTINUOUS_X0, SamplerKind::Dpmpp2m);
    });
}

/// Chains, in one pass and in several, and the weights that need one evaluation.
#[test]
fn chains_of_guiders() {
    group("chains", |cases| {
        let all = [
            "constant",
            "interval(lo=-3,hi=4)+rescale(0.7)",
            "interval(lo=-3,hi=4)+apg(r=3)+low-noise(0.9)",
            "also(0:0.5 1:1)+annealing(t1=0.2,t2=0.8,s=1,psi=0)+rescale(0.7)",
            "zero-star(k=1)+rescale(0.5)",
            "negative(0)+also(2:0.3)+temperature(0.95)",
            "expression(eps_c + w * tanh(eps_c - eps_u))",
            "autoguidance(weak)+linear(from=0,to=3)",
        ];
        for process in [models::CONTINUOUS_EPS, models::LEARNED_RANGE] {
            let (model, weak) = (models::larger(process), models::larger(process));
            for chain in all {
                let weak = chain.contains("autoguidance").then_some(&weak);
                let options = options(&model, SamplerKind::Ancestral);
                let two_pass = SamplerOptions { two_pass: true, ..options.clone() };
                let case = |what: &str| format!("{}, {chain}, {what}", process.name);
                cases.check(&case("together"), || guided(&model, weak, chain, options.clone()).unwrap());
                cases.check(&case("in turn"), || guided(&model, weak, chain, two_pass.clone()).unwrap());
                cases
                    .check(&case("w is 0"), || guided_at(&model, weak, chain, options.clone(), 0.0).unwrap());
            }
        }
    });
}
