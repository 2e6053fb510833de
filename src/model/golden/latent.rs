//! The golden networks of Stable Diffusion's kinds: what `tests/fixtures/scripts/sd_unet.py` made with diffusers, read from a
//! folder of diffusers' names and from a single file of latent diffusion's.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Array, filled, finish, largest};
use crate::autograd::backprop;
use crate::gpu::Rung;
use crate::io::{Dtype, TensorBytes, write_safetensors};
use crate::model::renamed::Place;
use crate::model::{Checkpoint, Choice, diffusers, ldm, load_values};
use crate::nn::unet::{NullClass, Pass, QkvLayout, Resample, TimeScaleShift, TransformerConfig};
use crate::nn::{Arena, Bank, Denoiser, Told, UNet, UNetConfig, Weights};
use crate::ops;
use crate::shape::{Extent, Shape};
use crate::tensor::{Context, DType, Tensor};
use crate::testing::{Golden, download, dtypes, gpu};

/// A network of the script: its configuration here, in diffusers' words where they are not those of all, and its heads.
struct Case {
    name: &'static str,
    config: UNetConfig,
    theirs: Value,
    heads: Value,
    extent: Extent,
    /// Of a sequence.
    tokens: usize,
}

fn base() -> UNetConfig {
    UNetConfig {
        sample_size: Extent::square(12),
        in_channels: 4,
        out_channels: 4,
        model_channels: 64,
        channel_mult: vec![1.0, 1.5, 1.5],
        layers_per_block: 1,
        attention_resolutions: vec![12, 6],
        attention_head_dim: None,
        num_attention_heads: Some(4),
        qkv_order: QkvLayout::New,
        norm_num_groups: 32,
        dropout: 0.0,
        resample: Resample::Conv,
        resnet_time_scale_shift: TimeScaleShift::Default,
        residual_scaling: false,
        num_classes: None,
        null_class: NullClass::Absent,
        vector_width: 0,
        low_res_channels: 0,
        beside_channels: 0,
        transformer: Some(TransformerConfig { context_width: 24, layers: vec![1, 1, 0], middle_layers: 1 }),
        condition_from: None,
        guidance_range: None,
    }
}

/// Of Stable Diffusion 1: a number of heads, of 16 and of 24 channels; the last level does not attend, the middle does.
fn one() -> Case {
    let theirs = json!({
        "block_out_channels": [64, 96, 96], "attention_head_dim": 4, "cross_attention_dim": 24, "sample_size": 12,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    });
    let extent = Extent::Plane { height: 12, width: 20 };
    let heads = json!({"num_heads": 4, "image_size": 12});
    Case { name: "1", config: base(), theirs, heads, extent, tokens: 5 }
}

/// Of 2: heads of a number of channels.
fn two() -> Case {
    let config = UNetConfig {
        sample_size: Extent::square(6),
        channel_mult: vec![1.0, 1.5],
        attention_resolutions: vec![6, 3],
        attention_head_dim: Some(32),
        num_attention_heads: None,
        transformer: Some(TransformerConfig { context_width: 40, layers: vec![1, 1], middle_layers: 1 }),
        ..base()
    };
    let theirs = json!({
        "block_out_channels": [64, 96], "attention_head_dim": [2, 3], "cross_attention_dim": 40, "sample_size": 6,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], "use_linear_projection": true,
    });
    let extent = Extent::Plane { height: 6, width: 10 };
    let heads = json!({"num_head_channels": 32, "image_size": 6});
    Case { name: "2", config, theirs, heads, extent, tokens: 7 }
}

/// Of XL: a vector, and transformers of several layers.
fn xl() -> Case {
    let two = two();
    let config = UNetConfig {
        attention_resolutions: vec![3],
        vector_width: 64,
        transformer: Some(TransformerConfig { context_width: 40, layers: vec![0, 2], middle_layers: 2 }),
        ..two.config
    };
    let mut theirs = two.theirs;
    theirs["down_block_types"] = json!(["DownBlock2D", "CrossAttnDownBlock2D"]);
    theirs["up_block_types"] = json!(["CrossAttnUpBlock2D", "UpBlock2D"]);
    theirs["transformer_layers_per_block"] = json!([1, 2]);
    theirs["addition_embed_type"] = json!("text_time");
    theirs["addition_time_embed_dim"] = json!(8);
    theirs["projection_class_embeddings_input_dim"] = json!(64);
    let extent = Extent::Plane { height: 10, width: 6 };
    Case { name: "xl", config, theirs, heads: two.heads, extent, tokens: 3 }
}

