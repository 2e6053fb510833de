//! The UNet by itself: options, late conditions, guidance weights, upsamplers. Golden tensors: `model/golden.rs`.

use super::*;
use crate::autograd::backprop;
use crate::nn::Arena;
use crate::shape::{Extent, Shape};
use crate::testing::{Array, download, gpu};

/// A network small enough for tests.
pub(crate) fn small() -> UNetConfig {
    UNetConfig {
        sample_size: Extent::square(16),
        in_channels: 3,
        out_channels: 6,
        model_channels: 32,
        channel_mult: vec![1.0, 2.0],
        layers_per_block: 1,
        attention_resolutions: vec![8],
        attention_head_dim: Some(16),
        num_attention_heads: None,
        qkv_order: QkvLayout::New,
        norm_num_groups: 32,
        dropout: 0.0,
        resample: Resample::Resnet,
        resnet_time_scale_shift: TimeScaleShift::ScaleShift,
        residual_scaling: false,
        num_classes: Some(10),
        null_class: NullClass::Absent,
        vector_width: 0,
        low_res_channels: 0,
        beside_channels: 0,
        transformer: None,
        condition_from: None,
        guidance_range: None,
    }
}

#[test]
fn every_option_builds_and_runs() {
    use crate::nn::unet::{Resample, TimeScaleShift};
    for config in [
        UNetConfig { resample: Resample::Conv, num_attention_heads: Some(2), ..small() },
        UNetConfig { resnet_time_scale_shift: TimeScaleShift::Default, num_classes: None, ..small() },
        UNetConfig {
            residual_scaling: true,
            qkv_order: QkvLayout::Legacy,
            null_class: NullClass::Zero,
            ..small()
        },
        UNetConfig {
            sample_size: Extent::square(12),
            channel_mult: vec![1.0, 1.0, 2.0],
            attention_resolutions: vec![3],
            ..small()
        },
    ] {
        let unet = UNet::new(&config).unwrap();
        let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
        // Zero-initialised layers hide what is before them: start from noise everywhere.
        let values: Vec<Vec<f32>> = unet
            .parameters()
            .specs()
            .iter()
            .enumerate()
            .map(|(i, s)| crate::random::init_uniform(7, i as u64, s.len(), 0.1))
            .collect();
        arena.write(gpu(), 0, &values).unwrap();
        let weights = arena.weights(unet.parameters(), 0);
        let mut cx = Context::new(gpu());
        let x = Array::random(&config.shape().nhwc(2), 5).upload(&cx, DType::F32);
        let time = Array::new(&[2], vec![3.0, 700.5]).upload(&cx, DType::F32);
        let labels =
            config.num_classes.map(|_| cx.constant_u32("labels", &[2], &[3, config.null_label()]).unwrap());
        let pass = Pass::inference(DType::F32);
        let out = unet.forward(&mut cx, &weights, &x, &time, labels.as_ref(), &pass).unwrap();
        assert_eq!(out.shape(), Shape { channels: 6, ..config.shape() }.nhwc(2));
        cx.keep(&out);
        let plan = cx.finish("option").unwrap();
        plan.run().unwrap();
        let values = download(&plan, &out);
        assert!(
            values.data.iter().all(|x| x.is_finite()) && values.data.iter().any(|x| x.abs() > 1e-3),
            "{config:?}"
        );
    }
}

/// A network of half the size.
fn smaller() -> UNetConfig {
    let attention_resolutions = vec![4];
    UNetConfig {
        sample_size: Extent::square(8),
        model_channels: 16,
        norm_num_groups: 8,
        attention_resolutions,
        ..small()
    }
}

/// Weights that are zero nowhere: layers that start at zero hide what is before them.
pub(super) fn noise(unet: &UNet) -> Arena {
    let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
    let specs = unet.parameters().specs().iter().enumerate();
    let values: Vec<Vec<f32>> =
        specs.map(|(i, s)| crate::random::init_uniform(7, i as u64, s.len(), 0.1)).collect();
    arena.write(gpu(), 0, &values).unwrap();
    arena
}

/// The network on two latents under two conditions each, once as one batch of four and once sharing what it can; the
/// outputs and the work of both.
fn twice(unet: &UNet, dtype: DType) -> [(Array, f64); 2] {
    let arena = noise(unet);
    let (z, times) = (Array::random(&unet.config().shape().nhwc(2), 5), [3.0, 700.5]);
    let labels = [3, 7, 10, 10];
    [false, true].map(|shared| {
        let mut cx = Context::new(gpu());
        let mut weights = arena.weights(unet.parameters(), 0);
        if dtype == DType::F16 {
            weights = weights.with_halves(&mut cx).unwrap();
        }
        let labels = cx.constant_u32("labels", &[4], &labels).unwrap();
        let z = z.upload(&cx, DType::F32);
        let (time, pass) = (Array::new(&[2], times.to_vec()).upload(&cx, DType::F32), Pass::inference(dtype));
        let out = if shared {
            let told = Told { conditions: 2, class: Some(&labels), ..Told::default() };
            unet.record(&mut cx, &weights, &z, &time, told, &pass).unwrap()
        } else {
            let [z, time] = [&z, &time].map(|x| ops::repeat_batch(&mut cx, x, 2).unwrap());
            unet.forward(&mut cx, &weights, &z, &time, Some(&labels), &pass).unwrap()
        };
        let flops = cx.flops();
        cx.keep(&out);
        let plan = cx.finish("conditions").unwrap();
        plan.run().unwrap();
        (download(&plan, &out), flops)
    })
}

