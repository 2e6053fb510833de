//! Feature maps in strips against whole ones, and what full-size networks take on WebGPU's default limits.

use super::*;
use crate::error::Error;
use crate::gpu::Rung;
use crate::nn::Arena;
use crate::shape::Extent;
use crate::testing::{Array, download, dtypes, gpu};

fn small_kl() -> KlConfig {
    KlConfig { channels: vec![8, 16, 16], groups: 4, layers: 1, ..KlConfig::stable_diffusion() }
}

fn small_tiny() -> TinyConfig {
    TinyConfig {
        width: 8,
        encoder_blocks: vec![1, 1, 2],
        decoder_blocks: vec![2, 1, 1],
        ..TinyConfig::taesd(4)
    }
}

fn arena(codec: &dyn Codec) -> Arena {
    let parameters = codec.parameters();
    let arena = parameters.read_only_arena(gpu(), "weights", DType::F32).unwrap();
    arena.write(gpu(), 0, &parameters.initial_values(3)).unwrap();
    arena
}

/// What is encoded and decoded of `n` pictures of four times `latent` pixels along each axis.
fn run(codec: &dyn Codec, (n, latent): (usize, [usize; 2]), (rung, dtype): (Rung, DType)) -> [Array; 2] {
    let arena = arena(codec);
    let weights = arena.weights(codec.parameters(), 0);
    let [h, w] = latent;
    let mut cx = Context::new(gpu());
    cx.set_rung(rung);
    let x = Array::random(&[n, 4 * h, 4 * w, 3], 1).upload(&cx, DType::F32);
    let noise = Array::random(&[n, h, w, 4], 2).upload(&cx, DType::F32);
    let z = Array::random(&[n, h, w, 4], 3).upload(&cx, DType::F32);
    let latents = codec.encode(&mut cx, &weights, &x, Some(&noise), dtype).unwrap();
    let pictures = codec.decode(&mut cx, &weights, &z, dtype).unwrap();
    cx.keep(&latents);
    cx.keep(&pictures);
    let plan = cx.finish("codec").unwrap();
    plan.run().unwrap();
    [download(&plan, &latents), download(&plan, &pictures)]
}

/// Relative to the largest value.
fn within(dtype: DType) -> f32 {
    if dtype == DType::F16 { 1e-2 } else { 1e-5 }
}

#[test]
fn strips_give_what_whole_maps_give() {
    let kinds = |strip: Option<u64>| -> [Box<dyn Codec>; 2] {
        let kl = AutoencoderKl::new(&small_kl(), Halves::Both).unwrap();
        let tiny = AutoencoderTiny::new(&small_tiny(), Halves::Both).unwrap();
        match strip {
            Some(bytes) => [Box::new(kl.in_strips_of(bytes)), Box::new(tiny.in_strips_of(bytes))],
            None => [Box::new(kl), Box::new(tiny)],
        }
    };
    let own = gpu().capabilities().rung;
    for (dtype, rung) in dtypes().into_iter().flat_map(|dtype| [own, Rung::Tiled].map(|rung| (dtype, rung))) {
        for (n, latent) in [(1, [5, 7]), (2, [4, 3]), (1, [9, 2]), (1, [1, 1])] {
            let whole = kinds(None).map(|codec| run(codec.as_ref(), (n, latent), (rung, dtype)));
            // Two rows each, some, most of them at once, all of them.
            for bytes in [1, 3000, 20_000, u64::MAX] {
                let strips = kinds(Some(bytes)).map(|codec| run(codec.as_ref(), (n, latent), (rung, dtype)));
                for (kind, (strips, whole)) in strips.iter().zip(&whole).enumerate() {
                    for (part, (strips, whole)) in strips.iter().zip(whole).enumerate() {
                        let name = format!("{rung} {dtype:?} {n}x{latent:?} in {bytes}: {kind} {part}");
                        strips.check_within(&name, whole, within(dtype));
                        assert!(
                            bytes < u64::MAX || n > 1 || strips == whole,
                            "{name}: one strip is the whole map"
                        );
                    }
                }
            }
        }
    }
}

/// As of a picture's own latents and sizes, nothing depends on the pictures beside it.
#[test]
fn a_picture_does_not_depend_on_its_batch() {
    let codec = AutoencoderKl::new(&small_kl(), Halves::Decoder).unwrap().in_strips_of(3000);
    let arena = arena(&codec);
    let weights = arena.weights(codec.parameters(), 0);
    let z = Array::random(&[3, 5, 7, 4], 3);
    let of = |z: &Array| {
        let mut cx = Context::new(gpu());
        let z = z.upload(&cx, DType::F32);
        let y = codec.decode(&mut cx, &weights, &z, DType::F32).unwrap();
        crate::testing::forward(&[z], cx, &y).data
    };
    let all = of(&z);
    for n in 0..3 {
        let one = of(&Array::new(&[1, 5, 7, 4], z.data[n * 140..(n + 1) * 140].to_vec()));
        assert!(one == all[n * one.len()..(n + 1) * one.len()], "picture {n}");
    }
}