fn inpainting() -> Case {
    let mut one = one();
    one.theirs["in_channels"] = json!(9);
    let extent = Extent::Plane { height: 12, width: 4 };
    Case { name: "inpainting", config: UNetConfig { beside_channels: 5, ..one.config }, extent, ..one }
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// What the script fills the parameter that diffusers calls `name` with.
fn values_of(name: &str, shape: &[usize]) -> Vec<f32> {
    let number = name.chars().enumerate().map(|(i, letter)| (i + 1) * letter as usize).sum::<usize>() % 997;
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    match shape.len() {
        1 => filled(shape, number, 0.2, f64::from(u8::from(name.ends_with("weight")))).data,
        _ => filled(shape, number, 1.5 / fan_in.sqrt(), 0.0).data,
    }
}

const PREFIX: &str = "model.diffusion_model.";

/// The tensors of a network as diffusers' folders hold them, and as latent diffusion's files do.
fn tensors(config: &UNetConfig) -> [Tensors; 2] {
    let mut both = [Tensors::new(), Tensors::new()];
    for spec in UNet::new(config).unwrap().parameters().specs() {
        let theirs = diffusers::place(config, &spec.name).unwrap();
        let single =
            ldm::place(PREFIX, &spec.name).unwrap_or_else(|| Place::One(format!("{PREFIX}{}", spec.name)));
        for (theirs, single) in theirs.names().iter().zip(single.names()) {
            let mut shape = spec.file_shape();
            shape[0] /= single_count(&spec.name);
            let values = values_of(theirs, &shape);
            // The projections of one kind of files are convolutions.
            let mut wide = shape.clone();
            if spec.name.ends_with("proj_in.weight") || spec.name.ends_with("proj_out.weight") {
                wide.extend([1, 1]);
            }
            both[0].push((theirs.clone(), wide, values.clone()));
            both[1].push((single.clone(), shape, values));
        }
    }
    both
}

/// How many tensors of files a parameter is.
fn single_count(name: &str) -> usize {
    match name {
        name if name.ends_with("to_qkv.weight") => 3,
        name if name.ends_with("to_kv.weight") => 2,
        _ => 1,
    }
}

fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| TensorBytes {
            name,
            dtype: Dtype::F32,
            shape,
            bytes: bytemuck::cast_slice(values),
        })
        .collect();
    write_safetensors(path, &views, &BTreeMap::new()).unwrap();
}

