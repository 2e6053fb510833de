//! What the tests of operations share: a device, golden tensors, comparison, finite differences.

use std::sync::OnceLock;

use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;

use crate::autograd::backprop_from;
use crate::error::Result;
use crate::gpu::{DeviceChoice, Gpu, Rung};
use crate::tensor::{Context, DType, Tensor};

/// The device of this process. Tests fail where there is none.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new_blocking(&DeviceChoice::Auto).expect("the tests need a GPU adapter"))
}

/// f32, and f16 where the device has it.
pub fn dtypes() -> Vec<DType> {
    if gpu().capabilities().f16 { vec![DType::F32, DType::F16] } else { vec![DType::F32] }
}

/// Every rung that this device can run, the naive one first.
pub fn rungs() -> Vec<Rung> {
    let mut rungs = vec![Rung::Naive, Rung::Cpu, Rung::Tiled];
    rungs.extend(Some(gpu().capabilities().rung).filter(|rung| *rung == Rung::Coop));
    rungs
}

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Array {
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape: shape.to_vec(), data }
    }

    /// Uniform in [-1, 1), exact in f16.
    pub fn random(shape: &[usize], seed: u64) -> Self {
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let data =
            (0..shape.iter().product()).map(|_| rng.random_range(-512i32..512) as f32 / 512.0).collect();
        Array::new(shape, data)
    }

    /// Exact numbers in (shift - scale, shift + scale), a function of the tensor's number and the place: what scripts of fixtures
    /// call `filled`.
    pub fn filled(shape: &[usize], number: i64, scale: f32, shift: f32) -> Self {
        let value = |i: i64| {
            let unit = (i * 7919 + number * 104_729 + i * i % 1009) % 2003;
            (f64::from(shift) + f64::from(scale) * (2.0 * unit as f64 / 2003.0 - 1.0)) as f32
        };
        Array::new(shape, (0..shape.iter().product::<usize>() as i64).map(value).collect())
    }

    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Array::new(&self.shape, self.data.iter().map(|&x| f(x)).collect())
    }

    pub fn zip(&self, other: &Array, f: impl Fn(f32, f32) -> f32) -> Self {
        assert_eq!(self.shape, other.shape);
        Array::new(&self.shape, self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect())
    }

    /// The same elements with dimension `order[i]` moved to place `i`.
    pub fn permute(&self, order: &[usize]) -> Self {
        let shape: Vec<usize> = order.iter().map(|&from| self.shape[from]).collect();
        let mut strides = vec![1; self.shape.len()];
        for i in (1..strides.len()).rev() {
            strides[i - 1] = strides[i] * self.shape[i];
        }
        let data = (0..self.data.len())
            .map(|flat| {
                let (mut rest, mut at) = (flat, 0);
                for i in (0..shape.len()).rev() {
                    at += rest % shape[i] * strides[order[i]];
                    rest /= shape[i];
                }
                self.data[at]
            })
            .collect();
        Array { shape, data }
    }

    /// NCHW to NHWC.
    pub fn nhwc(&self) -> Self {
        self.permute(&[0, 2, 3, 1])
    }

    /// OIHW to the `[Kh, Kw, C, K]` of this library's convolutions.
    pub fn hwio(&self) -> Self {
        self.permute(&[2, 3, 1, 0])
    }

    pub fn reshape(&self, shape: &[usize]) -> Self {
        Array::new(shape, self.data.clone())
    }

    /// Uploads it into the recording's world.
    pub fn upload(&self, cx: &Context, dtype: DType) -> Tensor {
        match dtype {
            DType::F32 => cx.constant_f32("input", &self.shape, &self.data).unwrap(),
            DType::F16 => {
                let half: Vec<half::f16> = self.data.iter().map(|&x| half::f16::from_f32(x)).collect();
                cx.constant("input", &self.shape, dtype, bytemuck::cast_slice(&half)).unwrap()
            }
            DType::U32 => {
                let words: Vec<u32> = self.data.iter().map(|&x| x as u32).collect();
                cx.constant_u32("input", &self.shape, &words).unwrap()
            }
        }
    }

    /// Fails unless max|got - want| <= tolerance·max|want|: 1e-5 in f32, 2e-3 in f16.
    #[track_caller]
    pub fn check(&self, name: &str, want: &Array, dtype: DType) {
        self.check_within(name, want, tolerance(dtype));
    }

    #[track_caller]
    pub fn check_within(&self, name: &str, want: &Array, tolerance: f32) {
        let largest = want.data.iter().fold(0f32, |m, x| m.max(x.abs()));
        self.check_absolute(name, want, tolerance * largest);
    }

    #[track_caller]
    pub fn check_absolute(&self, name: &str, want: &Array, allowed: f32) {
        assert_eq!(self.shape, want.shape, "{name}: shape");
        let mut worst = (0, 0f32);
        for (i, (got, want)) in self.data.iter().zip(&want.data).enumerate() {
            let error = (got - want).abs();
            if error > worst.1 || error.is_nan() {
                worst = (i, if error.is_nan() { f32::INFINITY } else { error });
            }
        }
        let (i, error) = worst;
        assert!(
            error <= allowed,
            "{name} {:?}: element {i} is {}, expected {}; largest error {error:e}, allowed {allowed:e}",
            self.shape,
            self.data[i],
            want.data[i]
        );
    }
}

