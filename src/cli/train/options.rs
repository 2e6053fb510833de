//! The options of a training that a command line asks for, and what they cost.

use crate::cli::ranges;
use crate::data::Dataset;
use crate::diffusion::{Prediction, SigmaSchedule};
use crate::error::{Error, Result, brief};
use crate::gpu::Gpu;
use crate::nn::UNet;
use crate::nn::unet::NullClass;
use crate::train::{Objective, Preset, TrainOptions, TrainSchedule, TrainStep};

use super::args::Args;

impl Args {
    pub(super) fn options(&self, dataset: &Dataset) -> Result<TrainOptions> {
        let preset = Preset::or_usual(self.preset.as_deref(), dataset)?;
        let mut options = preset.options(dataset, self.seed.seed);
        let o = &mut options;
        (o.random_crop, o.stretch) = match self.crop.as_str() {
            "center" => (false, false),
            "random" => (true, false),
            "none" => (false, true),
            other => {
                return Err(Error::Config(format!(
                    "--crop {other:?} is none of center, random, none",
                    other = brief(&other)
                )));
            }
        };
        o.flip = self.flip.flip;
        o.upsample_from = self.upsample_from;
        if o.upsample_from.is_some() {
            o.unet.low_res_channels = o.unet.in_channels;
            if self.sample_every.is_some_and(|every| every > 0) {
                return Err(Error::Config(
                    "--sample-every: an upsampler makes no pictures of its own".into(),
                ));
            }
        }
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut o.unet.model_channels, &self.channels);
        if let Some(text) = &self.channel_mult {
            o.unet.channel_mult = ranges::numbers(text)?;
            // The preset's attention is for the preset's levels: keep what still exists.
            let sizes = o.unet.sizes();
            o.unet.attention_resolutions.retain(|size| sizes.contains(size));
        }
        set(&mut o.unet.layers_per_block, &self.res_blocks);
        self.attention.set(o)?;
        self.variations.set(&mut o.unet);
        set(&mut o.unet.norm_num_groups, &self.norm_groups);
        set(&mut o.unet.dropout, &self.dropout.map(|share| share as f32));
        o.unet.condition_from = self.condition_from.clone();
        if let Some(batch) = self.batch {
            o.batch = batch;
            // Not the microbatch of a set's own smaller batch.
            o.microbatch = batch.min(preset.microbatch);
            if !batch.is_multiple_of(o.microbatch.max(1)) {
                o.microbatch = batch;
            }
        }
        set(&mut o.microbatch, &self.microbatch);
        set(&mut o.learning_rate, &self.lr.lr);
        set(&mut o.warmup_images, &self.warmup);
        set(&mut o.weight_decay, &self.weight_decay);
        set(&mut o.grad_clip, &self.grad_clip);
        set(&mut o.images, &self.images.images);
        if let Some(epochs) = self.epochs {
            o.images = epochs.saturating_mul(dataset.len() as u64);
        }
        o.unconditional_probability = self.p_uncond;
        self.averages.set(o)?;
        o.objective = Objective {
            schedule: self.schedule,
            steps_total: self.steps_total.steps_total,
            prediction: self.prediction()?,
            learn_sigma: self.learn_sigma,
            loss: self.loss,
            t_sampler: self.t_sampler,
        };
        let (noisy, clean) = o.objective.default_log_snrs();
        o.log_snr_min = self.lambda_min.unwrap_or(noisy);
        o.log_snr_max = self.lambda_max.unwrap_or(clean);
        if self.schedule == TrainSchedule::Edm {
            o.sampling.steps = SigmaSchedule::STEPS;
        }
        o.unet.out_channels = o.objective.out_channels(o.unet.in_channels);
        if !o.attributes.is_empty() {
            o.part_dropout = self.p_part.unwrap_or(0.1);
            // Those on the way are of classes without a vector, or of nothing.
            let taught = o.unconditional_probability > 0.0 && o.part_dropout > 0.0;
            if self.sample_every.is_some_and(|every| every > 0) && !taught {
                return Err(Error::Config(
                    "--sample-every draws without attributes: give --p-uncond and --p-part above 0".into(),
                ));
            }
        }
        if self.unlabelled || o.attributes.iter().any(|attribute| attribute.name == "class") {
            (o.unet.num_classes, o.unet.null_class) = (None, NullClass::Absent);
            o.class_names = Vec::new();
        }
        o.precision = self.precision.read()?;
        set(&mut o.sample_every, &self.sample_every);
        set(&mut o.save_every, &self.save_every.save_every);
        options.check()?;
        Ok(options)
    }

    /// What the network predicts: what is asked for, or the schedule's own.
    fn prediction(&self) -> Result<Prediction> {
        let asked = self.predict.unwrap_or(match self.schedule {
            TrainSchedule::Flow => Prediction::FLOW,
            TrainSchedule::Edm => Prediction::EDM,
            _ => Prediction::Eps,
        });
        match (asked, self.sigma_data) {
            (Prediction::Preconditioned { .. }, Some(sigma_data)) => {
                Ok(Prediction::Preconditioned { sigma_data })
            }
            (_, Some(_)) => Err(Error::Config(format!(
                "--sigma-data is of --predict edm (with --schedule edm), and this network predicts {asked}"
            ))),
            (_, None) => Ok(asked),
        }
    }
}

/// Prints them with parameters, memory and work, taking none of that memory.
pub(super) fn dry_run(gpu: &Gpu, options: &TrainOptions) -> Result<()> {
    let unet = UNet::new(&options.unet)?;
    println!("{}", serde_json::to_string_pretty(options).expect("plain values"));
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    println!("parameters: {} in {} tensors", unet.parameters().count(), unet.parameters().specs().len());
    let cost = TrainStep::cost(gpu, &unet, options)?;
    println!(
        "memory: {:.3} GiB ({:.3} for parameters, gradients, moments and averages, {:.3} for activations)",
        gib(cost.state_bytes + cost.activation_bytes),
        gib(cost.state_bytes),
        gib(cost.activation_bytes)
    );
    if let Err(error) = gpu.check_room("this training", cost.bytes()) {
        eprintln!("warning: {error}");
    }
    let steps = options.images.div_ceil(options.batch as u64);
    println!(
        "work: {:.3} TFLOP a step of {} images, {:.3} TFLOP for all {} steps",
        cost.flops * 1e-12,
        options.batch,
        cost.flops * steps as f64 * 1e-12,
        steps
    );
    Ok(())
}
