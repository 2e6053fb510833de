//! The golden networks that have their own options: IDDPM's UNet and the classifier.

use super::tests::small;
use super::*;
use crate::autograd::backprop;
use crate::gpu::Plan;
use crate::io::SafetensorsFile;
use crate::model::load_values;
use crate::nn::Arena;
use crate::testing::{Array, Golden, download, gpu};

/// The weights `w.*` of a golden file, and an arena for their gradients.
fn arenas(name: &str, parameters: &Parameters) -> [Arena; 2] {
    let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let file = SafetensorsFile::open(path).unwrap();
    let values = load_values(&file, parameters, "w.").unwrap();
    let [weights, gradients] =
        ["weights", "gradients"].map(|label| parameters.arena(gpu(), label, 1).unwrap());
    weights.write(gpu(), 0, &values).unwrap();
    [weights, gradients]
}

fn finish(mut cx: Context, kept: &[&Tensor]) -> Plan {
    kept.iter().for_each(|tensor| cx.keep(tensor));
    let plan = cx.finish("golden").unwrap();
    plan.run().unwrap();
    plan
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |m, x| m.max(x.abs()))
}

/// Compares the gradient of every parameter with what the file holds of it: norm, sum and a sum of sines, and all of it
/// where it is small.
fn check_gradients(golden: &Golden, gradients: &Arena, parameters: &Parameters) {
    let values = gradients.read(gpu(), parameters, 0).unwrap();
    let files: Vec<Vec<f32>> =
        parameters.specs().iter().zip(&values).map(|(spec, values)| spec.to_file(values)).collect();
    // Biases that a group norm takes away have a gradient of rounding alone.
    let floor = 2e-7 * files.iter().map(|values| largest(values)).fold(0f32, f32::max);
    for (spec, got) in parameters.specs().iter().zip(files) {
        let probe = golden.array(&format!("gradprobe.{}", spec.name));
        let wide = || got.iter().map(|g| f64::from(*g));
        let norm = wide().map(|g| g * g).sum::<f64>().sqrt();
        let sines = wide().enumerate().map(|(i, g)| g * ((i + 1) as f64).sin()).sum::<f64>();
        let length = (got.len() as f64).sqrt();
        let allowed = (1e-4 * f64::from(probe.data[0])).max(f64::from(floor) * length);
        for (got, want) in [norm, wide().sum::<f64>(), sines].into_iter().zip(&probe.data) {
            // A sum has the error of √n numbers of the norm's size.
            let error = (got - f64::from(*want)).abs();
            assert!(error <= allowed * length.max(1.0).sqrt(), "{}: {got} is not {want}", spec.name);
        }
        if let Some(want) = golden.get(&format!("grad.{}", spec.name)) {
            let got = Array::new(&spec.file_shape(), got);
            got.check_absolute(&spec.name, &want, (1e-4 * largest(&want.data)).max(floor));
        }
    }
}

#[test]
fn unet_b_matches_the_reference() {
    let config = UNetConfig {
        out_channels: 3,
        channel_mult: vec![1.0, 1.0],
        attention_head_dim: None,
        num_attention_heads: Some(2),
        qkv_order: QkvLayout::Legacy,
        resample: Resample::Conv,
        resnet_time_scale_shift: TimeScaleShift::Default,
        num_classes: None,
        ..small()
    };
    let golden = Golden::open("unet_b");
    let unet = UNet::new(&config).unwrap();
    let [weights, gradients] = arenas("unet_b", unet.parameters());
    let tracked = weights.weights(unet.parameters(), 0);
    let mut cx = Context::with_tape(gpu());
    tracked.track(&mut cx, &gradients.weights(unet.parameters(), 0));
    let x = golden.array("in.x").nhwc().upload(&cx, DType::F32);
    let time = golden.array("in.t").upload(&cx, DType::F32);
    let target = golden.array("in.target").nhwc().upload(&cx, DType::F32);
    cx.watch(&x);
    let out = unet.forward(&mut cx, &tracked, &x, &time, None, &Pass::inference(DType::F32)).unwrap();
    let loss = ops::mse(&mut cx, &out, &target).unwrap();
    backprop(&mut cx, &loss).unwrap();
    let dx = cx.grad(&x).unwrap();
    let plan = finish(cx, &[&out, &dx]);
    golden.check_as("out.y", &download(&plan, &out), DType::F32, |want| want.nhwc());
    let want = golden.array("grad.x").nhwc();
    download(&plan, &dx).check_within("grad.x", &want, 1e-4);
    check_gradients(&golden, &gradients, unet.parameters());
}

