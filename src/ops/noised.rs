//! Noise, and images with noise.  x = u8/127.5 - 1,  z = α x + σ eps  (CFG, Algorithm 1, line 5).
//!
//! eps is a function of (seed, image index) or of a sample's own seed alone, has the same bits on every adapter, and
//! is that of [`fill_normal`](crate::random::fill_normal), whose elements are counted in C, H, W order.
//! Neither has gradients: images and noise are data.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::random::{Stream, normal_table};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const INITIAL: Kernel =
    Kernel::new("normal_noise", wgsl!("noised"), "initial", &[Access::Read, Access::Read, Access::Write]);
// Sound by the shader's header; `normal_noise` checks the shapes that it counts on.
const INITIAL_FOURS: Kernel = unsafe {
    let access = &[Access::Read, Access::Read, Access::Write];
    Kernel::new("normal_noise", wgsl!("noised"), "initial_fours", access).trusted()
};
const NOISED: Kernel = Kernel::new(
    "noised",
    wgsl!("noised"),
    "noised",
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
);

/// The most workgroups in y, one for each sample, that every device allows.
const FOURS_SAMPLES: usize = 65535;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    length: u32,
    channels: u32,
    pixels: u32,
    index: u32,
    stream: u32,
    seed: [u32; 2],
    pad: [u32; 3],
}

impl Params {
    fn new([n, h, w, c]: [usize; 4], stream: Stream) -> Self {
        let length = h * w * c;
        let blocks = length.div_ceil(4);
        Params {
            count: (n * blocks) as u32,
            blocks: blocks as u32,
            length: length as u32,
            channels: c as u32,
            pixels: (h * w) as u32,
            index: 0,
            stream: stream as u32,
            seed: [0; 2],
            pad: [0; 3],
        }
    }
}

/// A batch as it comes from the loader, on its way to the network.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// The bytes of `[N, H, W, C]`, samples back to back, four to a u32 in little-endian order, the last one padded:
    /// `[⌈N·H·W·C / 4⌉]` of u32.
    pub bytes: &'a Tensor,
    /// `[N, 4]` f32: α, σ, λ and the network's time of each sample. Only the first two are read here.
    pub scalars: &'a Tensor,
    /// `[N, 2]` u32: low and high half of each sample's image index.
    pub image_index: &'a Tensor,
    /// N, H, W, C.
    pub shape: [usize; 4],
}

/// (z, eps) of a batch, both `[N, H, W, C]` f32; the noise is that of ([`Stream::TrainingNoise`], `seed`, image index).
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`Images`] says.
pub fn noised(cx: &mut Context, images: Images<'_>, seed: u64) -> Result<(Tensor, Tensor)> {
    let Images { bytes, scalars, image_index, shape } = images;
    let [n, h, w, c] = shape;
    expect("noised", "bytes", bytes, &[(n * h * w * c).div_ceil(4)], DType::U32)?;
    expect("noised", "scalars", scalars, &[n, 4], DType::F32)?;
    expect("noised", "image_index", image_index, &[n, 2], DType::U32)?;
    let mut params = Params::new(shape, Stream::TrainingNoise);
    params.seed = [seed as u32, (seed >> 32) as u32];
    let table = table(cx)?;
    let z = cx.output("z", &shape, DType::F32)?;
    let eps = cx.output("eps", &shape, DType::F32)?;
    let launch = cx.launch(&NOISED).bind(&table).bind(bytes).bind(scalars).bind(image_index);
    launch.bind(&z).bind(&eps).params(&params).over(params.count as usize, 64);
    Ok((z, eps))
}

/// Standard normal numbers `[N, H, W, C]` f32: those of step `index` of `stream` under each sample's own seed, the rows
/// (low, high) of `seeds` `[N, 2]` u32.
///
/// # Errors
/// [`Error::Shape`] when `seeds` does not fit.
pub fn normal_noise(
    cx: &mut Context,
    seeds: &Tensor,
    index: u32,
    stream: Stream,
    shape: [usize; 4],
) -> Result<Tensor> {
    expect("normal_noise", "seeds", seeds, &[shape[0], 2], DType::U32)?;
    let params = Params { index, ..Params::new(shape, stream) };
    let table = table(cx)?;
    let y = cx.output("noise", &shape, DType::F32)?;
    let [n, h, w, c] = shape;
    if (h * w).is_multiple_of(4) && n <= FOURS_SAMPLES && cx.rung() != Rung::Naive {
        let params = Params { count: params.blocks, ..params };
        let launch = cx.launch(&INITIAL_FOURS).bind(&table).bind(seeds).bind(&y).params(&params);
        let groups = [params.count.div_ceil(256), n as u32, 1];
        launch.variant("x4").constant("planes", c as f64).groups(groups);
        return Ok(y);
    }
    let launch = cx.launch(&INITIAL).bind(&table).bind(seeds).bind(&y);
    launch.params(&params).over(params.count as usize, 64);
    Ok(y)
}

/// The table of normal numbers as kernels bind it, `[512, 2]`.
pub(super) fn table(cx: &Context) -> Result<Tensor> {
    let rows = normal_table();
    cx.constant_u32("normal table", &[rows.len(), 2], rows.as_flattened())
}