pub fn tolerance(dtype: DType) -> f32 {
    if dtype == DType::F16 { 2e-3 } else { 1e-5 }
}

/// Reads a tensor's values back as f32. The plan must have run and the tensor been kept.
pub fn download(plan: &crate::gpu::Plan, tensor: &Tensor) -> Array {
    download_from(gpu(), plan, tensor)
}

/// The same of a plan on another device than the tests' own.
pub fn download_from(gpu: &Gpu, plan: &crate::gpu::Plan, tensor: &Tensor) -> Array {
    let buffer = plan.kept(tensor.storage()).expect("only kept tensors can be read");
    let padded = tensor.bytes().next_multiple_of(4);
    let bytes = gpu.read(buffer, tensor.offset()..tensor.offset() + padded).unwrap();
    let bytes = &bytes[..tensor.bytes() as usize];
    let data = match tensor.dtype() {
        DType::F32 => bytemuck::pod_collect_to_vec(bytes),
        DType::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(bytes).into_iter().map(|x| x as f32).collect(),
        DType::F16 => {
            bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes).into_iter().map(half::f16::to_f32).collect()
        }
    };
    Array::new(tensor.shape(), data)
}

/// Runs `op` on the device's own rung; the output and the gradient of every input for upstream gradient `gy`.
pub fn forward_backward(
    dtype: DType,
    inputs: &[Array],
    gy: &Array,
    op: impl FnOnce(&mut Context, &[Tensor]) -> Result<Tensor>,
) -> (Array, Vec<Array>) {
    forward_backward_on(gpu().capabilities().rung, dtype, inputs, gy, op)
}

/// As [`forward_backward`], on a given rung.
pub fn forward_backward_on(
    rung: Rung,
    dtype: DType,
    inputs: &[Array],
    gy: &Array,
    op: impl FnOnce(&mut Context, &[Tensor]) -> Result<Tensor>,
) -> (Array, Vec<Array>) {
    forward_backward_mixed(rung, &vec![dtype; inputs.len()], inputs, gy, op)
}

/// As [`forward_backward_on`], with a type for each input: parameters may stay f32 where activations are f16.
pub fn forward_backward_mixed(
    rung: Rung,
    dtypes: &[DType],
    inputs: &[Array],
    gy: &Array,
    op: impl FnOnce(&mut Context, &[Tensor]) -> Result<Tensor>,
) -> (Array, Vec<Array>) {
    let mut cx = Context::with_tape(gpu());
    cx.set_rung(rung);
    let inputs: Vec<Tensor> =
        inputs.iter().zip(dtypes).map(|(array, &dtype)| array.upload(&cx, dtype)).collect();
    inputs.iter().for_each(|input| cx.watch(input));
    let y = op(&mut cx, &inputs).unwrap();
    let gy = gy.reshape(y.shape()).upload(&cx, y.dtype());
    backprop_from(&mut cx, &y, &gy).unwrap();
    let grads: Vec<Tensor> = inputs
        .iter()
        .enumerate()
        .map(|(i, x)| cx.grad(x).unwrap_or_else(|| panic!("input {i} has no gradient")))
        .collect();
    cx.keep(&y);
    grads.iter().for_each(|grad| cx.keep(grad));
    let plan = cx.finish("test").unwrap();
    plan.run().unwrap();
    let y = download(&plan, &y);
    (y, grads.iter().map(|grad| download(&plan, grad)).collect())
}

/// The output alone, without a tape.
pub fn forward(inputs: &[Tensor], cx: Context, y: &Tensor) -> Array {
    let _ = inputs;
    let mut cx = cx;
    cx.keep(y);
    let plan = cx.finish("test").unwrap();
    plan.run().unwrap();
    download(&plan, y)
}

