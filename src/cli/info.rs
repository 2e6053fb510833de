//! `freeguide info`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, one_line};
use crate::io::generations;
use crate::model::{Checkpoint, Conditions, Kind, ModelConfig, SchedulerConfig};
use crate::nn::UNet;
use crate::nn::unet::QkvLayout;
use crate::train::TrainOptions;

use super::model_args::ModelArgs;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide info out/digits
  freeguide info 64x64_diffusion.pt --classes";

/// Say what a model or a training folder is: its options, parameters and images seen.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// A model's folder, its .safetensors file, or a .pt file of guided-diffusion.
    #[arg(value_name = "MODEL|DIR")]
    path: PathBuf,
    #[command(flatten)]
    opening: ModelArgs,
    /// List the classes' names.
    #[arg(long)]
    classes: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    let training = path.join("train.json");
    let holds_model = !path.is_dir() || Checkpoint::is_in(path) || path.join("model_index.json").exists();
    if !holds_model && !training.exists() && !path.join("config.json").exists() {
        return Err(Error::format(
            path,
            "holds neither a model (model.safetensors, or a diffusers folder's model_index.json) nor a training (train.json)",
        ));
    }
    if holds_model || !training.exists() {
        model(&Checkpoint::choose(path, &args.opening.choice())?, args.classes)?;
    }
    if training.exists() {
        progress(path, &training)?;
    }
    Ok(())
}

fn model(checkpoint: &Checkpoint, classes: bool) -> Result<()> {
    let config = &checkpoint.config;
    let parameters = checkpoint.parameters()?;
    let found = &checkpoint.found;
    println!("{}", found.file.display());
    println!("  file: {}", found.file_why);
    println!("  network: {}", found.network_why);
    println!("  configuration: {}", found.configuration);
    for note in &checkpoint.notes {
        println!("  {note}");
    }
    let opaque = checkpoint.source.opaque();
    if !opaque.is_empty() {
        let objects: Vec<String> = opaque.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        println!("  objects beside the tensors, which are never made: {}", summary(&objects));
    }
    let kind = match (checkpoint.kind(), config.unet.low_res_channels) {
        (Kind::Classifier, _) => "a classifier",
        (Kind::UNet, 0) => "a UNet",
        (Kind::UNet, _) => "an upsampling UNet",
    };
    println!("  {kind} of {} parameters in {} tensors", parameters.count(), parameters.specs().len());
    match config.images_seen {
        0 => println!("  trained on {}", config.data),
        images => println!("  trained on {} for {images} images", config.data),
    }
    if let Some(weights) = found.weights {
        println!("  weights: {weights}");
        weights.warning().iter().for_each(|warning| println!("  warning: {warning}"));
    }
    let unet = &config.unet;
    let what = if unet.sample_size.is_line() { "signals" } else { "pictures" };
    println!("  {what}: {}, {} channels", unet.sample_size, unet.in_channels);
    println!("  classes: {}", summary(&config.class_names));
    for attribute in &config.attributes {
        println!("  attribute: {attribute}");
    }
    let widths: Vec<String> = unet.widths().iter().map(usize::to_string).collect();
    println!(
        "  levels: {} channels, {} blocks each, attention at {:?}, {} norm groups, dropout {}",
        widths.join(", "),
        unet.layers_per_block,
        unet.attention_resolutions,
        unet.norm_num_groups,
        unet.dropout
    );
    let heads = match (unet.num_attention_heads, unet.attention_head_dim) {
        (Some(heads), _) => format!("{heads} heads"),
        (None, channels) => format!("heads of {} channels", channels.unwrap_or(0)),
    };
    let order = if unet.qkv_order == QkvLayout::New { "new" } else { "legacy" };
    println!("  attention: {heads}, qkv in the {order} order");
    if checkpoint.kind() == Kind::UNet {
        noise(config);
        conditions(config);
    }
    if classes {
        for (label, given) in config.class_names.iter().enumerate() {
            println!("  {label}: {}", one_line(given));
        }
    }
    Ok(())
}

