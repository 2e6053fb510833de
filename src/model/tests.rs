//! The published files: names and shapes of each, files of them, and a run of the smallest.

use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::architecture::{self, Shapes};
use super::flags::{self, Flags};
use super::published::{PUBLISHED, recognise};
use super::*;
use crate::nn::unet::{NullClass, Pass, QkvLayout, Resample};
use crate::nn::{Classifier, Parameters, UNet};
use crate::shape::Extent;
use crate::tensor::{Context, DType};
use crate::testing::{Array, download, gpu};

/// The lists of names and shapes of published files, by name.
fn layouts() -> Vec<(String, Shapes)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/layouts.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut layouts: Vec<(String, Shapes)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            layouts.push((name.to_owned(), Shapes::new()));
            continue;
        }
        let (name, shape) = line.split_once(' ').unwrap();
        let shape = serde_json::from_str(shape).unwrap();
        layouts.last_mut().unwrap().1.insert(name.to_owned(), shape);
    }
    assert_eq!(layouts.len(), 10);
    layouts
}

fn declared(config: &ModelConfig) -> Parameters {
    match config.kind() {
        Kind::UNet => UNet::new(&config.unet).unwrap().parameters().clone(),
        Kind::Classifier => Classifier::new(&config.unet).unwrap().parameters().clone(),
    }
}

fn shapes_of(parameters: &Parameters) -> Shapes {
    parameters.specs().iter().map(|spec| (spec.name.clone(), spec.file_shape())).collect()
}

fn configured(name: &str, shapes: &Shapes) -> ModelConfig {
    let published = recognise(shapes, name).unwrap_or_else(|| panic!("{name} is not recognised"));
    let found = architecture::infer(shapes, None).unwrap();
    flags::configure(&found, &Flags::of(published), Some(published)).unwrap()
}

#[test]
fn every_listed_layout_is_the_network_that_is_inferred() {
    let counts = [
        ("128_512_upsampler", 308_835_270),
        ("128x128_classifier", 42_568_040),
        ("128x128_diffusion", 421_529_606),
        ("256x256_diffusion", 553_838_086),
        ("256x256_diffusion_uncond", 552_814_086),
        ("64_256_upsampler", 311_795_910),
        ("64x64_classifier", 65_438_568),
        ("64x64_diffusion", 295_904_454),
        ("iddpm_cifar10_uncond", 52_546_438),
        ("iddpm_imagenet64_cond", 273_049_350),
    ];
    for ((name, shapes), (expected, count)) in layouts().into_iter().zip(counts) {
        assert_eq!(name, expected);
        let config = configured(&name, &shapes);
        let parameters = declared(&config);
        assert_eq!(shapes_of(&parameters), shapes, "{name}");
        assert_eq!(parameters.count(), count, "{name}");
    }
}