#[test]
fn a_late_condition_shares_the_trunk_and_changes_no_bit() {
    let mut before = f64::INFINITY;
    for (from, dtype) in crate::testing::dtypes()
        .into_iter()
        .flat_map(|dtype| ["input_blocks.1", "middle_block", "output_blocks.1"].map(|from| (from, dtype)))
    {
        let config =
            UNetConfig { condition_from: Some(from.into()), null_class: NullClass::Learned, ..smaller() };
        let [(naive, whole), (shared, less)] = twice(&UNet::new(&config).unwrap(), dtype);
        assert_eq!(naive.data, shared.data, "{from} {dtype:?}");
        assert!(less < whole, "{from}: {less} of {whole}");
        // The later, the less is done twice.
        before = if from == "input_blocks.1" { f64::INFINITY } else { before };
        assert!(less < before, "{from}");
        before = less;
        // What is told without a device is what was counted on one, but for embeddings.
        let work = UNet::new(&config).unwrap().work();
        assert!((2.0 * 2.0 * work.all / whole - 1.0).abs() < 0.05, "{from}: {work:?}, {whole}");
        let told = work.guided_evaluations() / 2.0;
        assert!((told - less / whole).abs() < 0.01, "{from}: {told}, {}", less / whole);
        // The condition does come in.
        let half = naive.data.len() / 2;
        assert_ne!(naive.data[..half], naive.data[half..], "{from}");
    }
    let all = UNetConfig { null_class: NullClass::Learned, ..smaller() };
    let [(naive, whole), (shared, less)] = twice(&UNet::new(&all).unwrap(), DType::F32);
    assert_eq!(naive.data, shared.data);
    assert!(less <= whole);
    for wrong in ["input_blocks.0", "input_blocks.4", "output_blocks.4", "middle", "output_blocks.-1"] {
        let config = UNetConfig { condition_from: Some(wrong.into()), ..small() };
        let error = UNet::new(&config).unwrap_err().to_string();
        assert!(error.contains(wrong) && error.contains("output_blocks.3"), "{error}");
    }
}

/// The layers of w start at zero: a distilled network begins as the one it was made of, and then they matter.
#[test]
fn a_guidance_weight_starts_without_effect_and_has_gradients() {
    let plain = UNet::new(&smaller()).unwrap();
    let distilled = UNet::new(&UNetConfig { guidance_range: Some([0.0, 4.0]), ..smaller() }).unwrap();
    let count = plain.parameters().specs().len();
    let names: Vec<&str> =
        distilled.parameters().specs()[count..].iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["w_embed.0.weight", "w_embed.0.bias", "w_embed.2.weight", "w_embed.2.bias"]);

    let run = |unet: &UNet, w: Option<[f32; 2]>, trained: bool| {
        let arena = noise(unet);
        let mut values = arena.read(gpu(), unet.parameters(), 0).unwrap();
        if !trained && w.is_some() {
            values[count + 2].fill(0.0);
            values[count + 3].fill(0.0);
        }
        arena.write(gpu(), 0, &values).unwrap();
        let gradients = unet.parameters().arena(gpu(), "gradients", 1).unwrap();
        let mut cx = Context::with_tape(gpu());
        let weights = arena.weights(unet.parameters(), 0);
        weights.track(&mut cx, &gradients.weights(unet.parameters(), 0));
        let z = Array::random(&[2, 8, 8, 3], 5).upload(&cx, DType::F32);
        let time = Array::new(&[2], vec![3.0, 700.5]).upload(&cx, DType::F32);
        let labels = cx.constant_u32("labels", &[2], &[3, 4]).unwrap();
        let guidance = w.map(|w| Array::new(&[2], w.to_vec()).upload(&cx, DType::F32));
        let told = Told { class: Some(&labels), guidance: guidance.as_ref(), ..Told::default() };
        let out = unet.record(&mut cx, &weights, &z, &time, told, &Pass::inference(DType::F32)).unwrap();
        let zero = Array::new(out.shape(), vec![0.0; out.len()]).upload(&cx, DType::F32);
        let loss = ops::mse(&mut cx, &out, &zero).unwrap();
        backprop(&mut cx, &loss).unwrap();
        cx.keep(&out);
        let plan = cx.finish("w").unwrap();
        plan.run().unwrap();
        (download(&plan, &out).data, gradients.read(gpu(), unet.parameters(), 0).unwrap())
    };
    let (bare, _) = run(&plain, None, false);
    let (zero, gradients) = run(&distilled, Some([0.5, 3.0]), false);
    assert_eq!(bare, zero);
    assert!(gradients[count + 2].iter().any(|g| *g != 0.0), "the zero layer learns");
    assert!(gradients[count].iter().all(|g| *g == 0.0), "and what is before it does not yet");
    let (one, gradients) = run(&distilled, Some([0.5, 3.0]), true);
    let (other, _) = run(&distilled, Some([0.5, 3.5]), true);
    let half = one.len() / 2;
    assert!(one != bare && one[..half] == other[..half] && one[half..] != other[half..]);
    assert!(gradients[count].iter().any(|g| *g != 0.0));

    let mut cx = Context::new(gpu());
    let weights = noise(&distilled).weights(distilled.parameters(), 0);
    let z = Array::random(&[1, 8, 8, 3], 5).upload(&cx, DType::F32);
    let time = Array::new(&[1], vec![3.0]).upload(&cx, DType::F32);
    let labels = cx.constant_u32("labels", &[1], &[3]).unwrap();
    let pass = Pass::inference(DType::F32);
    let error = distilled.forward(&mut cx, &weights, &z, &time, Some(&labels), &pass).unwrap_err();
    assert!(error.to_string().contains("guidance weight"), "{error}");
}