pub(super) fn expect(
    op: &'static str,
    name: &str,
    tensor: &Tensor,
    shape: &[usize],
    dtype: DType,
) -> Result<()> {
    if tensor.shape() == shape && tensor.dtype() == dtype {
        return Ok(());
    }
    let (got, of) = (tensor.shape(), tensor.dtype());
    Err(Error::shape(op, format!("{name} must be {shape:?} {dtype:?}, got {got:?} {of:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceChoice, Gpu};
    use crate::random::fill_normal;
    use crate::testing::{Array, download, download_from, gpu};

    fn halves(values: &[u64]) -> Vec<u32> {
        values.iter().flat_map(|&v| [v as u32, (v >> 32) as u32]).collect()
    }

    /// The host's noise of one sample, in H, W, C order.
    fn host(seed: u64, index: u64, stream: Stream, [h, w, c]: [usize; 3]) -> Vec<f32> {
        Array::new(&[1, c, h, w], fill_normal(seed, index, stream, h * w * c)).nhwc().data
    }

    /// On a device without optional features too: there products of 64 bits are made of halves.
    #[test]
    fn noise_has_the_bits_of_the_host() {
        let plain = pollster::block_on(Gpu::with_default_limits(&DeviceChoice::Auto)).unwrap();
        assert!(!plain.capabilities().int64);
        let seeds = [7, 0x0123_4567_89ab_cdef, u64::MAX];
        for [h, w, c] in [[5, 7, 3], [8, 8, 3], [8, 8, 1], [2, 3, 33], [2, 10, 260], [1, 1, 2]] {
            for (stream, index) in [(Stream::InitialNoise, 0), (Stream::StepNoise, 77)] {
                let want: Vec<f32> =
                    seeds.iter().flat_map(|&seed| host(seed, index.into(), stream, [h, w, c])).collect();
                for (gpu, rung) in
                    [(gpu(), Rung::Naive), (gpu(), Rung::Tiled), (&plain, Rung::Naive), (&plain, Rung::Tiled)]
                {
                    let mut cx = Context::new(gpu);
                    cx.set_rung(rung);
                    let on_device = cx.constant_u32("seeds", &[3, 2], &halves(&seeds)).unwrap();
                    let y = normal_noise(&mut cx, &on_device, index, stream, [3, h, w, c]).unwrap();
                    cx.keep(&y);
                    let plan = cx.finish("noise").unwrap();
                    plan.run().unwrap();
                    assert_eq!(download_from(gpu, &plan, &y).data, want, "{rung} {h}x{w}x{c}");
                }
            }
        }
    }

    #[test]
    fn images_and_noise_are_mixed() {
        let (seed, indices) = (0x1_0000_0005, [3, 1 << 33 | 9]);
        let scalars = [0.6, 0.8, -0.57, 590.0, 4.539_993e-5, 1.0, -20.0, 999.9];
        for [h, w, c] in [[5, 7, 3], [8, 8, 3], [3, 3, 1]] {
            let length = h * w * c;
            let mut bytes: Vec<u8> = (0..2 * length).map(|i| (i * 37 % 256) as u8).collect();
            (bytes[0], bytes[1]) = (0, 255);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let mut cx = Context::new(gpu());
            let words = cx.constant("images", &[bytes.len() / 4], DType::U32, &bytes).unwrap();
            let image_index = cx.constant_u32("index", &[2, 2], &halves(&indices)).unwrap();
            let scalars_ = cx.constant_f32("scalars", &[2, 4], &scalars).unwrap();
            let images =
                Images { bytes: &words, scalars: &scalars_, image_index: &image_index, shape: [2, h, w, c] };
            let (z, eps) = noised(&mut cx, images, seed).unwrap();
            cx.keep(&z);
            cx.keep(&eps);
            let plan = cx.finish("noised").unwrap();
            plan.run().unwrap();
            let want: Vec<f32> = indices
                .iter()
                .flat_map(|&index| host(seed, index, Stream::TrainingNoise, [h, w, c]))
                .collect();
            assert_eq!(download(&plan, &eps).data, want);
            let mixed = bytes.iter().zip(&want).enumerate().map(|(i, (&byte, &eps))| {
                let [alpha, sigma] = [scalars[i / length * 4], scalars[i / length * 4 + 1]].map(f64::from);
                (alpha * (f64::from(byte) / 127.5 - 1.0) + sigma * f64::from(eps)) as f32
            });
            let mixed = Array::new(&[2, h, w, c], mixed.collect());
            download(&plan, &z).check_absolute("z", &mixed, 1e-6);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let seeds = cx.constant_u32("seeds", &[3, 2], &[0; 6]).unwrap();
        let error = normal_noise(&mut cx, &seeds, 0, Stream::InitialNoise, [4, 8, 8, 3]).unwrap_err();
        assert!(error.to_string().contains("[4, 2] U32"), "{error}");
        let scalars = cx.constant_f32("scalars", &[3, 4], &[0.0; 12]).unwrap();
        let images = Images { bytes: &seeds, scalars: &scalars, image_index: &seeds, shape: [3, 8, 8, 3] };
        let error = noised(&mut cx, images, 0).unwrap_err();
        assert!(error.to_string().contains("bytes must be [144]"), "{error}");
    }
}