impl Case {
    /// A pipeline's folder.
    fn folder(&self, folder: &Path) -> Checkpoint {
        let put = |name: &str, value: Value| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        };
        let mut theirs = self.theirs.clone();
        theirs["_class_name"] = json!("UNet2DConditionModel");
        theirs["layers_per_block"] = json!(1);
        put("unet/config.json", theirs);
        put("model_index.json", json!({"_class_name": "StableDiffusionPipeline"}));
        // As Stable Diffusion 1.5 has it.
        let scheduler = json!({
            "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
            "trained_betas": null, "clip_sample": false,
        });
        put("scheduler/scheduler_config.json", scheduler);
        write(&folder.join("unet/diffusion_pytorch_model.safetensors"), &tensors(&self.config)[0]);
        Checkpoint::open(folder, None).unwrap()
    }

    /// A single file, with what it does not say in a file of flags.
    fn single(&self, folder: &Path) -> Checkpoint {
        let (file, flags) = (folder.join("single.safetensors"), folder.join("flags.json"));
        let other = ("first_stage_model.decoder.conv_in.bias".to_owned(), vec![1], vec![0.0]);
        let mut all = tensors(&self.config)[1].clone();
        all.push(other);
        write(&file, &all);
        std::fs::write(&flags, self.heads.to_string()).unwrap();
        Checkpoint::choose(&file, &Choice::flags(Some(&flags))).unwrap()
    }

    /// The folder's network and its weights on the device; the single file must be the same in each bit.
    fn network(&self) -> (UNet, Arena) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, single) = (self.folder(&dir.path().join("folder")), self.single(dir.path()));
        assert_eq!(folder.config.unet, self.config);
        assert_eq!(single.config.unet, self.config);
        assert_eq!((folder.prefix.as_str(), single.prefix.as_str()), ("", PREFIX));
        let unet = UNet::new(&self.config).unwrap();
        let [values, same] = [&folder, &single]
            .map(|from| load_values(from.source.as_ref(), unet.parameters(), &from.prefix).unwrap());
        assert!(values == same, "{}: the same numbers under both names", self.name);
        let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
        arena.write(gpu(), 0, &values).unwrap();
        (unet, arena)
    }

    fn golden(&self) -> Golden {
        Golden::open(&format!("sd_unet_{}", self.name))
    }

    /// The inputs of the script on the device: z and what is beside it, time, rows of the bank, the bank, rows of vectors, vectors.
    fn inputs(&self, cx: &Context) -> Inputs {
        let [n, height, width, _] = Shape { extent: self.extent, ..self.config.shape() }.nhwc(2);
        let of = &self.config;
        let channels = of.in_channels + of.beside_channels;
        let x = filled(&[n, channels, height, width], 1000, 1.0, 0.0).nhwc();
        let columns = |first: usize, wide: usize| {
            let data = x.data.chunks(channels).flat_map(|row| row[first..first + wide].to_vec()).collect();
            Array::new(&[n, height, width, wide], data).upload(cx, DType::F32)
        };
        let width = of.transformer.as_ref().unwrap().context_width;
        let vector = self.golden().get("in.vector");
        Inputs {
            z: columns(0, of.in_channels),
            beside: (of.beside_channels > 0).then(|| columns(of.in_channels, of.beside_channels)),
            time: Array::new(&[2], vec![3.0, 700.5]).upload(cx, DType::F32),
            rows: cx.constant_u32("rows", &[2], &[1, 0]).unwrap(),
            bank: filled(&[2, self.tokens, width], 1002, 2.0, 0.0).upload(cx, DType::F32),
            own: cx.constant_u32("own", &[2], &[0, 1]).unwrap(),
            vector: vector.map(|vector| vector.upload(cx, DType::F32)),
            target: filled(&[n, 4, height, x.shape[2]], 1001, 1.0, 0.0).nhwc().upload(cx, DType::F32),
        }
    }
}

struct Inputs {
    z: Tensor,
    beside: Option<Tensor>,
    time: Tensor,
    rows: Tensor,
    bank: Tensor,
    own: Tensor,
    vector: Option<Tensor>,
    target: Tensor,
}

impl Inputs {
    fn told<'a>(&'a self, prepared: &'a [Tensor]) -> Told<'a> {
        Told {
            tokens: Some(Bank { rows: &self.rows, values: &self.bank }),
            prepared,
            vector: self.vector.as_ref().map(|values| Bank { rows: &self.own, values }),
            picture: self.beside.as_ref(),
            ..Told::default()
        }
    }
}

/// The network's output, its keys made ahead or in line.
fn output(case: &Case, unet: &UNet, weights: &Weights, how: (Rung, DType, bool)) -> Array {
    let (rung, dtype, ahead) = how;
    let mut cx = Context::new(gpu());
    cx.set_rung(rung);
    let inputs = case.inputs(&cx);
    let weights = match dtype {
        DType::F16 => weights.with_halves(&mut cx).unwrap(),
        _ => weights.clone(),
    };
    let pass = Pass::inference(dtype);
    let prepared = match ahead {
        true => unet.prepare(&mut cx, &weights, &inputs.bank, &pass).unwrap(),
        false => Vec::new(),
    };
    let told = inputs.told(&prepared);
    let out = unet.record(&mut cx, &weights, &inputs.z, &inputs.time, told, &pass).unwrap();
    download(&finish(cx, &[&out]), &out)
}

