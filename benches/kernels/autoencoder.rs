//! Autoencoders of latents, whole, and the operations that only they have.

use freeguide::Result;
use freeguide::gpu::Gpu;
use freeguide::nn::{AutoencoderKl, AutoencoderTiny, Codec, Halves, KlConfig, TinyConfig};
use freeguide::ops::{
    GroupNorm, Padding, conv2d_padded, parts_norm, posterior_sample, section, soft_clamp, transpose,
    wide_attention,
};
use freeguide::random::init_uniform;
use freeguide::tensor::{Context, DType, Tensor};

use crate::harness::{Bench, Timed};
use crate::row::{self, Work};

/// Sides of pictures.
const SIDES: &[usize] = &[512, 1024];
const SMALL: &[usize] = &[64];

pub fn run(bench: &mut Bench) {
    operations(bench);
    for &side in if bench.is_software() { SMALL } else { SIDES } {
        for &dtype in bench.dtypes() {
            for half in [Halves::Decoder, Halves::Encoder] {
                let kl = AutoencoderKl::new(&KlConfig::stable_diffusion(), half);
                let tiny = AutoencoderTiny::new(&TinyConfig::taesd(4), half);
                let (kl, tiny) = (kl.expect("its sizes are good"), tiny.expect("its sizes are good"));
                network(bench, ("kl", &kl), side, dtype);
                network(bench, ("tiny", &tiny), side, dtype);
                if dtype == DType::F16 && side == 1024 {
                    network(bench, ("kl in strips", &kl.in_strips_of(32 << 20)), side, dtype);
                }
            }
        }
    }
}

/// A half of an autoencoder, without a tape, which would keep some kernels away.
fn recording(gpu: &Gpu, codec: &dyn Codec, side: usize, dtype: DType) -> Result<(Context, Tensor)> {
    let parameters = codec.parameters();
    let arena = parameters.read_only_arena(gpu, "weights", dtype)?;
    for (i, spec) in parameters.specs().iter().enumerate() {
        arena.write_one(gpu, 0, i, &init_uniform(7, i as u64, spec.len(), 0.03))?;
    }
    let weights = arena.weights(parameters, 0);
    let mut cx = Context::new(gpu);
    let about = codec.about();
    let decodes = about.halves.decodes();
    let (side, channels) =
        if decodes { (side / about.factor, about.latent_channels) } else { (side, about.picture_channels) };
    let shape = [1, side, side, channels];
    let values = init_uniform(8, 0, shape.iter().product(), 1.0);
    let x = cx.constant_f32("input", &shape, &values)?;
    let y = match decodes {
        true => codec.decode(&mut cx, &weights, &x, dtype)?,
        false => codec.encode(&mut cx, &weights, &x, None, dtype)?,
    };
    Ok((cx, y))
}

fn network(bench: &mut Bench, (name, codec): (&str, &dyn Codec), side: usize, dtype: DType) {
    let what = if codec.about().halves.decodes() { "decode" } else { "encode" };
    let about = recording(&bench.gpu.estimating(), codec, side, dtype);
    let (flops, mib) = match about {
        Ok((cx, _)) => (cx.flops(), cx.transient_bytes() >> 20),
        Err(error) => return println!("{name} {side} is left out: {error}"),
    };
    println!("{name} {what} {side} {}: {mib} MiB of working memory", row::dtype(dtype));
    let label = format!("{name} {side} {}", row::dtype(dtype));
    bench.measure_plan("autoencoder", what, label, dtype, Work::Flops(flops), |gpu| {
        let (mut cx, y) = recording(gpu, codec, side, dtype)?;
        cx.keep(&y);
        Timed::whole(gpu, cx.finish(what)?)
    });
}

fn operations(bench: &mut Bench) {
    let (side, channels, tokens) = if bench.is_software() { (64, 32, 256) } else { (512, 128, 4096) };
    let shape = [1, side, side, channels];
    let label = format!("1x{side}x{side}x{channels}");
    for &dtype in bench.dtypes() {
        let bytes = (side * side * channels * dtype.bytes()) as f64;
        bench.measure("autoencoder", "group norm of parts", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let parts = [r.random(&shape, dtype)?];
            let (gamma, beta) = (r.parameter(&[channels])?, r.parameter(&[channels])?);
            let options = GroupNorm { groups: 32, eps: 1e-6, silu: true };
            let norm = parts_norm(&mut r.cx, &parts, &gamma, &beta, &options)?;
            let y = r.cx.output("y", &shape, dtype)?;
            norm.apply(&mut r.cx, (&parts[0], 0), (&y, 0), side * side)
        });
        bench.measure("autoencoder", "section", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            // Where no binding may begin.
            section(&mut r.cx, &x, 8, &[side * side - 1, channels]).map(drop)
        });
        let matrix = format!("{tokens}x512");
        let bytes = (tokens * 512 * dtype.bytes()) as f64;
        bench.measure("autoencoder", "transpose", &matrix, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&[tokens, 512], dtype)?;
            transpose(&mut r.cx, &x).map(drop)
        });
        let flops = 4.0 * (tokens * tokens * 512) as f64;
        bench.measure("autoencoder", "wide attention", &matrix, dtype, Work::Flops(flops), |r| {
            let x = [(); 3].map(|()| r.random(&[1, tokens, 512], dtype));
            let [q, k, v] = x;
            wide_attention(&mut r.cx, &q?, &k?, &v?).map(drop)
        });
        let flops = 2.0 * (side * side / 4 * 9 * channels * channels) as f64;
        bench.measure("autoencoder", "halving convolution", &label, dtype, Work::Flops(flops), |r| {
            let x = r.random(&shape, dtype)?;
            let w = r.random(&[3, 3, channels, channels], dtype)?;
            conv2d_padded(&mut r.cx, &x, &w, None, 2, Some(Padding::BEHIND), None).map(drop)
        });
    }
    let latent = [1, side, side, 8];
    let bytes = (side * side * 8 * 4) as f64;
    let label = format!("1x{side}x{side}x8");
    bench.measure("autoencoder", "posterior sample", &label, DType::F32, Work::Bytes(2.0 * bytes), |r| {
        let moments = r.random(&latent, DType::F32)?;
        let noise = r.random(&[1, side, side, 4], DType::F32)?;
        posterior_sample(&mut r.cx, &moments, Some(&noise)).map(drop)
    });
    bench.measure("autoencoder", "soft clamp", &label, DType::F32, Work::Bytes(2.0 * bytes), |r| {
        let x = r.random(&latent, DType::F32)?;
        soft_clamp(&mut r.cx, &x, 3.0).map(drop)
    });
}