#[test]
fn the_flags_of_the_table_are_those_of_the_files() {
    let layouts = layouts();
    let config = |name: &str| {
        let (_, shapes) = layouts.iter().find(|(known, _)| known == name).unwrap();
        configured(name, shapes)
    };
    let adm = config("64x64_diffusion");
    assert_eq!((adm.unet.qkv_order, adm.unet.attention_head_dim), (QkvLayout::New, Some(64)));
    assert_eq!(adm.unet.attention_resolutions, [32, 16, 8]);
    assert_eq!((adm.unet.layers_per_block, adm.unet.channel_mult.clone()), (3, vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!((adm.unet.null_class, adm.unet.num_classes), (NullClass::Absent, Some(1000)));
    assert_eq!(adm.scheduler.beta_schedule, "cosine");
    assert_eq!(adm.scheduler.variance_type.as_deref(), Some("learned_range"));
    assert_eq!(adm.class("malamute").unwrap(), 249);
    assert_eq!(adm.class("Alaskan Malamute").unwrap(), 249);
    assert_eq!(adm.class("207").unwrap(), 207);
    let message = adm.class("crane").unwrap_err().to_string();
    assert!(message.contains("134") && message.contains("517"), "{message}");
    assert!(adm.class("malamutt").unwrap_err().to_string().len() < 300);

    let heads = config("128x128_diffusion");
    assert_eq!((heads.unet.qkv_order, heads.unet.num_attention_heads), (QkvLayout::Legacy, Some(4)));
    assert_eq!((heads.unet.heads(512), heads.unet.heads(1024)), (4, 4));
    let upsampler = config("64_256_upsampler").unet;
    assert_eq!(
        (upsampler.in_channels, upsampler.low_res_channels, upsampler.sample_size),
        (3, 3, Extent::square(256))
    );
    let iddpm = config("iddpm_cifar10_uncond");
    assert_eq!((iddpm.unet.resample, iddpm.unet.sample_size), (Resample::Conv, Extent::square(32)));
    assert_eq!(iddpm.scheduler.num_train_timesteps, Some(4000));
    assert!(iddpm.scheduler.rescale_timesteps && iddpm.class_names.is_empty());
    let classifier = config("64x64_classifier");
    assert_eq!((classifier.kind(), classifier.unet.out_channels), (Kind::Classifier, 1000));
    assert_eq!((classifier.unet.layers_per_block, classifier.class_names.len()), (4, 1000));
}

#[test]
fn the_files_without_a_list_follow_from_their_flags() {
    let layouts = layouts();
    let like = |name: &str| configured(name, &layouts.iter().find(|(known, _)| known == name).unwrap().1);
    let halves = vec![0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0];
    let mut diffusion = like("256x256_diffusion");
    (diffusion.unet.sample_size, diffusion.unet.channel_mult) = (Extent::square(512), halves.clone());
    let mut smaller = like("128x128_classifier");
    (smaller.unet.sample_size, smaller.unet.channel_mult) =
        (Extent::square(256), vec![1.0, 1.0, 2.0, 2.0, 4.0, 4.0]);
    let mut larger = smaller.clone();
    (larger.unet.sample_size, larger.unet.channel_mult) = (Extent::square(512), halves);
    for (name, config, tensors) in [
        ("512x512_diffusion", diffusion, 645),
        ("256x256_classifier", smaller, 249),
        ("512x512_classifier", larger, 281),
    ] {
        let parameters = declared(&config);
        assert_eq!(parameters.specs().len(), tensors, "{name}");
        let published = PUBLISHED.iter().find(|file| file.name == name).unwrap();
        assert_eq!(parameters.count(), published.parameters, "{name}");
        let inferred = configured(name, &shapes_of(&parameters));
        assert_eq!(inferred, config, "{name}");
    }
}

#[test]
fn what_the_table_says_of_other_files_builds_too() {
    for name in ["imagenet64_uncond_100M_1500K", "upsample_cond_500K"] {
        let published = PUBLISHED.iter().find(|file| file.name == name).unwrap();
        let (_, shapes) = layouts().pop().unwrap();
        let mut unet = configured("imagenet64_cond_270M_250K", &shapes).unet;
        if name.starts_with("upsample") {
            (unet.low_res_channels, unet.sample_size, unet.layers_per_block) = (3, Extent::square(256), 2);
            (unet.channel_mult, unet.attention_resolutions) =
                (vec![1.0, 1.0, 2.0, 2.0, 4.0, 4.0], vec![16, 8]);
        } else {
            (unet.num_classes, unet.model_channels) = (None, 128);
        }
        let parameters = UNet::new(&unet).unwrap().parameters().clone();
        assert_eq!((parameters.specs().len(), parameters.count()), (published.tensors, published.parameters));
        assert_eq!(configured(name, &shapes_of(&parameters)).unet, unet);
    }
}

/// Writes a `.pt` file of the older format that holds these tensors in f16, all views of one storage of `values`: a
/// network of any size in a file as large as its largest tensor. With no values the storage is zeros that take no room.
fn write_pt(path: &Path, shapes: &Shapes, values: &[half::f16]) {
    let largest = shapes.values().map(|shape| shape.iter().product::<usize>()).max().unwrap();
    let elements = largest.max(values.len());
    let mut p = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    p.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
    let text = |p: &mut Vec<u8>, text: &str| {
        p.push(b'X');
        p.extend((text.len() as u32).to_le_bytes());
        p.extend(text.as_bytes());
    };
    let int = |p: &mut Vec<u8>, value: usize| {
        p.push(b'J');
        p.extend((value as i32).to_le_bytes());
    };
    p.extend(b"\x80\x02ccollections\nOrderedDict\n)R(");
    for (i, (name, shape)) in shapes.iter().enumerate() {
        text(&mut p, name);
        p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut p, "storage");
        p.extend(b"ctorch\nHalfStorage\n");
        text(&mut p, "0");
        text(&mut p, "cpu");
        int(&mut p, elements);
        p.extend(b"NtQ");
        let count = shape.iter().product::<usize>();
        // Each tensor another part of the storage, where there is room for that.
        int(&mut p, i * 977 % (elements - count + 1));
        p.push(b'(');
        shape.iter().for_each(|dim| int(&mut p, *dim));
        p.extend(b"t(");
        let strides = (0..shape.len()).map(|d| shape[d + 1..].iter().product::<usize>());
        strides.for_each(|stride| int(&mut p, stride));
        p.extend(b"t\x89NtR");
    }
    p.extend(b"u.\x80\x02](X\x01\0\0\x000e.");
    p.extend((elements as u64).to_le_bytes());
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&p).unwrap();
    file.write_all(bytemuck::cast_slice(values)).unwrap();
    let end = file.stream_position().unwrap() + 2 * (elements - values.len()) as u64;
    file.set_len(end).unwrap();
}