/// Compares the gradients of all parameters with what the file holds of them, in the order of diffusers' names.
fn check_probes(golden: &Golden, unet: &UNet, gradients: &Arena) {
    let values = gradients.read(gpu(), unet.parameters(), 0).unwrap();
    let mut parts: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (spec, values) in unet.parameters().specs().iter().zip(&values) {
        let place = diffusers::place(unet.config(), &spec.name).unwrap();
        let values = spec.to_file(values);
        for (name, part) in place.names().iter().zip(values.chunks(values.len() / place.names().len())) {
            parts.insert(name.clone(), part.to_vec());
        }
    }
    let probes = golden.array("gradprobes");
    assert_eq!(probes.shape, [parts.len(), 3]);
    // Biases that a group norm takes away have a gradient of rounding alone.
    let floor = 2e-7 * parts.values().map(|values| largest(values)).fold(0f32, f32::max);
    for ((name, got), probe) in parts.iter().zip(probes.data.chunks(3)) {
        let wide = || got.iter().map(|g| f64::from(*g));
        let norm = wide().map(|g| g * g).sum::<f64>().sqrt();
        let sines = wide().enumerate().map(|(i, g)| g * ((i + 1) as f64).sin()).sum::<f64>();
        let length = (got.len() as f64).sqrt();
        let allowed = (1e-4 * f64::from(probe[0])).max(f64::from(floor) * length);
        for (got, want) in [norm, wide().sum::<f64>(), sines].into_iter().zip(probe) {
            // A sum has the error of √n numbers of the norm's size.
            let error = (got - f64::from(*want)).abs();
            assert!(error <= allowed * length.max(1.0).sqrt(), "{name}: {got} is not {want}");
        }
    }
}

#[test]
fn stable_diffusions_networks_match_the_reference_forward_and_backward() {
    for case in [one(), two(), xl()] {
        let golden = case.golden();
        let (unet, arena) = case.network();
        let parameters = unet.parameters();
        let gradients = parameters.arena(gpu(), "gradients", 1).unwrap();
        let weights = arena.weights(parameters, 0);
        let mut cx = Context::with_tape(gpu());
        weights.track(&mut cx, &gradients.weights(parameters, 0));
        let inputs = case.inputs(&cx);
        cx.watch(&inputs.z);
        cx.watch(&inputs.bank);
        let pass = Pass::inference(DType::F32);
        let told = inputs.told(&[]);
        let out = unet.record(&mut cx, &weights, &inputs.z, &inputs.time, told, &pass).unwrap();
        let loss = ops::mse(&mut cx, &out, &inputs.target).unwrap();
        backprop(&mut cx, &loss).unwrap();
        let [dx, tokens] = [&inputs.z, &inputs.bank].map(|input| cx.grad(input).unwrap());
        let plan = finish(cx, &[&out, &dx, &tokens]);
        let (name, want) = (case.name, golden.array("out.y").nhwc());
        let got = download(&plan, &out);
        got.check_within(&format!("{name} out.y"), &want, 2e-5);
        let dx = download(&plan, &dx);
        dx.check_within(&format!("{name} grad.x"), &golden.array("grad.x").nhwc(), 1e-4);
        let tokens = download(&plan, &tokens);
        tokens.check_within(&format!("{name} grad.tokens"), &golden.array("grad.tokens"), 1e-4);
        check_probes(&golden, &unet, &gradients);

        // What is prepared ahead is what is made in line, and every rung agrees.
        let own = gpu().capabilities().rung;
        assert_eq!(output(&case, &unet, &weights, (own, DType::F32, true)).data, got.data, "{name}");
        let tiled = output(&case, &unet, &weights, (Rung::Tiled, DType::F32, true));
        tiled.check_within(&format!("{name} tiled"), &want, 2e-5);
    }
}

#[test]
fn the_mask_and_the_masked_latents_come_behind_the_sample() {
    let case = inpainting();
    let (unet, arena) = case.network();
    let weights = arena.weights(unet.parameters(), 0);
    let got = output(&case, &unet, &weights, (gpu().capabilities().rung, DType::F32, true));
    got.check_within("inpainting", &case.golden().array("out.y").nhwc(), 2e-5);
}

#[test]
fn f16_stays_close() {
    if !dtypes().contains(&DType::F16) {
        return;
    }
    let case = one();
    let (unet, arena) = case.network();
    let weights = arena.weights(unet.parameters(), 0);
    let want = case.golden().array("out.y").nhwc();
    for rung in [gpu().capabilities().rung, Rung::Tiled] {
        let got = output(&case, &unet, &weights, (rung, DType::F16, true));
        let squares = |values: Vec<f32>| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let distance = squares(got.zip(&want, |a, b| a - b).data) / squares(want.data.clone());
        assert!(distance > 0.0 && distance < 3e-3, "{rung}: {distance}");
    }
}