/// Compares the gradient of Σ y·r (r random) along random directions with central differences, for every input.
#[track_caller]
pub fn check_gradients(inputs: &[Array], op: impl Fn(&mut Context, &[Tensor]) -> Result<Tensor>) {
    let run = |arrays: &[Array]| -> (Array, Context) {
        let mut cx = Context::new(gpu());
        let tensors: Vec<Tensor> = arrays.iter().map(|array| array.upload(&cx, DType::F32)).collect();
        let y = op(&mut cx, &tensors).unwrap();
        cx.keep(&y);
        let plan = cx.finish("differences").unwrap();
        plan.run().unwrap();
        (download(&plan, &y), Context::new(gpu()))
    };
    let (y, _) = run(inputs);
    let weights = Array::random(&y.shape, 77);
    let (_, grads) = forward_backward(DType::F32, inputs, &weights, |cx, x| op(cx, x));
    let objective = |arrays: &[Array]| -> f64 {
        let (y, _) = run(arrays);
        y.data.iter().zip(&weights.data).map(|(&y, &r)| f64::from(y) * f64::from(r)).sum()
    };
    const STEP: f32 = 1.0 / 128.0;
    for (i, grad) in grads.iter().enumerate() {
        for seed in 0..2 {
            let direction = Array::random(&grad.shape, 1000 + seed);
            let shifted = |sign: f32| {
                let mut moved = inputs.to_vec();
                moved[i] = moved[i].zip(&direction, |x, d| x + sign * STEP * d);
                objective(&moved)
            };
            let numeric = (shifted(1.0) - shifted(-1.0)) / (2.0 * f64::from(STEP));
            let terms = grad.data.iter().zip(&direction.data).map(|(&g, &d)| f64::from(g) * f64::from(d));
            let (analytic, size) = terms.fold((0.0, 0.0), |(sum, square), t| (sum + t, square + t * t));
            let allowed = 2e-3 * size.sqrt().max(analytic.abs()).max(1e-2);
            assert!(
                (numeric - analytic).abs() <= allowed,
                "input {i} along direction {seed}: the tape says {analytic}, differences {numeric} (allowed {allowed:e})"
            );
        }
    }
}

/// A file of reference tensors under `tests/fixtures`.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Golden { bytes: std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")) }
    }

    /// A tensor, widened to f32.
    pub fn array(&self, name: &str) -> Array {
        self.get(name).unwrap_or_else(|| panic!("there is no golden tensor {name}"))
    }

    /// A tensor of f64 or i64, as f64.
    pub fn f64s(&self, name: &str) -> Vec<f64> {
        self.try_f64s(name).unwrap_or_else(|| panic!("there is no golden tensor {name}"))
    }

    /// As [`Golden::f64s`], if it is there.
    pub fn try_f64s(&self, name: &str) -> Option<Vec<f64>> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let bytes = view.data();
        Some(match view.dtype() {
            safetensors::Dtype::F64 => bytemuck::pod_collect_to_vec(bytes),
            safetensors::Dtype::I64 => {
                bytemuck::pod_collect_to_vec::<u8, i64>(bytes).into_iter().map(|x| x as f64).collect()
            }
            safetensors::Dtype::F32 => {
                bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect()
            }
            other => panic!("{name}: golden tensors of {other:?} are not read as f64"),
        })
    }

    pub fn get(&self, name: &str) -> Option<Array> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let bytes = view.data();
        let data = match view.dtype() {
            safetensors::Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            safetensors::Dtype::F16 => bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes)
                .into_iter()
                .map(half::f16::to_f32)
                .collect(),
            safetensors::Dtype::F64 => {
                bytemuck::pod_collect_to_vec::<u8, f64>(bytes).into_iter().map(|x| x as f32).collect()
            }
            safetensors::Dtype::I64 => {
                bytemuck::pod_collect_to_vec::<u8, i64>(bytes).into_iter().map(|x| x as f32).collect()
            }
            other => panic!("{name}: golden tensors of {other:?} are not read"),
        };
        Some(Array { shape: view.shape().to_vec(), data })
    }

    /// Compares with a golden tensor of the same shape and order.
    #[track_caller]
    pub fn check(&self, name: &str, got: &Array, dtype: DType) {
        self.check_as(name, got, dtype, |want| want);
    }

    /// Compares after bringing the golden tensor into this library's order. Where the file holds the reference's own
    /// f32 result, twice that result's error is allowed too.
    #[track_caller]
    pub fn check_as(&self, name: &str, got: &Array, dtype: DType, order: impl Fn(Array) -> Array) {
        let want = self.array(name);
        let largest = want.data.iter().fold(0f32, |m, x| m.max(x.abs()));
        let mut allowed = tolerance(dtype) * largest;
        if let Some(f32_reference) = self.get(&format!("{name}_f32")) {
            let error = want.zip(&f32_reference, |a, b| (a - b).abs());
            allowed = allowed.max(2.0 * error.data.iter().fold(0f32, |m, &x| m.max(x)));
        }
        got.check_absolute(name, &order(want), allowed);
    }
}
