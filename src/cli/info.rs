//! `freeguide info`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::generations;
use crate::model::{Checkpoint, Kind, ModelConfig};
use crate::nn::UNet;
use crate::nn::unet::QkvLayout;
use crate::train::TrainOptions;

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
    /// A JSON file of guided-diffusion's flags, for a .pt file that is not published.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// List the classes' names.
    #[arg(long)]
    classes: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    let training = path.join("train.json");
    let known = ["model.safetensors", "config.json", "model_index.json", "train.json"];
    if path.is_dir() && !known.iter().any(|name| path.join(name).exists()) {
        return Err(Error::format(
            path,
            "holds neither a model (model.safetensors, or a diffusers folder's model_index.json) nor a training (train.json)",
        ));
    }
    if !training.exists() || path.join("model.safetensors").exists() {
        model(&Checkpoint::open(path, args.config.as_deref())?, args.classes)?;
    }
    if training.exists() {
        progress(path, &training)?;
    }
    Ok(())
}

fn model(checkpoint: &Checkpoint, classes: bool) -> Result<()> {
    let config = &checkpoint.config;
    let parameters = checkpoint.parameters()?;
    println!("{}", checkpoint.source.path().display());
    for note in &checkpoint.notes {
        println!("  {note}");
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
    if let Some(rate) = config.ema_rate {
        println!("  weights: average at rate {rate}");
    }
    let unet = &config.unet;
    println!("  pictures: {0}x{0}, {1} channels", unet.sample_size, unet.in_channels);
    println!("  classes: {}", summary(&config.class_names));
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
        for (label, name) in config.class_names.iter().enumerate() {
            println!("  {label}: {name}");
        }
    }
    Ok(())
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
            "  sampling: {} steps, v = {}, clip {}; guidance {}",
            config.sampling.steps,
            config.sampling.variance_exponent,
            config.sampling.clip,
            if config.can_guide() { "possible" } else { "not possible: there is no null class" }
        );
        return;
    };
    println!(
        "  schedule: {} of {steps} steps, predicts {}, variances {}{}",
        scheduler.beta_schedule,
        scheduler.prediction_type,
        scheduler.variance_type.as_deref().unwrap_or("fixed_small"),
        if scheduler.rescale_timesteps { ", is told t·1000/T" } else { "" }
    );
    println!(
        "  sampling: {} steps, clip {}; guidance {}",
        config.sampling.steps,
        config.sampling.clip,
        if config.can_guide() {
            "possible"
        } else {
            "by a classifier or a second model: there is no null class"
        }
    );
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
    match names {
        [] => "none".into(),
        few if few.len() <= 12 => few.join(", "),
        [first, .., last] => format!("{} from {first} to {last}", names.len()),
        [one] => one.clone(),
    }
}
