//! Dropout.  y = x·mask/(1 - rate),  dx = dy·mask/(1 - rate), mask 0 with probability `rate`.
//!
//! x `[N, ..]`. The mask is a function of (seed, image index, layer, element), so the backward pass makes it again
//! instead of keeping it. Unlike the noise of images, its elements are counted in memory order (H, W, C), four to a block:
//! nobody has to find the same mask under another layout, and so the accesses stay whole vectors.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, groups_over};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::pack::{Choice, choose};

const SCALAR: Kernel =
    Kernel::new("dropout", wgsl!("dropout"), "dropout", &[Access::Read, Access::Read, Access::Update]);
// Sound by the shader's header; `dropout` checks the shapes that it counts on.
const PACKED: Kernel = unsafe {
    let access = &[Access::Read, Access::Read, Access::Update];
    Kernel::new("dropout", wgsl!("dropout"), "dropout_packed", access).trusted()
};

/// The most workgroups in y, one for each sample, that every device allows.
const PACKED_SAMPLES: usize = 65535;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    length: u32,
    threshold: u32,
    seed: [u32; 2],
    stream: u32,
    scale: f32,
    accumulate: u32,
    pad: [u32; 3],
}

/// What a mask depends on besides the element.
#[derive(Clone, Debug)]
pub struct DropoutSeeds {
    /// The run's seed.
    pub seed: u64,
    /// `[N, 2]` u32: low and high half of each sample's image index.
    pub image_index: Tensor,
    /// The number of the layer, below 2^24; each layer drops other elements.
    pub layer: u32,
}

/// Sets each element to zero with probability `rate` and scales the others by 1/(1 - rate). At rate 0 it is `x` itself.
///
/// # Errors
/// [`Error::Config`] for a rate outside of [0, 1); [`Error::Shape`] when the image indices are not `[N, 2]` of u32.
pub fn dropout(cx: &mut Context, x: &Tensor, rate: f32, seeds: &DropoutSeeds) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        return Err(Error::Config(format!("dropout {rate}: it must be at least 0 and below 1")));
    }
    let samples = x.shape().first().copied().unwrap_or(0);
    if samples == 0 || *seeds.image_index.shape() != [samples, 2] || seeds.image_index.dtype() != DType::U32 {
        let (index, dtype) = (seeds.image_index.shape(), seeds.image_index.dtype());
        let what = format!(
            "x is {:?}, so image_index must be [{samples}, 2] U32, got {index:?} {dtype:?}",
            x.shape()
        );
        return Err(Error::shape("dropout", what));
    }
    if rate == 0.0 {
        return Ok(x.clone());
    }
    let length = x.len() / samples;
    let chosen = match samples <= PACKED_SAMPLES {
        true => choose(cx, x.dtype(), &[length], &PACKED, &SCALAR),
        false => Choice { kernel: &SCALAR, lanes: 1, size: 64 },
    };
    let blocks = length.div_ceil(4);
    // The kernel of single elements takes a block of random words an invocation too. That of packs has a workgroup's number
    // for the sample: a division would cost as much as half the random words.
    let (count, groups) = match chosen.lanes {
        1 => (samples * blocks, groups_over((samples * blocks).div_ceil(chosen.size) as u64)),
        lanes => (length / lanes, [(length / lanes).div_ceil(chosen.size) as u32, samples as u32, 1]),
    };
    let params = Params {
        count: count as u32,
        blocks: blocks as u32,
        length: length as u32,
        threshold: threshold(rate) << 8,
        seed: [seeds.seed as u32, (seeds.seed >> 32) as u32],
        stream: Stream::Dropout as u32 | (seeds.layer << 8),
        scale: (1.0 / (1.0 - f64::from(rate))) as f32,
        accumulate: 0,
        pad: [0; 3],
    };
    let y = cx.output("dropout", x.shape(), x.dtype())?;
    let launch = cx.launch(chosen.kernel).bind(x).bind(&seeds.image_index).bind(&y).params(&params);
    launch.variant(chosen.variant("")).groups(groups);
    cx.backward(&y, &[x], {
        let (x, image_index) = (x.clone(), seeds.image_index.clone());
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let launch = cx.launch(chosen.kernel).bind(dy).bind(&image_index).bind(&dx.tensor);
                launch.params(&params).variant(chosen.variant("backward")).groups(groups);
            }
            Ok(())
        }
    });
    Ok(y)
}

