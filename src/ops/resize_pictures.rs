//! Bytes to squares of numbers of another size: y = factor·(bilinear of x) + shift, without smoothing when it shrinks, as
//! published feature networks do it. Two conventions of where place i reads: i·(n/size), TensorFlow 1's, and
//! max((i + ½)(n/size) - ½, 0), PyTorch's. No gradients: pictures are data.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("resize_pictures", wgsl!("resize_pictures"), "forward", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    height: u32,
    width: u32,
    channels: u32,
    size: u32,
    centred: u32,
    factor: f32,
    shift: f32,
}

/// How pictures are brought to size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    /// The side of what comes out, in pixels.
    pub size: usize,
    /// Whether places are centres of pixels (PyTorch) or their corners (TensorFlow 1).
    pub centred: bool,
    /// What a byte is multiplied by.
    pub factor: f32,
    /// What is then added.
    pub shift: f32,
}

/// `[N, size, size, C]` f32 of the bytes of `[N, H, W, C]` = `shape`, four to a word in little-endian order.
///
/// # Errors
/// [`Error::Shape`] when there are not as many words, or no pixels.
pub fn resize_pictures(
    cx: &mut Context,
    bytes: &Tensor,
    shape: [usize; 4],
    resize: Resize,
) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    if count == 0 || resize.size == 0 {
        return Err(Error::shape(
            "resize_pictures",
            format!("{shape:?} to {}: there are no pixels", resize.size),
        ));
    }
    expect("resize_pictures", "bytes", bytes, &[count.div_ceil(4)], DType::U32)?;
    let [n, height, width, channels] = shape;
    let y = cx.output("resize_pictures", &[n, resize.size, resize.size, channels], DType::F32)?;
    let params = Params {
        count: y.len() as u32,
        height: height as u32,
        width: width as u32,
        channels: channels as u32,
        size: resize.size as u32,
        centred: u32::from(resize.centred),
        factor: resize.factor,
        shift: resize.shift,
    };
    cx.launch(&FORWARD).bind(bytes).bind(&y).params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, forward, gpu};

    #[test]
    fn both_conventions_on_odd_sizes() {
        let shape = [2, 5, 7, 3];
        let bytes: Vec<u8> = (0..210u32).map(|i| (i * 89 % 256) as u8).collect();
        let mut padded = bytes.clone();
        padded.resize(212, 0);
        for (size, centred) in [(3, true), (3, false), (13, true), (13, false), (5, true), (1, false)] {
            let resize = Resize { size, centred, factor: 2.0 / 255.0, shift: -1.0 };
            let mut cx = Context::new(gpu());
            let words = cx.constant("bytes", &[53], DType::U32, &padded).unwrap();
            let y = resize_pictures(&mut cx, &words, shape, resize).unwrap();
            let got = forward(&[words], cx, &y);
            let source = |i: usize, n: usize| {
                let ratio = n as f64 / size as f64;
                let s = if centred { ((i as f64 + 0.5) * ratio - 0.5).max(0.0) } else { i as f64 * ratio };
                let low = (s.floor() as usize).min(n - 1);
                (low, (low + 1).min(n - 1), s - low as f64)
            };
            let value = |i: usize| {
                let (c, place) = (i % 3, i / 3);
                let (x0, x1, fx) = source(place % size, 7);
                let (y0, y1, fy) = source(place / size % size, 5);
                let n = place / (size * size);
                let at = |y: usize, x: usize| f64::from(bytes[((n * 5 + y) * 7 + x) * 3 + c]);
                let upper = at(y0, x0) * (1.0 - fx) + at(y0, x1) * fx;
                let lower = at(y1, x0) * (1.0 - fx) + at(y1, x1) * fx;
                (2.0 / 255.0 * (upper * (1.0 - fy) + lower * fy) - 1.0) as f32
            };
            let want = Array::new(&[2, size, size, 3], (0..6 * size * size).map(value).collect());
            got.check_absolute(&format!("{size}, centred {centred}"), &want, 2e-6);
        }
    }
}