/// What β are, where a schedule's name does not say it.
fn betas(scheduler: &SchedulerConfig) -> String {
    let SchedulerConfig { beta_start, beta_end, trained_betas, rescale_betas_zero_snr, .. } = scheduler;
    let ends = match (trained_betas, beta_start, beta_end) {
        (Some(_), ..) => ", every β given".to_owned(),
        (None, Some(first), Some(last)) => format!(", β from {first} to {last}"),
        _ => String::new(),
    };
    ends + if *rescale_betas_zero_snr { ", rescaled to end at zero SNR" } else { "" }
}

/// What a diffusion model was trained for.
fn noise(config: &ModelConfig) {
    let scheduler = &config.scheduler;
    let Some(steps) = scheduler.num_train_timesteps else {
        println!(
            "  schedule: {} from log SNR {} to {}, predicts {}, labels dropped with probability {}",
            scheduler.beta_schedule,
            scheduler.log_snr_min,
            scheduler.log_snr_max,
            scheduler.prediction_type,
            config.unconditional_probability
        );
        println!(
            "  sampling: {} steps{}{}, clip {}; guidance {}",
            config.sampling.steps,
            ways(config),
            // A flow has no chain whose variance this would be.
            match scheduler.beta_schedule.as_str() {
                "continuous" => format!(", v = {}", config.sampling.variance_exponent),
                _ => String::new(),
            },
            config.sampling.clip,
            Conditions::of(config).guidance()
        );
        return;
    };
    println!(
        "  schedule: {} of {steps} steps{}, predicts {}, variances {}{}",
        scheduler.beta_schedule,
        betas(scheduler),
        scheduler.prediction_type,
        scheduler.variance_type.as_deref().unwrap_or("fixed_small"),
        if scheduler.rescale_timesteps { ", is told t·1000/T" } else { "" }
    );
    println!(
        "  sampling: {} steps{}, clip {}; guidance {}",
        config.default_steps(),
        ways(config),
        config.sampling.clip,
        Conditions::of(config).guidance()
    );
}

/// The sampler and the spacing where they are not the process's own.
fn ways(config: &ModelConfig) -> String {
    let sampler = config.sampling.sampler.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
    let spacing =
        config.sampling.spacing.as_ref().map(|name| format!(", spacing {name}")).unwrap_or_default();
    sampler + &spacing
}

/// How the condition enters, where it is not as usual.
fn conditions(config: &ModelConfig) {
    if let Some([low, high]) = config.unet.guidance_range {
        let steps = config.sampling.steps;
        let halved = match config.sampling.sampler.as_deref() {
            Some("halving") => format!("; its steps were halved to {steps}"),
            _ => String::new(),
        };
        println!("  distilled: is told w from {low} to {high}, one evaluation a step{halved}");
    }
    if let Some(block) = &config.unet.condition_from {
        println!(
            "  late conditioning: from {block} on; what is before it runs once for both halves of guidance"
        );
        if let Ok(unet) = UNet::new(&config.unet) {
            let (work, giga) = (unet.work(), 1e-9);
            println!(
                "  a guided step of one picture: {:.4} GFLOP instead of {:.4}, {:.0} % saved",
                work.all * work.guided_evaluations() * giga,
                2.0 * work.all * giga,
                50.0 * (2.0 - work.guided_evaluations())
            );
        }
    }
}

fn progress(dir: &Path, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let options: TrainOptions =
        serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))?;
    println!("{}", path.display());
    let states = generations(dir, "state")?;
    let seen = states.first().map_or(0, |(images, _)| *images);
    println!("  {seen} of {} images seen, {} saved states", options.images, states.len());
    // The network and the classes are told of the model.
    let rest = serde_json::to_value(&options).expect("plain values");
    if let Some(map) = rest.as_object() {
        for (key, value) in
            map.iter().filter(|(key, _)| !["unet", "class_names", "sampling"].contains(&key.as_str()))
        {
            println!("  {}: {value}", key.replace('_', " "));
        }
    }
    Ok(())
}

fn summary(names: &[String]) -> String {
    let shown = |names: &[String]| names.iter().map(|given| one_line(given)).collect::<Vec<_>>().join(", ");
    match names {
        [] => "none".into(),
        few if few.len() <= 12 => shown(few),
        [first, .., last] => format!("{} from {} to {}", names.len(), one_line(first), one_line(last)),
        [one] => one_line(one),
    }
}