/// What residual blocks take of the embedding is recorded without anything between, so that it runs at the same time.
#[test]
fn all_blocks_are_told_their_share_at_once() {
    let unet = UNet::new(&small()).unwrap();
    let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
    let weights = arena.weights(unet.parameters(), 0);
    let mut cx = Context::new(gpu());
    cx.set_rung(crate::gpu::Rung::Tiled);
    let z = Array::random(&[2, 16, 16, 3], 1).upload(&cx, DType::F32);
    let time = Array::new(&[2], vec![3.0, 700.0]).upload(&cx, DType::F32);
    let labels = Array::new(&[2], vec![1.0, 7.0]).upload(&cx, DType::U32);
    unet.forward(&mut cx, &weights, &z, &time, Some(&labels), &Pass::inference(DType::F32)).unwrap();
    let plan = cx.finish("unet").unwrap();
    let is_row = |(i, label): (usize, &str)| label.starts_with("linear_rows").then_some(i);
    let rows: Vec<usize> = plan.labels().enumerate().filter_map(is_row).collect();
    let blocks = unet.parameters().specs().iter().filter(|spec| spec.name.ends_with("emb_layers.1.weight"));
    let blocks = blocks.count();
    assert_eq!(rows.len(), blocks + 2, "two more make the embedding");
    assert_eq!(rows[rows.len() - 1] - rows[2], blocks - 1, "{rows:?}");
}

#[test]
fn an_upsampler_takes_the_small_picture_bilinearly() {
    let config = UNetConfig { low_res_channels: 3, num_classes: None, ..small() };
    let unet = UNet::new(&config).unwrap();
    assert_eq!(unet.parameters().specs()[4].file_shape(), [32, 6, 3, 3]);
    let mut cx = Context::new(gpu());
    let z = Array::random(&[2, 16, 16, 3], 1);
    let small = Array::random(&[2, 4, 4, 3], 2);
    let (z_, small_) = (z.upload(&cx, DType::F32), small.upload(&cx, DType::F32));
    let both = unet.input(&mut cx, &z_, Some(&small_)).unwrap();
    assert_eq!(both.shape(), [2, 16, 16, 6]);
    let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
    arena.write(gpu(), 0, &unet.parameters().initial_values(3)).unwrap();
    let weights = arena.weights(unet.parameters(), 0);
    let time = Array::new(&[2], vec![3.0, 700.0]).upload(&cx, DType::F32);
    let pass = Pass::inference(DType::F32);
    let error = unet.forward(&mut cx, &weights, &z_, &time, None, &pass).unwrap_err().to_string();
    assert!(error.contains("no small picture came"), "{error}");
    let told = Told { picture: Some(&small_), ..Told::default() };
    let out = unet.record(&mut cx, &weights, &z_, &time, told, &pass).unwrap();
    assert_eq!(out.shape(), [2, 16, 16, 6]);
    cx.keep(&both);
    let plan = cx.finish("upsampler").unwrap();
    plan.run().unwrap();
    let both = download(&plan, &both);
    // The corner lies half a pixel outside the small picture's first centre: it is that pixel.
    assert_eq!(both.data[..6], [&z.data[..3], &small.data[..3]].concat());

    let mut cx = Context::new(gpu());
    let wrong = Array::random(&[2, 5, 4, 3], 2).upload(&cx, DType::F32);
    let error = unet.input(&mut cx, &z_, Some(&wrong)).unwrap_err().to_string();
    assert!(error.contains("[2, 5, 4, 3]"), "{error}");
}
