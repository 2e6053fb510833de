//! UNets that read tokens. Golden tensors: `model/golden/latent.rs`.

use super::tests::{noise, small};
use super::*;
use crate::nn::{Arena, Bank};
use crate::shape::Extent;
use crate::testing::{Array, download, gpu};

/// One that reads tokens, of latent diffusion's kind.
pub(crate) fn small_latent() -> UNetConfig {
    UNetConfig {
        sample_size: Extent::square(8),
        in_channels: 4,
        out_channels: 4,
        model_channels: 32,
        channel_mult: vec![1.0, 1.5],
        attention_resolutions: vec![8],
        attention_head_dim: None,
        num_attention_heads: Some(2),
        norm_num_groups: 8,
        resample: Resample::Conv,
        resnet_time_scale_shift: TimeScaleShift::Default,
        num_classes: None,
        transformer: Some(TransformerConfig { context_width: 20, layers: vec![2, 0], middle_layers: 1 }),
        ..small()
    }
}

/// What a network of tokens is run on: latents, rows of a bank, the bank.
fn latents(cx: &Context, config: &UNetConfig, n: usize, rows: &[u32]) -> [Tensor; 4] {
    let z = Array::random(&config.shape().nhwc(n), 5).upload(cx, DType::F32);
    let time = Array::random(&[n], 6).map(|t| 400.0 + 300.0 * t).upload(cx, DType::F32);
    let bank = Array::random(&[3, 7, 20], 7).upload(cx, DType::F32);
    [z, time, cx.constant_u32("rows", &[rows.len()], rows).unwrap(), bank]
}

#[test]
fn conditions_of_tokens_are_rows_and_keys_are_prepared_once() {
    let unet = UNet::new(&small_latent()).unwrap();
    let arena = noise(&unet);
    let run = |rows: [u32; 4], ahead: bool, dtype: DType| {
        let mut cx = Context::new(gpu());
        let mut weights = arena.weights(unet.parameters(), 0);
        if dtype == DType::F16 {
            weights = weights.with_halves(&mut cx).unwrap();
        }
        let [z, time, rows, bank] = latents(&cx, unet.config(), 2, &rows);
        let pass = Pass::inference(dtype);
        let prepared = match ahead {
            true => unet.prepare(&mut cx, &weights, &bank, &pass).unwrap(),
            false => Vec::new(),
        };
        if ahead {
            let shapes: Vec<&[usize]> = prepared.iter().map(Tensor::shape).collect();
            let [narrow, wide] = [[3, 7, 64], [3, 7, 96]];
            // Level 0 down, the middle, level 0 up.
            let want: [&[usize]; 7] = [&narrow, &narrow, &wide, &narrow, &narrow, &narrow, &narrow];
            assert_eq!(shapes, want);
        }
        let told = Told {
            conditions: 2,
            tokens: Some(Bank { rows: &rows, values: &bank }),
            prepared: &prepared,
            ..Told::default()
        };
        let out = unet.record(&mut cx, &weights, &z, &time, told, &pass).unwrap();
        cx.keep(&out);
        let plan = cx.finish("tokens").unwrap();
        plan.run().unwrap();
        download(&plan, &out).data
    };
    for dtype in crate::testing::dtypes() {
        let out = run([1, 2, 0, 0], true, dtype);
        assert_eq!(out, run([1, 2, 0, 0], false, dtype), "in line");
        // Each condition by itself, the other way round.
        let turned = run([0, 0, 1, 2], true, dtype);
        let half = out.len() / 2;
        assert_eq!(out[..half], turned[half..]);
        assert_eq!(out[half..], turned[..half]);
        assert_ne!(out[..half], out[half..], "tokens come in");
        // "Nothing", past the bank, is all zeros.
        assert_eq!(run([3, 9, 0, 0], true, dtype), run([3, 9, 0, 0], false, dtype));
    }
}

#[test]
fn tokens_that_do_not_fit_are_refused() {
    let unet = UNet::new(&small_latent()).unwrap();
    let weights = noise(&unet).weights(unet.parameters(), 0);
    let mut cx = Context::new(gpu());
    let [z, time, rows, bank] = latents(&cx, unet.config(), 1, &[0]);
    let pass = Pass::inference(DType::F32);
    let mut refusal =
        |told: Told<'_>| unet.record(&mut cx, &weights, &z, &time, told, &pass).unwrap_err().to_string();
    assert!(refusal(Told::default()).contains("reads tokens, but none came"));
    let wrong = Array::random(&[3, 5, 28], 7).upload(&Context::new(gpu()), DType::F32);
    let told = |values| Told { tokens: Some(Bank { rows: &rows, values }), ..Told::default() };
    let message = refusal(told(&wrong));
    assert!(message.contains("[R, L, 20]"), "{message}");
    let few = [bank.clone()];
    let message = refusal(Told { prepared: &few, ..told(&bank) });
    assert!(message.contains("of 1 layers were prepared, and there are 7"), "{message}");
    let plain = UNet::new(&UNetConfig { transformer: None, ..small_latent() }).unwrap();
    let weights = noise(&plain).weights(plain.parameters(), 0);
    let error = plain.record(&mut cx, &weights, &z, &time, told(&bank), &pass).unwrap_err().to_string();
    assert!(error.contains("the network reads none"), "{error}");
}