#[test]
fn files_of_every_layout_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for (name, shapes) in layouts() {
        let path = dir.path().join(format!("{name}.pt"));
        write_pt(&path, &shapes, &[]);
        let start = Instant::now();
        let checkpoint = Checkpoint::open(&path, None).unwrap();
        // Hundredths of a second; a busy machine takes longer, and reading the weights would take longer than this.
        assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
        assert_eq!(checkpoint.config, configured(&name, &shapes));
        assert!(checkpoint.notes[0].contains("published"), "{:?}", checkpoint.notes);
        // Under a name of its own it is the same network, and it is told so.
        let other = dir.path().join("ema_0.9999_100000.pt");
        std::fs::rename(&path, &other).unwrap();
        assert_eq!(Checkpoint::open(&other, None).unwrap().config.unet, checkpoint.config.unet);
    }
}

#[test]
fn flags_go_before_the_table_and_must_fit_the_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let (path, json) = (dir.path().join("x.pt"), dir.path().join("flags.json"));
    let (_, mut shapes) = layouts().into_iter().find(|(name, _)| name == "64x64_diffusion").unwrap();
    write_pt(&path, &shapes, &[]);
    let open = |text: &str| {
        std::fs::write(&json, text).unwrap();
        Checkpoint::open(&path, Some(&json)).map(|checkpoint| checkpoint.config).map_err(|e| e.to_string())
    };
    let config = open(r#"{"num_heads": 6, "noise_schedule": "linear", "rescale_timesteps": true}"#).unwrap();
    assert_eq!((config.unet.num_attention_heads, config.unet.attention_head_dim), (Some(6), None));
    assert_eq!(config.scheduler.beta_schedule, "linear");
    assert!(config.scheduler.rescale_timesteps);
    assert_eq!(config.unet.qkv_order, QkvLayout::New);
    assert!(open(r#"{"num_channels": 128}"#).unwrap_err().contains("num_channels is 128"));
    assert!(open(r#"{"learn_sigma": false}"#).unwrap_err().contains("learn_sigma"));
    assert!(open(r#"{"noise_schedule": "sqrt"}"#).unwrap_err().contains("sqrt"));
    assert!(open(r#"{"image_size": 4}"#).unwrap_err().contains("4x4"));
    let unknown =
        open(r#"{"nose_schedule": "linear", "image_size": 64, "clip_denoised": true}"#).unwrap_err();
    assert!(unknown.contains("clip_denoised, nose_schedule") && !unknown.contains("image_size"), "{unknown}");
    assert!(open(r#"{"class_names": ["a", "b"]}"#).unwrap_err().contains("2 class names"));

    // Ten classes: no published file any more.
    shapes.insert("label_emb.weight".into(), vec![10, 768]);
    write_pt(&path, &shapes, &[]);
    let message = Checkpoint::open(&path, None).map(drop).unwrap_err().to_string();
    assert!(message.contains("image_size") && message.contains("noise_schedule"), "{message}");
    let flags = r#"{"image_size": 64, "num_head_channels": 64, "noise_schedule": "cosine", "use_new_attention_order": true,
        "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "nine"]}"#;
    let config = open(flags).unwrap();
    assert_eq!((config.unet.num_classes, config.class("nine").unwrap()), (Some(10), 9));

    // What is missing, left over or of another shape is named.
    let broken = |change: &dyn Fn(&mut Shapes)| {
        let mut changed = shapes.clone();
        change(&mut changed);
        write_pt(&path, &changed, &[]);
        std::fs::write(&json, flags).unwrap();
        Checkpoint::open(&path, Some(&json)).map(drop).unwrap_err().to_string()
    };
    let name = "input_blocks.5.0.in_layers.2.weight";
    assert!(broken(&|s| drop(s.remove(name))).contains(&format!("`{name}` is missing")));
    assert!(broken(&|s| drop(s.insert("input_blocks.5.0.x".into(), vec![3]))).contains("input_blocks.5.0.x"));
    assert!(broken(&|s| drop(s.insert(name.into(), vec![3]))).contains(&format!("`{name}` is [3]")));
    assert!(broken(&|s| drop(s.remove("time_embed.0.weight"))).contains("none of guided-diffusion"));
    let two = broken(&|s| drop(s.insert("b.time_embed.0.weight".into(), vec![3])));
    assert!(two.contains("several networks") && two.contains("b") && two.contains("--network"), "{two}");
}

/// Weights of the published shapes but no published values: random, and all views of one storage.
fn random_file(dir: &Path, name: &str) -> Checkpoint {
    let (_, shapes) = layouts().into_iter().find(|(known, _)| known == name).unwrap();
    let path = dir.join(format!("{name}.pt"));
    let values = crate::random::init_uniform(1, 2, 1 << 22, 0.03).into_iter().map(half::f16::from_f32);
    let values: Vec<half::f16> = values.collect();
    let largest = shapes.values().map(|shape| shape.iter().product::<usize>()).max().unwrap();
    write_pt(&path, &shapes, &values.repeat(largest.div_ceil(values.len())));
    Checkpoint::open(&path, None).unwrap()
}

/// Finite numbers that are not all the same.
fn alive(array: &Array) {
    let mean = array.data.iter().sum::<f32>() / array.data.len() as f32;
    assert!(array.data.iter().all(|x| x.is_finite()) && array.data.iter().any(|x| (x - mean).abs() > 1e-4));
}

#[test]
fn the_smallest_published_classifier_runs() {
    let dir = tempfile::tempdir().unwrap();
    let classifier = ClassifierModel::of(gpu(), random_file(dir.path(), "64x64_classifier")).unwrap();
    let mut cx = Context::new(gpu());
    let x = Array::random(&[1, 64, 64, 3], 1).upload(&cx, DType::F32);
    let time = Array::new(&[1], vec![500.0]).upload(&cx, DType::F32);
    let pass = Pass::inference(DType::F32);
    let y = classifier.network.forward(&mut cx, &classifier.weights(), &x, &time, &pass).unwrap();
    cx.keep(&y);
    let plan = cx.finish("classifier").unwrap();
    plan.run().unwrap();
    assert_eq!(y.shape(), [1, 1000]);
    alive(&download(&plan, &y));
}

#[test]
fn the_smallest_published_diffusion_model_runs() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::of(gpu(), random_file(dir.path(), "64x64_diffusion")).unwrap();
    let mut cx = Context::new(gpu());
    // A sixteenth of its pixels: every layer of it, in seconds on a software adapter too.
    let x = Array::random(&[1, 16, 16, 3], 1).upload(&cx, DType::F32);
    let time = Array::new(&[1], vec![500.0]).upload(&cx, DType::F32);
    let labels = cx.constant_u32("labels", &[1], &[249]).unwrap();
    let pass = Pass::inference(DType::F32);
    let y = model.unet.forward(&mut cx, &model.weights(), &x, &time, Some(&labels), &pass).unwrap();
    cx.keep(&y);
    let plan = cx.finish("diffusion").unwrap();
    plan.run().unwrap();
    assert_eq!(y.shape(), [1, 16, 16, 6]);
    alive(&download(&plan, &y));
}