/// Stable Diffusion's autoencoder and TAESD at 1024x1024 on WebGPU's default limits, whatever this device's are: no binding
/// above 128 MiB, and 1.5 GiB of working memory.
#[test]
fn a_large_picture_fits_the_default_limits() {
    let gpu =
        pollster::block_on(crate::gpu::Gpu::with_default_limits(&crate::gpu::DeviceChoice::Auto)).unwrap();
    let kl = AutoencoderKl::new(&KlConfig::stable_diffusion(), Halves::Both).unwrap();
    let tiny = AutoencoderTiny::new(&TinyConfig::taesd(4), Halves::Both).unwrap();
    let codecs: [(&str, &dyn Codec); 2] = [("kl", &kl), ("tiny", &tiny)];
    for ((name, codec), decodes) in codecs.into_iter().flat_map(|codec| [(codec, true), (codec, false)]) {
        for dtype in [DType::F32, DType::F16] {
            let estimating =
                if dtype == DType::F16 { crate::testing::gpu().estimating() } else { gpu.estimating() };
            let limits = &estimating.capabilities().limits;
            let f16 = estimating.capabilities().f16 || dtype == DType::F32;
            if !f16 || limits.max_storage_buffer_binding_size > 128 << 20 {
                continue;
            }
            let weights = codec.parameters().read_only_arena(&estimating, "weights", dtype).unwrap();
            let weights = weights.weights(codec.parameters(), 0);
            let mut cx = Context::new(&estimating);
            if decodes {
                let z = cx.constant_f32("z", &[1, 128, 128, 4], &[0.0; 128 * 128 * 4]).unwrap();
                codec.decode(&mut cx, &weights, &z, dtype).unwrap();
            } else {
                let x = cx.constant_f32("x", &[1, 1024, 1024, 3], &vec![0.0; 3 << 20]).unwrap();
                codec.encode(&mut cx, &weights, &x, None, dtype).unwrap();
            }
            let (bytes, launches) = (cx.transient_bytes(), cx.len());
            println!(
                "{name} {} {dtype:?}: {} MiB, {launches} launches",
                if decodes { "decodes" } else { "encodes" },
                bytes >> 20
            );
            assert!(bytes <= 1536 << 20, "{name} {dtype:?}: {} MiB", bytes >> 20);
            // All limits are kept; only then is it told that nothing runs.
            let error = cx.finish("large").err().unwrap();
            assert!(
                matches!(&error, Error::Device(what) if what.contains("estimates")),
                "{name} {dtype:?}: {error}"
            );
        }
    }
}

#[test]
fn latents_are_of_a_size() {
    let codec = AutoencoderKl::new(&KlConfig::stable_diffusion(), Halves::Both).unwrap();
    let plane = |height, width| Extent::Plane { height, width };
    let pictures = Shape { channels: 3, extent: plane(512, 768) };
    let latent = codec.latent_of(pictures).unwrap();
    assert_eq!(latent, Shape { channels: 4, extent: plane(64, 96) });
    assert_eq!(codec.pixels_of(latent), pictures);
    for wrong in [Shape { channels: 3, extent: plane(512, 764) }, Shape { channels: 1, ..pictures }] {
        let error = codec.latent_of(wrong).unwrap_err().to_string();
        assert!(error.contains("multiples of 8"), "{error}");
    }
}

#[test]
fn a_half_that_is_not_there_is_told() {
    let codec = AutoencoderKl::new(&small_kl(), Halves::Decoder).unwrap();
    let both = AutoencoderKl::new(&small_kl(), Halves::Both).unwrap();
    assert!(codec.parameters().count() < both.parameters().count());
    assert!(codec.parameters().specs().iter().all(|spec| !spec.name.starts_with("encoder")));
    let arena = arena(&codec);
    let weights = arena.weights(codec.parameters(), 0);
    let mut cx = Context::new(gpu());
    let x = Array::random(&[1, 8, 8, 3], 1).upload(&cx, DType::F32);
    let error = codec.encode(&mut cx, &weights, &x, None, DType::F32).unwrap_err().to_string();
    assert!(error.contains("without its encoder"), "{error}");
    let error = codec.decode(&mut cx, &weights, &x, DType::F32).unwrap_err().to_string();
    assert_eq!(error, "decode: expected [N, H, W, 4] F32, got [1, 8, 8, 3] F32");
}

#[test]
fn sizes_that_no_network_has_are_refused() {
    let refused = |config: KlConfig| AutoencoderKl::new(&config, Halves::Both).unwrap_err().to_string();
    let sd = KlConfig::stable_diffusion;
    assert!(refused(KlConfig { groups: 48, ..sd() }).contains("128 channels, which do not divide into 48"));
    assert!(refused(KlConfig { channels: vec![], ..sd() }).contains("0 levels"));
    assert!(refused(KlConfig { latent_channels: 0, ..sd() }).contains("latents have 0"));
    let latents = Latents::standardised(&[0.0; 3], &[1.0; 3], 1.0).unwrap();
    assert!(refused(KlConfig { latents, ..sd() }).contains("4 channels of latents"));
    let config = TinyConfig { decoder_blocks: vec![1], ..TinyConfig::taesd(4) };
    let error = AutoencoderTiny::new(&config, Halves::Both).unwrap_err().to_string();
    assert!(error.contains("4 levels down and 1 up"), "{error}");
}

/// The sizes of published files.
#[test]
fn full_size_networks_have_the_published_numbers_of_parameters() {
    let of = |codec: &dyn Codec| (codec.parameters().count(), codec.parameters().specs().len());
    let kl = KlConfig::stable_diffusion();
    assert_eq!(of(&AutoencoderKl::new(&kl, Halves::Both).unwrap()), (83_653_863, 248));
    assert_eq!(of(&AutoencoderTiny::new(&TinyConfig::taesd(4), Halves::Encoder).unwrap()), (1_222_532, 67));
    assert_eq!(of(&AutoencoderTiny::new(&TinyConfig::taesd(4), Halves::Decoder).unwrap()), (1_222_531, 67));
}