/// Words below this, shifted down by 8, drop their element.
fn threshold(rate: f32) -> u32 {
    (f64::from(rate) * f64::from(1 << 24)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::dropout_words;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_on, gpu, rungs};

    const SEED: u64 = 0x0123_4567_89ab_cdef;

    fn seeds(cx: &Context, images: &[u64], layer: u32) -> DropoutSeeds {
        let halves: Vec<u32> = images.iter().flat_map(|&i| [i as u32, (i >> 32) as u32]).collect();
        let image_index = cx.constant_u32("image index", &[images.len(), 2], &halves).unwrap();
        DropoutSeeds { seed: SEED, image_index, layer }
    }

    fn mask(images: &[u64], length: usize, layer: u32, rate: f32) -> Vec<f32> {
        let scale = 1.0 / (1.0 - rate);
        let of_image = |&image: &u64| {
            let words =
                (0..length.div_ceil(4)).flat_map(move |b| dropout_words(SEED, b as u32, image, layer));
            words.take(length).map(move |word| if word >> 8 >= threshold(rate) { scale } else { 0.0 })
        };
        images.iter().flat_map(of_image).collect()
    }

    #[test]
    fn forward_and_backward_share_the_mask_of_the_host() {
        let images = [3, 1 << 40 | 7, 0xffff_ffff];
        let shapes = [[3, 5, 7, 33], [3, 5, 7, 4], [3, 5, 7, 8]];
        for (rung, shape) in rungs().into_iter().flat_map(|r| shapes.map(|s| (r, s))) {
            let (x, gy) = (Array::random(&shape, 1), Array::random(&shape, 2));
            let mask = Array::new(&shape, mask(&images, x.data.len() / 3, 9, 0.3));
            for dtype in dtypes() {
                let (y, grads) = forward_backward_on(rung, dtype, std::slice::from_ref(&x), &gy, |cx, x| {
                    let seeds = seeds(cx, &images, 9);
                    dropout(cx, &x[0], 0.3, &seeds)
                });
                y.check("y", &x.zip(&mask, |x, m| x * m), dtype);
                grads[0].check("dx", &gy.zip(&mask, |g, m| g * m), dtype);
            }
        }
    }

    #[test]
    fn keeps_the_right_share() {
        let dropped = |layer| mask(&[5], 100_000, layer, 0.1).iter().map(|&m| m == 0.0).collect::<Vec<_>>();
        let (one, other) = (dropped(0), dropped(1));
        let share = one.iter().filter(|&&dropped| dropped).count() as f64 / 1e5;
        assert!((share - 0.1).abs() < 5.0 * (0.09f64 / 1e5).sqrt(), "{share}");
        let both = one.iter().zip(&other).filter(|(a, b)| **a && **b).count() as f64 / 1e5;
        assert!((both - 0.01).abs() < 5.0 * (0.0099f64 / 1e5).sqrt(), "layers drop independently: {both}");
    }

    #[test]
    fn gradients_accumulate() {
        check_gradients(&[Array::random(&[2, 3, 3, 3], 1)], |cx, x| {
            let seeds = [seeds(cx, &[1, 2], 0), seeds(cx, &[1, 2], 1)];
            let (a, b) = (dropout(cx, &x[0], 0.5, &seeds[0])?, dropout(cx, &x[0], 0.25, &seeds[1])?);
            crate::ops::add(cx, &a, &b, 1.0)
        });
    }

    #[test]
    fn rate_zero_costs_nothing_and_nonsense_is_an_error() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[2, 3, 3, 3], 1).upload(&cx, DType::F32);
        let (two, three) = (seeds(&cx, &[1, 2], 0), seeds(&cx, &[1, 2, 3], 0));
        assert_eq!(dropout(&mut cx, &x, 0.0, &two).unwrap().identity(), x.identity());
        assert!(cx.is_empty());
        for rate in [-0.1, 1.0, f32::NAN] {
            assert!(dropout(&mut cx, &x, rate, &two).is_err());
        }
        assert!(dropout(&mut cx, &x, 0.1, &three).unwrap_err().to_string().contains("[3, 2]"));
    }
}
