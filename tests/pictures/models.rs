//! Small networks of random numbers. All that names the library's types of models stands here and in `runs.rs`.

use freeguide::model::{Model, ModelConfig};
use freeguide::nn::{Classifier, Parameters, UNet, Weights};
use freeguide::random::init_uniform;
use serde_json::{Value, json};

use super::STEPS;
use super::record::gpu;
use freeguide::tensor::DType;

/// Classes that the networks know, the null class not counted.
pub const CLASSES: usize = 3;

/// A trained process: its name, its scheduler as files have it, and how many outputs a channel has.
#[derive(Clone, Copy)]
pub struct Process {
    pub name: &'static str,
    schedule: &'static str,
    prediction: &'static str,
    /// Of a discrete process: T and the variance.
    discrete: Option<(usize, &'static str)>,
    outputs: usize,
}

impl Process {
    const fn continuous(name: &'static str, prediction: &'static str) -> Process {
        Process { name, schedule: "continuous", prediction, discrete: None, outputs: 1 }
    }

    pub fn is_continuous(&self) -> bool {
        self.discrete.is_none()
    }

    /// Whether the network gives the mean of a step, which ancestral steps alone can use.
    pub fn is_mean(&self) -> bool {
        self.prediction == "previous_sample"
    }
}

pub const CONTINUOUS_EPS: Process = Process::continuous("continuous eps", "epsilon");
pub const CONTINUOUS_X0: Process = Process::continuous("continuous x0", "sample");
pub const CONTINUOUS_V: Process = Process::continuous("continuous v", "v_prediction");
pub const FLOW: Process = Process { schedule: "flow", ..Process::continuous("flow", "flow_prediction") };
pub const EDM: Process = Process { schedule: "edm", ..Process::continuous("edm", "preconditioned") };
pub const LINEAR_EPS: Process = Process {
    name: "linear eps",
    schedule: "linear",
    prediction: "epsilon",
    discrete: Some((1000, "fixed_large")),
    outputs: 1,
};
/// It is told t·1000/T.
pub const COSINE_V: Process = Process {
    name: "cosine v",
    schedule: "cosine",
    prediction: "v_prediction",
    discrete: Some((60, "fixed_small")),
    outputs: 1,
};
pub const LINEAR_MEAN: Process =
    Process { name: "linear previous x", prediction: "previous_sample", ..LINEAR_EPS };
pub const LEARNED_RANGE: Process = Process {
    name: "cosine eps, learned range",
    schedule: "cosine",
    prediction: "epsilon",
    discrete: Some((1000, "learned_range")),
    outputs: 2,
};
pub const LEARNED: Process = Process {
    name: "linear x0, learned",
    schedule: "linear",
    prediction: "sample",
    discrete: Some((100, "learned")),
    outputs: 2,
};

/// The configuration of a network, as `config.json` has it.
fn config(process: Process, change: impl FnOnce(&mut Value)) -> ModelConfig {
    let scheduler = match process.discrete {
        // From σ/α = 80 down to 0.002.
        None if process.schedule == EDM.schedule => json!({ "beta_schedule": process.schedule,
            "prediction_type": process.prediction, "sigma_data": 0.5, "log_snr_min": -8.764, "log_snr_max": 12.43 }),
        None => json!({ "beta_schedule": process.schedule, "prediction_type": process.prediction,
            "log_snr_min": -20.0, "log_snr_max": 20.0 }),
        Some((steps, variance)) => json!({ "beta_schedule": process.schedule,
            "prediction_type": process.prediction, "num_train_timesteps": steps, "variance_type": variance,
            "rescale_timesteps": process.schedule == "cosine" && steps != 1000 }),
    };
    let mut value = json!({
        "_class_name": "FreeguideUNet",
        "unet": {
            "sample_size": 8, "in_channels": 3, "out_channels": 3 * process.outputs, "model_channels": 8,
            "channel_mult": [1.0], "layers_per_block": 1, "attention_resolutions": [],
            "attention_head_dim": 4, "num_attention_heads": null, "qkv_order": "new", "norm_num_groups": 4,
            "dropout": 0.0, "resample": "resnet", "resnet_time_scale_shift": "scale_shift",
            "residual_scaling": false, "num_classes": CLASSES, "null_class": "learned"
        },
        "scheduler": scheduler,
        "sampling": { "steps": STEPS, "variance_exponent": 0.3, "clip": "static" },
        "class_names": ["circle", "square", "star"],
        "data": "none", "unconditional_probability": 0.1, "images_seen": 8, "ema_rate": null
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// Numbers for every parameter; layers that would begin as zeros begin as something.
fn values(parameters: &Parameters, seed: u64) -> Vec<Vec<f32>> {
    let mut values = parameters.initial_values(seed);
    for (i, values) in values.iter_mut().enumerate() {
        if values.iter().all(|x| *x == 0.0) {
            *values = init_uniform(seed + 1, i as u64, values.len(), 0.2);
        }
    }
    values
}

fn model(config: ModelConfig, seed: u64) -> Model {
    let values = values(UNet::new(&config.unet).unwrap().parameters(), seed);
    Model::of_values(gpu(), config, &values, "a small model".as_ref()).unwrap()
}

/// A network of one level and some seven thousand numbers, for what varies beside the network.
pub fn small(process: Process) -> Model {
    model(config(process, |_| ()), 3)
}

/// Another of the same kind.
pub fn other(process: Process) -> Model {
    model(config(process, |_| ()), 4)
}

fn two_levels(config: &mut Value) {
    config["unet"]["channel_mult"] = json!([1.0, 2.0]);
    config["unet"]["attention_resolutions"] = json!([4]);
}

/// A network of two levels with attention, for what varies in the network.
pub fn larger(process: Process) -> Model {
    model(config(process, two_levels), 5)
}

/// A network without classes.
pub fn without_classes(process: Process) -> Model {
    let change = |config: &mut Value| {
        (config["unet"]["num_classes"], config["unet"]["null_class"]) = (Value::Null, json!("absent"));
        config["class_names"] = json!([]);
    };
    model(config(process, change), 6)
}

/// A network whose null class is a row of zeros, or is not there.
pub fn null_class(process: Process, null_class: &str) -> Model {
    model(config(process, |config| config["unet"]["null_class"] = json!(null_class)), 7)
}

/// A network that is told its condition from `block` on.
pub fn late(process: Process, block: &str) -> Model {
    let change = |config: &mut Value| {
        two_levels(config);
        config["unet"]["condition_from"] = json!(block);
    };
    model(config(process, change), 8)
}

/// A network that is told the guidance weight, from 0 to 4.
pub fn distilled(process: Process, late: bool) -> Model {
    let change = |config: &mut Value| {
        config["unet"]["guidance_range"] = json!([0.0, 4.0]);
        if late {
            config["unet"]["condition_from"] = json!("middle_block");
        }
    };
    model(config(process, change), 9)
}

/// A network that makes pictures of 8x8 of smaller ones.
pub fn upsampler(process: Process) -> Model {
    model(config(process, |config| config["unet"]["low_res_channels"] = json!(3)), 10)
}

/// A classifier of noisy pictures, and its weights.
pub fn classifier() -> (Classifier, Weights) {
    let change = |config: &mut Value| {
        two_levels(config);
        config["unet"]["out_channels"] = json!(CLASSES);
        (config["unet"]["num_classes"], config["unet"]["null_class"]) = (Value::Null, json!("absent"));
    };
    let network = Classifier::new(&config(CONTINUOUS_EPS, change).unet).unwrap();
    let arena = network.parameters().read_only_arena(gpu(), "classifier", DType::F32).unwrap();
    arena.write(gpu(), 0, &values(network.parameters(), 11)).unwrap();
    let weights = arena.weights(network.parameters(), 0);
    (network, weights)
}
