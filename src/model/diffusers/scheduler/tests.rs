//! What is read of diffusers' schedulers.

use serde_json::json;

use super::*;

fn of(value: Value) -> Result<Read, String> {
    serde_json::from_value::<Scheduler>(value).unwrap().ours()
}

fn notes(value: Value) -> String {
    of(value).map(|read| read.notes.join("; ")).unwrap()
}

#[test]
fn a_class_is_known_by_its_whole_name() {
    for class in CLASSES {
        let betas = json!({"_class_name": class.name, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"});
        let read = of(betas).unwrap();
        assert_eq!(read.scheduler.beta_schedule, "linear", "{}", class.name);
        assert_eq!(read.notes.iter().any(|note| note.contains("own method is not here")), !class.same);
        for name in [format!("{}X", class.name), class.name.replace("Scheduler", "")] {
            let message = of(json!({"_class_name": name})).err().unwrap();
            assert!(message.contains(&name) && message.contains("DDPMScheduler"), "{message}");
        }
    }
    assert!(of(json!({"_class_name": "DDPMWuerstchenScheduler"})).is_err());
    // Betas that a file leaves out are its class's, and Heun's are another process's.
    let heun = of(json!({"_class_name": "HeunDiscreteScheduler"})).unwrap().scheduler;
    assert_eq!((heun.beta_start, heun.beta_end), (Some(0.00085), Some(0.012)));
    let lcm = of(json!({"_class_name": "LCMScheduler"})).unwrap().scheduler;
    assert_eq!((&*lcm.beta_schedule, lcm.beta_start), ("scaled_linear", Some(0.00085)));
}

#[test]
fn settings_of_sampling_become_our_defaults() {
    for (value, sampler, spacing, clip) in [
        (json!({"_class_name": "DDPMScheduler"}), None, "leading", "static"),
        (json!({"_class_name": "DDPMScheduler", "clip_sample": false}), None, "leading", "none"),
        (json!({"_class_name": "DDIMScheduler", "steps_offset": 1}), Some("ddim"), "leading+1", "static"),
        (
            json!({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}),
            Some("ddim"),
            "trailing",
            "static",
        ),
        (json!({"_class_name": "PNDMScheduler"}), Some("ddim"), "leading", "none"),
        (json!({"_class_name": "EulerDiscreteScheduler"}), Some("euler"), "uniform", "none"),
        (
            json!({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true}),
            Some("euler"),
            "karras",
            "none",
        ),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}),
            Some("dpmpp-2m-sde"),
            "uniform",
            "none",
        ),
        (json!({"_class_name": "DDIMScheduler", "thresholding": true}), Some("ddim"), "leading", "static"),
        (
            json!({"_class_name": "DDIMScheduler", "thresholding": true, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9}),
            Some("ddim"),
            "leading",
            "dynamic:0.9",
        ),
    ] {
        let sampling = of(value.clone()).unwrap().sampling;
        assert_eq!(sampling.sampler.as_deref(), sampler, "{value}");
        assert_eq!((sampling.spacing.as_deref(), &*sampling.clip), (Some(spacing), clip), "{value}");
    }
    let few = of(
        json!({"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2}),
    );
    assert_eq!(few.unwrap().sampling.steps, 100);
}

#[test]
fn what_is_not_followed_is_named_with_its_value() {
    for (value, said) in [
        (json!({"_class_name": "DDPMScheduler", "clip_sample_range": 2.5}), "clip_sample_range 2.5"),
        (json!({"_class_name": "DDIMScheduler", "set_alpha_to_one": false}), "set_alpha_to_one false"),
        (json!({"_class_name": "PNDMScheduler"}), "set_alpha_to_one false"),
        (json!({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}), "solver_order 3"),
        (
            json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}),
            "algorithm_type dpmsolver",
        ),
        (json!({"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true}), "use_beta_sigmas true"),
        (json!({"_class_name": "EulerDiscreteScheduler", "sigma_max": 80.0}), "sigma_max 80.0"),
        (json!({"_class_name": "DDPMScheduler", "a_setting_to_come": "x"}), "a_setting_to_come \"x\""),
        (
            json!({"_class_name": "DDIMScheduler", "thresholding": true, "sample_max_value": 2.0}),
            "sample_max_value 2",
        ),
    ] {
        let notes = notes(value.clone());
        assert!(notes.contains(said), "{value}: {notes}");
    }
    // What says what is done here anyway is not worth a note.
    for value in [
        json!({"_class_name": "DDPMScheduler", "_diffusers_version": "0.42.1", "clip_sample_range": 1.0}),
        json!({"_class_name": "DDIMScheduler", "set_alpha_to_one": true, "thresholding": false, "clip_sample": false}),
        json!({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 2, "solver_type": "midpoint",
            "lower_order_final": true, "euler_at_final": false, "use_lu_lambdas": false, "final_sigmas_type": "zero",
            "lambda_min_clipped": null, "flow_shift": 1.0, "time_shift_type": "exponential"}),
        json!({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2", "predict_x0": true}),
    ] {
        let notes = notes(value.clone());
        assert!(!notes.contains("not followed"), "{value}: {notes}");
    }
}

#[test]
fn what_changes_the_process_is_refused() {
    for (value, named) in [
        (json!({"_class_name": "DDPMScheduler", "rescale_betas_zero_snr": true}), "rescale_betas_zero_snr"),
        (json!({"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}), "laplace"),
        (json!({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}), "trained_betas"),
        (
            json!({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 1.0], "num_train_timesteps": 2}),
            "β is 1 at t = 1",
        ),
        (json!({"_class_name": "DDPMScheduler", "timestep_spacing": "odd"}), "timestep_spacing"),
        (
            json!({"_class_name": "EulerDiscreteScheduler", "prediction_type": "flow_prediction"}),
            "flow_prediction",
        ),
    ] {
        let message = of(value.clone()).err().unwrap();
        assert!(message.contains(named), "{value}: {message}");
    }
}

/// The processes of latent diffusion, of its v model at zero SNR, and of given β: levels by the formulas.
#[test]
fn betas_of_any_kind_are_followed() {
    use crate::diffusion::LevelSource;
    let process = |value: Value| match of(value).unwrap().scheduler.process().unwrap().levels {
        LevelSource::Discrete(schedule, _) => schedule,
        other => panic!("{other:?}"),
    };
    let latent = |more: Value| {
        let mut all = json!({"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let plain = process(latent(json!({})));
    assert!((plain.alpha_cumprod(999) / 0.004660098513077238 - 1.0).abs() < 1e-9);
    let zero = process(latent(json!({"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"})));
    assert!((zero.sigma(999) / zero.alpha(999) - 4096.0).abs() < 1e-2, "{}", zero.alpha(999));
    assert!((zero.alpha_cumprod(500) / 0.24101878275731575 - 1.0).abs() < 1e-9);
    let sigmoid = process(json!({"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}));
    assert!((sigmoid.alpha_cumprod(999) / 3.968181990533219e-05 - 1.0).abs() < 1e-9);
    let given = json!({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.3, 0.2], "num_train_timesteps": 3,
        "beta_schedule": "looked at by nobody"});
    assert_eq!(process(given).betas(), [0.1, 0.3, 0.2]);
}

#[test]
fn numbers_of_python_that_json_has_not_are_read() {
    let text = r#"{"a": -Infinity, "NaN": "-Infinity \"NaN", "b": [NaN, Infinity]}"#;
    assert_eq!(without_infinities(text), r#"{"a": null, "NaN": "-Infinity \"NaN", "b": [null, null]}"#);
}

#[test]
fn what_is_written_reads_as_it_was() {
    let scheduler = SchedulerConfig {
        beta_schedule: "cosine".into(),
        num_train_timesteps: Some(1000),
        variance_type: Some("learned_range".into()),
        ..SchedulerConfig::continuous(0.0, 0.0)
    };
    for (spacing, clip) in [("uniform", "static"), ("leading+1", "none"), ("trailing", "dynamic:0.99")] {
        let sampling = SamplingDefaults {
            steps: 250,
            variance_exponent: 0.0,
            clip: clip.into(),
            sampler: None,
            spacing: Some(spacing.into()),
        };
        let text = serde_json::to_string(&Scheduler::of(&scheduler, &sampling).unwrap()).unwrap();
        let read = serde_json::from_str::<Scheduler>(&text).unwrap().ours().unwrap();
        assert_eq!((&read.scheduler, &read.sampling), (&scheduler, &sampling), "{text}");
    }
    let ends = SchedulerConfig {
        beta_schedule: "scaled_linear".into(),
        prediction_type: "v_prediction".into(),
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        rescale_betas_zero_snr: true,
        ..scheduler.clone()
    };
    let given = SchedulerConfig {
        beta_schedule: "linear".into(),
        num_train_timesteps: Some(3),
        trained_betas: Some(vec![0.1, 0.4, 0.2]),
        ..scheduler
    };
    for config in [ends, given] {
        let sampling = SamplingDefaults {
            steps: 3,
            variance_exponent: 0.0,
            clip: "none".into(),
            sampler: None,
            spacing: Some("trailing".into()),
        };
        let text = serde_json::to_string(&Scheduler::of(&config, &sampling).unwrap()).unwrap();
        let read = serde_json::from_str::<Scheduler>(&text).unwrap().ours().unwrap();
        assert_eq!(read.scheduler, config, "{text}");
    }
}