/// The cross-entropy's gradient with respect to the logits, (softmax - one-hot)·scale, on the host.
fn slope(logits: &Array, labels: &[f32], scale: f32) -> Array {
    let classes = logits.shape[1];
    let mut slope = logits.clone();
    for (row, label) in slope.data.chunks_mut(classes).zip(labels) {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f32 = row.iter().map(|x| (x - most).exp()).sum();
        row.iter_mut().for_each(|x| *x = (*x - most).exp() / total * scale);
        row[*label as usize] -= scale;
    }
    slope
}

#[test]
fn the_classifier_matches_the_reference() {
    let config = UNetConfig {
        out_channels: 10,
        channel_mult: vec![1.0, 1.0],
        qkv_order: QkvLayout::Legacy,
        num_classes: None,
        ..small()
    };
    let golden = Golden::open("classifier");
    let network = Classifier::new(&config).unwrap();
    assert_eq!(network.parameters().specs().len(), 75);
    let [weights, gradients] = arenas("classifier", network.parameters());
    let tracked = weights.weights(network.parameters(), 0);
    let labels = golden.array("in.y").data;
    let logits = golden.array("out.logits");

    // Cross-entropy, the mean over the batch; guidance follows the sum of log p, which is its gradient times -N.
    let mut cx = Context::with_tape(gpu());
    tracked.track(&mut cx, &gradients.weights(network.parameters(), 0));
    let x = golden.array("in.x").nhwc().upload(&cx, DType::F32);
    let time = golden.array("in.t").upload(&cx, DType::F32);
    cx.watch(&x);
    let out = network.forward(&mut cx, &tracked, &x, &time, &Pass::inference(DType::F32)).unwrap();
    let gy = slope(&logits, &labels, 1.0 / labels.len() as f32).upload(&cx, DType::F32);
    crate::autograd::backprop_from(&mut cx, &out, &gy).unwrap();
    let dx = cx.grad(&x).unwrap();
    let plan = finish(cx, &[&out, &dx]);
    golden.check("out.logits", &download(&plan, &out), DType::F32);
    let dx = download(&plan, &dx);
    dx.check_within("grad.x_ce", &golden.array("grad.x_ce").nhwc(), 1e-4);
    dx.map(|g| -g * labels.len() as f32).check_within("grad.x", &golden.array("grad.x").nhwc(), 1e-4);
    check_gradients(&golden, &gradients, network.parameters());
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
    let both = unet.with_low_res(&mut cx, &z_, &small_).unwrap();
    assert_eq!(both.shape(), [2, 16, 16, 6]);
    let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
    arena.write(gpu(), 0, &unet.parameters().initial_values(3)).unwrap();
    let weights = arena.weights(unet.parameters(), 0);
    let time = Array::new(&[2], vec![3.0, 700.0]).upload(&cx, DType::F32);
    let pass = Pass::inference(DType::F32);
    assert!(unet.forward(&mut cx, &weights, &z_, &time, None, &pass).is_err());
    let out = unet.forward(&mut cx, &weights, &both, &time, None, &pass).unwrap();
    assert_eq!(out.shape(), [2, 16, 16, 6]);
    let plan = finish(cx, &[&both]);
    let both = download(&plan, &both);
    // The corner lies half a pixel outside the small picture's first centre: it is that pixel.
    assert_eq!(both.data[..6], [&z.data[..3], &small.data[..3]].concat());

    let mut cx = Context::new(gpu());
    let wrong = Array::random(&[2, 5, 4, 3], 2).upload(&cx, DType::F32);
    assert!(unet.with_low_res(&mut cx, &z_, &wrong).unwrap_err().to_string().contains("[2, 5, 4, 3]"));
}
