//! Pixels as numbers.  y = u8/127.5 - 1, in [-1, 1]. No gradients: pictures are data.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const PIXELS: Kernel = Kernel::new("pixels", wgsl!("pixels"), "pixels", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    pad: [u32; 3],
}

/// `[N, H, W, C]` f32 of the bytes `[⌈N·H·W·C / 4⌉]` u32, four to a word in little-endian order.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when there are not as many words.
pub fn pixels(cx: &mut Context, bytes: &Tensor, shape: [usize; 4]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    expect("pixels", "bytes", bytes, &[count.div_ceil(4)], DType::U32)?;
    let y = cx.output("pixels", &shape, DType::F32)?;
    let params = Params { count: count as u32, pad: [0; 3] };
    cx.launch(&PIXELS).bind(bytes).bind(&y).params(&params).over(count, 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{forward, gpu};

    #[test]
    fn all_bytes() {
        let mut cx = Context::new(gpu());
        let mut bytes: Vec<u8> = (0..=255).collect();
        bytes.extend([7, 0, 0, 0]);
        let words = cx.constant("bytes", &[65], DType::U32, &bytes).unwrap();
        let y = pixels(&mut cx, &words, [1, 257, 1, 1]).unwrap();
        let y = forward(std::slice::from_ref(&words), cx, &y);
        assert_eq!((y.data[0], y.data[255]), (-1.0, 1.0));
        for (byte, y) in bytes.iter().zip(&y.data) {
            // A quotient may be off by two and a half of its last places.
            assert!((f64::from(*y) - (f64::from(*byte) / 127.5 - 1.0)).abs() < 3e-7);
        }
        let mut cx = Context::new(gpu());
        assert!(pixels(&mut cx, &words, [1, 2, 2, 1]).unwrap_err().to_string().contains("[1]"));
    }
}
