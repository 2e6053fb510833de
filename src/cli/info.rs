//! `freeguide info`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::{SafetensorsFile, generations};
use crate::model::read_config;
use crate::nn::UNet;
use crate::train::TrainOptions;

/// Say what a model or a training folder is: its options, parameters and images seen.
#[derive(clap::Args)]
pub struct Args {
    /// A model's folder or its .safetensors file.
    #[arg(value_name = "MODEL|DIR")]
    path: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    let training = path.join("train.json");
    let has_model = path.is_file() || path.join("model.safetensors").exists();
    if !has_model && !training.exists() {
        return Err(Error::format(
            path,
            "holds neither a model (model.safetensors) nor a training (train.json)",
        ));
    }
    if has_model {
        model(path)?;
    }
    if training.exists() {
        progress(path, &training)?;
    }
    Ok(())
}

fn model(path: &Path) -> Result<()> {
    let (weights, config) = read_config(path)?;
    let unet = UNet::new(&config.unet)?;
    let file = SafetensorsFile::open(&weights)?;
    println!("{}", weights.display());
    println!("  a UNet of {} parameters in {} tensors", unet.parameters().count(), file.names().len());
    println!("  trained on {} for {} images", config.data, config.images_seen);
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
    println!(
        "  schedule: {} from log SNR {} to {}, predicts {}, labels dropped with probability {}",
        config.scheduler.beta_schedule,
        config.scheduler.log_snr_min,
        config.scheduler.log_snr_max,
        config.scheduler.prediction_type,
        config.unconditional_probability
    );
    println!(
        "  sampling: {} steps, v = {}, clip {}; guidance {}",
        config.sampling.steps,
        config.sampling.variance_exponent,
        config.sampling.clip,
        if config.can_guide() { "possible" } else { "not possible: there is no null class" }
    );
    Ok(())
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