#[test]
fn transformers_go_with_the_levels_that_attend() {
    let refused = |config: UNetConfig| UNet::new(&config).unwrap_err().to_string();
    let with = |layers: Vec<usize>, middle_layers| UNetConfig {
        transformer: Some(TransformerConfig { context_width: 20, layers, middle_layers }),
        ..small_latent()
    };
    assert!(refused(with(vec![1, 1], 1)).contains("`layers` of the transformers are [1, 1]"));
    assert!(refused(with(vec![0, 0], 1)).contains("[true, false]"));
    assert!(refused(with(vec![1], 1)).contains("one number for each level"));
    assert!(refused(with(vec![1, 0], 0)).contains("0 in the middle"));
    let late = UNetConfig { condition_from: Some("middle_block".into()), ..small_latent() };
    assert!(refused(late).contains("read tokens"));
    assert!(Classifier::new(&small_latent()).unwrap_err().to_string().contains("tokens"));
    let text = serde_json::to_string(&small()).unwrap();
    assert!(!text.contains("transformer") && !text.contains("beside"), "{text}");
    let text = serde_json::to_string(&small_latent()).unwrap();
    assert_eq!(serde_json::from_str::<UNetConfig>(&text).unwrap(), small_latent());
}

#[test]
fn gradients_through_transformers_are_those_of_finite_differences() {
    let config =
        UNetConfig { sample_size: Extent::square(4), attention_resolutions: vec![4], ..small_latent() };
    let unet = UNet::new(&config).unwrap();
    let arena = noise(&unet);
    let weights = arena.weights(unet.parameters(), 0);
    let inputs = [Array::random(&config.shape().nhwc(2), 5), Array::random(&[2, 3, 20], 7)];
    crate::testing::check_gradients(&inputs, |cx, x| {
        let time = Array::new(&[2], vec![3.0, 700.5]).upload(cx, DType::F32);
        let rows = cx.constant_u32("rows", &[2], &[1, 0])?;
        let told = Told { tokens: Some(Bank { rows: &rows, values: &x[1] }), ..Told::default() };
        unet.record(cx, &weights, &x[0], &time, told, &Pass::inference(DType::F32))
    });
    // And of the parameters of one layer.
    let names = [
        "attn1.to_qkv.weight",
        "attn2.to_kv.weight",
        "attn2.to_q.weight",
        "ff.net.0.proj.bias",
        "norm2.weight",
    ];
    for name in names {
        let found = unet.parameters().specs().iter().position(|spec| spec.name.ends_with(name)).unwrap();
        differences(&unet, &arena, found);
    }
}

/// Compares the gradient of parameter number `found` along a direction with central differences of the loss.
fn differences(unet: &UNet, arena: &Arena, found: usize) {
    let values = arena.read(gpu(), unet.parameters(), 0).unwrap();
    let direction = Array::random(&[values[found].len()], 9).data;
    let run = |step: f32, grads: bool| -> (f64, Vec<f32>) {
        let mut moved = values.clone();
        moved[found].iter_mut().zip(&direction).for_each(|(value, along)| *value += step * along);
        let own = unet.parameters().arena(gpu(), "moved", 1).unwrap();
        own.write(gpu(), 0, &moved).unwrap();
        let gradients = unet.parameters().arena(gpu(), "gradients", 1).unwrap();
        let weights = own.weights(unet.parameters(), 0);
        let mut cx = if grads { Context::with_tape(gpu()) } else { Context::new(gpu()) };
        weights.track(&mut cx, &gradients.weights(unet.parameters(), 0));
        let [z, time, rows, bank] = latents(&cx, unet.config(), 2, &[2, 0]);
        let told = Told { tokens: Some(Bank { rows: &rows, values: &bank }), ..Told::default() };
        let out = unet.record(&mut cx, &weights, &z, &time, told, &Pass::inference(DType::F32)).unwrap();
        let target = Array::random(out.shape(), 11);
        if grads {
            let slope = target.upload(&cx, DType::F32);
            crate::autograd::backprop_from(&mut cx, &out, &slope).unwrap();
        }
        cx.keep(&out);
        let plan = cx.finish("differences").unwrap();
        plan.run().unwrap();
        let out = download(&plan, &out);
        let sum = out.data.iter().zip(&target.data).map(|(y, r)| f64::from(*y) * f64::from(*r)).sum();
        (sum, gradients.read(gpu(), unet.parameters(), 0).unwrap().swap_remove(found))
    };
    let (_, gradient) = run(0.0, true);
    let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
    const STEP: f32 = 1.0 / 256.0;
    let numeric = (run(STEP, false).0 - run(-STEP, false).0) / (2.0 * f64::from(STEP));
    let name = &unet.parameters().specs()[found].name;
    assert!(
        (numeric - analytic).abs() <= 5e-3 * analytic.abs().max(0.05),
        "{name}: {analytic} against {numeric}"
    );
}
