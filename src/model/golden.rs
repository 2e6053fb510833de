//! The golden networks of the reference: ADM's UNet, IDDPM's, and the classifier, with their outputs and gradients.

use crate::autograd::{backprop, backprop_from};
use crate::gpu::Plan;
use crate::io::SafetensorsFile;
use crate::nn::unet::tests::small;
use crate::nn::unet::{Pass, QkvLayout, Resample, TimeScaleShift};
use crate::nn::{Arena, Classifier, ParameterSpec, Parameters, UNet, UNetConfig};
use crate::ops;
use crate::shape::{Extent, Shape};
use crate::tensor::{Context, DType, Tensor};
use crate::testing::{Array, Golden, download, gpu};

use super::load_values;

mod latent;

/// The golden network and its weights on the device.
pub(crate) fn golden_network() -> (UNet, Arena) {
    let unet = UNet::new(&small()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/unet_a.safetensors");
    let file = SafetensorsFile::open(path).unwrap();
    let values = load_values(&file, unet.parameters(), "w.").unwrap();
    let arena = unet.parameters().arena(gpu(), "weights", 1).unwrap();
    arena.write(gpu(), 0, &values).unwrap();
    (unet, arena)
}

#[test]
fn unet_a_matches_the_reference_forward_and_backward() {
    let golden = Golden::open("unet_a");
    let expected = Golden::open("unet_a_grads");
    let (unet, arena) = golden_network();
    assert_eq!(unet.parameters().specs().len(), 145);
    let gradients = unet.parameters().arena(gpu(), "gradients", 1).unwrap();
    let weights = arena.weights(unet.parameters(), 0);

    let mut cx = Context::with_tape(gpu());
    weights.track(&mut cx, &gradients.weights(unet.parameters(), 0));
    let x = golden.array("in.x").nhwc().upload(&cx, DType::F32);
    let time = golden.array("in.t").upload(&cx, DType::F32);
    let labels = golden.array("in.y").upload(&cx, DType::U32);
    let target = golden.array("in.target").nhwc().upload(&cx, DType::F32);
    cx.watch(&x);
    let out =
        unet.forward(&mut cx, &weights, &x, &time, Some(&labels), &Pass::inference(DType::F32)).unwrap();
    let loss = ops::mse(&mut cx, &out, &target).unwrap();
    backprop(&mut cx, &loss).unwrap();
    cx.keep(&out);
    cx.keep(&loss);
    let dx = cx.grad(&x).unwrap();
    cx.keep(&dx);
    let plan = cx.finish("unet_a").unwrap();
    plan.run().unwrap();

    golden.check_as("out.y", &download(&plan, &out), DType::F32, |want| want.nhwc());
    golden.check_as("grad.x", &download(&plan, &dx), DType::F32, |want| want.nhwc());
    // A bias in front of a group norm with one channel a group has no effect, and a gradient of exactly zero: the
    // reference holds its own rounding there. Such tensors are held to the rounding of the whole network's gradient.
    let values = gradients.read(gpu(), unet.parameters(), 0).unwrap();
    let largest = |array: &Array| array.data.iter().fold(0f32, |m, x| m.max(x.abs()));
    let wanted: Vec<Array> = unet.parameters().specs().iter().map(|s| expected.array(&s.name)).collect();
    let floor = 4e-7 * wanted.iter().map(largest).fold(0f32, f32::max);
    for ((spec, values), want) in unet.parameters().specs().iter().zip(values).zip(&wanted) {
        let got = Array::new(&spec.file_shape(), spec.to_file(&values));
        got.check_absolute(&spec.name, want, (1e-4 * largest(want)).max(floor));
    }
}

/// The network's output and all gradients of a mean squared error, with activations of `dtype`.
fn run(dtype: DType, loss_scale: f32) -> (Array, Vec<f32>) {
    let golden = Golden::open("unet_a");
    let (unet, arena) = golden_network();
    let parameters = unet.parameters();
    let gradients = parameters.arena(gpu(), "gradients", 1).unwrap();
    let mut cx = Context::with_tape(gpu());
    let mut weights = arena.weights(parameters, 0);
    if dtype == DType::F16 {
        weights = weights.with_halves(&mut cx).unwrap();
    }
    weights.track(&mut cx, &gradients.weights(parameters, 0));
    let x = golden.array("in.x").nhwc().upload(&cx, DType::F32);
    let time = golden.array("in.t").upload(&cx, DType::F32);
    let labels = golden.array("in.y").upload(&cx, DType::U32);
    let target = golden.array("in.target").nhwc().upload(&cx, DType::F32);
    let pass = Pass::inference(dtype);
    let out = unet.forward(&mut cx, &weights, &x, &time, Some(&labels), &pass).unwrap();
    let loss = ops::mse(&mut cx, &out, &target).unwrap();
    let seed = cx.constant_f32("loss scale", &[1], &[loss_scale]).unwrap();
    backprop_from(&mut cx, &loss, &seed).unwrap();
    cx.keep(&out);
    let plan = cx.finish("unet_a").unwrap();
    plan.run().unwrap();
    let gradients = gradients.read(gpu(), parameters, 0).unwrap().concat();
    (download(&plan, &out), gradients.iter().map(|g| g / loss_scale).collect())
}

#[test]
fn f16_activations_stay_close_to_f32() {
    if !crate::testing::dtypes().contains(&DType::F16) {
        return;
    }
    let distance = |a: &[f32], b: &[f32]| {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
        (difference / b.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
    };
    let (want, want_gradients) = run(DType::F32, 1.0);
    let (got, gradients) = run(DType::F16, 1024.0);
    let (forward, backward) = (distance(&got.data, &want.data), distance(&gradients, &want_gradients));
    assert!(forward > 0.0, "f16 was not used");
    assert!(forward < 3e-3, "output: {forward}");
    assert!(backward < 1e-2, "gradients: {backward}");
}

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
    backprop_from(&mut cx, &out, &gy).unwrap();
    let dx = cx.grad(&x).unwrap();
    let plan = finish(cx, &[&out, &dx]);
    golden.check("out.logits", &download(&plan, &out), DType::F32);
    let dx = download(&plan, &dx);
    dx.check_within("grad.x_ce", &golden.array("grad.x_ce").nhwc(), 1e-4);
    dx.map(|g| -g * labels.len() as f32).check_within("grad.x", &golden.array("grad.x").nhwc(), 1e-4);
    check_gradients(&golden, &gradients, network.parameters());
}

/// What `tests/fixtures/shapes.py` fills tensors with.
fn filled(shape: &[usize], number: usize, scale: f64, shift: f64) -> Array {
    let unit = |i: usize| ((i * 7919 + number * 104_729 + i * i % 1009) % 2003) as f64 / 2003.0;
    let values = (0..shape.iter().product()).map(|i| (shift + scale * (2.0 * unit(i) - 1.0)) as f32);
    Array::new(shape, values.collect())
}

/// A network of `shapes.py`, its parameters filled as there, on samples of `extent` against what the reference made of them.
fn check_shape(name: &str, config: &UNetConfig, extent: Extent) {
    let golden = Golden::open(&format!("shapes_{name}"));
    let unet = UNet::new(config).unwrap();
    let parameters = unet.parameters();
    let fill = |spec: &ParameterSpec| {
        let (shape, letters) = (spec.file_shape(), spec.name.chars().enumerate());
        let number = letters.map(|(i, letter)| (i + 1) * letter as usize).sum::<usize>() % 997;
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let values = match shape.len() {
            1 => filled(&shape, number, 0.2, f64::from(u8::from(spec.name.ends_with("weight")))),
            _ => filled(&shape, number, 1.5 / fan_in.sqrt(), 0.0),
        };
        spec.from_file(&values.data)
    };
    let values: Vec<Vec<f32>> = parameters.specs().iter().map(fill).collect();
    let [weights, gradients] =
        ["weights", "gradients"].map(|label| parameters.arena(gpu(), label, 1).unwrap());
    weights.write(gpu(), 0, &values).unwrap();
    let tracked = weights.weights(parameters, 0);
    let mut cx = Context::with_tape(gpu());
    tracked.track(&mut cx, &gradients.weights(parameters, 0));
    let [n, height, width, _] = Shape { extent, ..config.shape() }.nhwc(2);
    let input = |cx: &Context, channels, number| {
        filled(&[n, channels, height, width], number, 1.0, 0.0).nhwc().upload(cx, DType::F32)
    };
    let (x, target) = (input(&cx, config.in_channels, 1000), input(&cx, config.out_channels, 1001));
    let time = Array::new(&[2], vec![3.0, 700.5]).upload(&cx, DType::F32);
    let labels = Array::new(&[2], vec![2.0, 0.0]).upload(&cx, DType::U32);
    cx.watch(&x);
    let pass = Pass::inference(DType::F32);
    let out = unet.forward(&mut cx, &tracked, &x, &time, Some(&labels), &pass).unwrap();
    let loss = ops::mse(&mut cx, &out, &target).unwrap();
    backprop(&mut cx, &loss).unwrap();
    let dx = cx.grad(&x).unwrap();
    let plan = finish(cx, &[&out, &dx]);
    golden.check_as("out.y", &download(&plan, &out), DType::F32, |want| want.nhwc());
    download(&plan, &dx).check_within("grad.x", &golden.array("grad.x").nhwc(), 1e-4);
    check_gradients(&golden, &gradients, parameters);
}

/// The networks of `shapes.py`: three levels, the second of which attends, and so does the middle.
fn of_shape(sample_size: Extent, attention: usize) -> [UNetConfig; 2] {
    let adm = UNetConfig {
        sample_size,
        in_channels: 2,
        out_channels: 2,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0, 2.0],
        attention_resolutions: vec![attention],
        attention_head_dim: Some(8),
        norm_num_groups: 4,
        num_classes: Some(3),
        ..small()
    };
    let iddpm = UNetConfig {
        qkv_order: QkvLayout::Legacy,
        resample: Resample::Conv,
        resnet_time_scale_shift: TimeScaleShift::Default,
        ..adm.clone()
    };
    [adm, iddpm]
}

#[test]
fn planes_that_are_not_square_match_the_reference_forward_and_backward() {
    let extent = Extent::Plane { height: 24, width: 40 };
    let [adm, iddpm] = of_shape(extent, 20);
    check_shape("plane", &adm, extent);
    check_shape("plane_conv", &iddpm, extent);
    // Attention belongs to levels: networks made for another extent, with attention at the same level, are the same on this one.
    let [adm, iddpm] = of_shape(Extent::square(16), 8);
    check_shape("plane", &adm, extent);
    check_shape("plane_conv", &iddpm, extent);
}

#[test]
fn lines_match_the_reference_forward_and_backward() {
    let [adm, iddpm] = of_shape(Extent::Line(256), 128);
    check_shape("line", &adm, Extent::Line(256));
    check_shape("line_conv", &iddpm, Extent::Line(256));
    // Of another length than they were made for, too.
    let [adm, _] = of_shape(Extent::Line(64), 32);
    check_shape("line", &adm, Extent::Line(256));
}
