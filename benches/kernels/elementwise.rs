//! Operations that do little more than move memory.

use freeguide::diffusion::guiders::{Annealing, Moment};
use freeguide::ops::{
    AnnealCondition, DropoutSeeds, Gelu, Pool, Resize, TeacherMove, Window, add, add_per_sample,
    anneal_condition, annealing_table, average_pool2, cast, concat, dropout, embedding, first_token, geglu,
    gelu, layer_norm, mix_classes, mse, normal_noise, patches, pool_tokens, relu, repeat_batch,
    resize_pictures, scale, scale_per_sample, silu, softmax, stack_batch, teacher_move, timestep_embedding,
    upsample_bilinear, upsample_nearest2, window_pool,
};
use freeguide::random::Stream;
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

pub fn run(bench: &mut Bench) {
    let shape = if bench.is_software() { [16, 32, 32, 64] } else { [16, 64, 64, 384] };
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    for &dtype in bench.dtypes() {
        let bytes = (n * h * w * c * dtype.bytes()) as f64;
        bench.measure("elementwise", "silu", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            silu(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "silu backward", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            r.cx.watch(&x);
            let y = silu(&mut r.cx, &x)?;
            r.backward_of(&y)
        });
        for (name, kind) in [("gelu", Gelu::Erf), ("gelu tanh", Gelu::Tanh), ("gelu quick", Gelu::Quick)] {
            bench.measure("elementwise", name, &label, dtype, Work::Bytes(2.0 * bytes), |r| {
                let x = r.random(&shape, dtype)?;
                gelu(&mut r.cx, &x, kind).map(drop)
            });
        }
        bench.measure("elementwise", "geglu", &label, dtype, Work::Bytes(1.5 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            geglu(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "geglu backward", &label, dtype, Work::Bytes(2.5 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            r.cx.watch(&x);
            let y = geglu(&mut r.cx, &x)?;
            r.backward_of(&y)
        });
        layer_norms(bench, shape, dtype);
        bench.measure("elementwise", "add", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let (a, b) = (r.random(&shape, dtype)?, r.random(&shape, dtype)?);
            add(&mut r.cx, &a, &b, 1.0).map(drop)
        });
        bench.measure("elementwise", "concat", &label, dtype, Work::Bytes(4.0 * bytes), |r| {
            let (a, b) = (r.random(&shape, dtype)?, r.random(&shape, dtype)?);
            concat(&mut r.cx, &a, &b).map(drop)
        });
        bench.measure("elementwise", "upsample", &label, dtype, Work::Bytes(5.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            upsample_nearest2(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "average pool", &label, dtype, Work::Bytes(1.25 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            average_pool2(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "scale", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            scale(&mut r.cx, &x, 0.7).map(drop)
        });
        bench.measure("elementwise", "scale per sample", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let (x, factors) = (r.random(&shape, dtype)?, r.random(&[n], DType::F32)?);
            scale_per_sample(&mut r.cx, &x, &factors).map(drop)
        });
        bench.measure("elementwise", "add per sample", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let (x, e) = (r.random(&shape, dtype)?, r.random(&[n, c], DType::F32)?);
            add_per_sample(&mut r.cx, &x, &e).map(drop)
        });
        bench.measure("elementwise", "stack", &label, dtype, Work::Bytes(4.0 * bytes), |r| {
            let (a, b) = (r.random(&shape, dtype)?, r.random(&shape, dtype)?);
            stack_batch(&mut r.cx, &a, &b).map(drop)
        });
        bench.measure("elementwise", "repeat", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            repeat_batch(&mut r.cx, &x, 2).map(drop)
        });
        bench.measure("elementwise", "relu", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            relu(&mut r.cx, &x).map(drop)
        });
        let window = Window { kernel: [3, 3], stride: 2, padding: [0, 0] };
        bench.measure("elementwise", "patches", &label, dtype, Work::Bytes(3.25 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            patches(&mut r.cx, &x, window).map(drop)
        });
        bench.measure("elementwise", "window pool", &label, dtype, Work::Bytes(1.25 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            window_pool(&mut r.cx, &x, window, Pool::Max).map(drop)
        });
        bench.measure("elementwise", "softmax", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            softmax(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "dropout", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            let image_index = r.cx.constant_u32("image index", &[n, 2], &vec![3; 2 * n])?;
            dropout(&mut r.cx, &x, 0.1, &DropoutSeeds { seed: 1, image_index, layer: 1 }).map(drop)
        });
        if dtype == DType::F32 {
            bench.measure(
                "elementwise",
                "upsample bilinear",
                &label,
                dtype,
                Work::Bytes(17.0 * bytes),
                |r| {
                    let x = r.random(&shape, dtype)?;
                    upsample_bilinear(&mut r.cx, &x, 4).map(drop)
                },
            );
            bench.measure("elementwise", "pool tokens", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
                let (x, e) = (r.random(&shape, dtype)?, r.random(&[1 + h * w, c], dtype)?);
                let tokens = pool_tokens(&mut r.cx, &x, &e)?;
                first_token(&mut r.cx, &tokens).map(drop)
            });
        }
        if dtype == DType::F16 {
            bench.measure("elementwise", "cast to f32", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
                let x = r.random(&shape, dtype)?;
                cast(&mut r.cx, &x, DType::F32).map(drop)
            });
        }
    }

    // Always f32: losses, noise, embeddings.
    let bytes = (n * h * w * c * 4) as f64;
    bench.measure("elementwise", "mse", &label, DType::F32, Work::Bytes(2.0 * bytes), |r| {
        let (a, b) = (r.random(&shape, DType::F32)?, r.random(&shape, DType::F32)?);
        mse(&mut r.cx, &a, &b).map(drop)
    });
    bench.measure("elementwise", "normal noise", &label, DType::F32, Work::Bytes(bytes), |r| {
        let seeds = r.cx.constant_u32("seeds", &[n, 2], &(0..2 * n as u32).collect::<Vec<_>>())?;
        normal_noise(&mut r.cx, &seeds, 0, Stream::InitialNoise, shape).map(drop)
    });
    bench.measure("elementwise", "teacher move", &label, DType::F32, Work::Bytes(5.0 * bytes), |r| {
        let [z, start] = [r.random(&shape, DType::F32)?, r.random(&shape, DType::F32)?];
        let out = r.random(&[2 * n, h, w, c], DType::F32)?;
        let rows = r.random(&[n, 8], DType::F32)?;
        teacher_move(&mut r.cx, TeacherMove { z: &z, out: &out, start: &start, rows: &rows }).map(drop)
    });
    let classes = 10;
    let read = (classes + 2) as f64 * bytes;
    bench.measure("elementwise", "mix 10 classes", &label, DType::F32, Work::Bytes(read), |r| {
        let eps = r.random(&[classes * n, h, w, c], DType::F32)?;
        let posterior = r.random(&[n, 2, classes], DType::F32)?;
        let labels = r.cx.constant_u32("labels", &[n], &vec![1; n])?;
        mix_classes(&mut r.cx, &eps, &posterior, &labels, c).map(drop)
    });
    let small = [n, 64, 64, 3];
    let written = (n * 299 * 299 * 3 * 4) as f64;
    bench.measure("elementwise", "resize pictures", "64 to 299", DType::F32, Work::Bytes(written), |r| {
        let bytes = r.cx.constant_u32("bytes", &[n * 64 * 16 * 3], &vec![0x0102_0304; n * 64 * 16 * 3])?;
        let resize = Resize { size: 299, centred: true, factor: 1.0, shift: 0.0 };
        resize_pictures(&mut r.cx, &bytes, small, resize).map(drop)
    });
    let (rows, width) = (1000, 768);
    let row = (64 * width * 4) as f64;
    bench.measure("elementwise", "embedding", "64 of 1000x768", DType::F32, Work::Bytes(2.0 * row), |r| {
        let table = r.random(&[rows, width], DType::F32)?;
        let indices = r.cx.constant_u32("indices", &[64], &(0..64).map(|i| i * 15).collect::<Vec<_>>())?;
        embedding(&mut r.cx, &table, &indices).map(drop)
    });
    bench.measure("elementwise", "condition annealing", "64x768", DType::F32, Work::Bytes(2.0 * row), |r| {
        let annealing = Annealing { whole_below: 0.2, noise_above: 0.9, scale: 0.2, mix: 1.0 };
        let table = annealing_table(&r.cx, &annealing, &[Moment { step: 0, steps: 2, log_snr: 0.0 }])?;
        let y = r.random(&[64, width], DType::F32)?;
        let [labels, counter, seeds] = [
            r.cx.constant_u32("labels", &[64], &[1; 64])?,
            r.cx.constant_u32("counter", &[1], &[0])?,
            r.cx.constant_u32("seeds", &[64, 2], &(0..128).collect::<Vec<_>>())?,
        ];
        let with =
            AnnealCondition { annealing, table: &table, counter: &counter, seeds: &seeds, null_label: 0 };
        anneal_condition(&mut r.cx, &y, &labels, with).map(drop)
    });
    bench.measure("elementwise", "time embedding", "64x768", DType::F32, Work::Bytes(row), |r| {
        let times = r.random(&[64], DType::F32)?;
        timestep_embedding(&mut r.cx, &times, width).map(drop)
    });
}

/// Forward: x read and y written once. Backward: x and dy read, dx written once.
fn layer_norms(bench: &mut Bench, shape: [usize; 4], dtype: DType) {
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    let bytes = (n * h * w * c * dtype.bytes()) as f64;
    bench.measure("elementwise", "layer norm", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
        let x = r.random(&shape, dtype)?;
        let (gamma, beta) = (r.parameter(&[c])?, r.parameter(&[c])?);
        layer_norm(&mut r.cx, &x, Some(&gamma), Some(&beta), 1e-5).map(drop)
    });
    bench.measure("elementwise", "layer norm backward", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
        let x = r.random(&shape, dtype)?;
        let (gamma, beta) = (r.parameter(&[c])?, r.parameter(&[c])?);
        r.cx.watch(&x);
        let y = layer_norm(&mut r.cx, &x, Some(&gamma), Some(&beta), 1e-5)?;
        r.backward_of(&y)
    });
}
