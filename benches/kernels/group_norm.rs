//! Group norm with scale, shift and SiLU, as every block of the network has it.
//! Bytes: forward x read and y written once, backward x and dy read and dx written once.

use freeguide::ops::{GroupNorm, group_norm};

use crate::harness::Bench;
use crate::row::Work;

const OPTIONS: GroupNorm = GroupNorm { groups: 32, eps: 1e-5, silu: true };

/// N, H = W and C as UNets have them: the large images of a batch and of a guided pair, and the small ones.
const REAL: &[[usize; 3]] = &[[16, 64, 192], [2, 64, 192], [1, 256, 256], [16, 16, 576], [16, 8, 768]];
const SMALL: &[[usize; 3]] = &[[16, 32, 64]];

pub fn run(bench: &mut Bench) {
    for &[n, side, c] in if bench.is_software() { SMALL } else { REAL } {
        measure(bench, [n, side, side, c]);
    }
}

fn measure(bench: &mut Bench, shape: [usize; 4]) {
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    for &dtype in bench.dtypes() {
        let bytes = (n * h * w * c * dtype.bytes()) as f64;
        bench.measure("group_norm", "forward", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let (x, modulation) = (r.random(&shape, dtype)?, r.random(&[n, 2 * c], dtype)?);
            let (gamma, beta) = (r.parameter(&[c])?, r.parameter(&[c])?);
            group_norm(&mut r.cx, &x, &gamma, &beta, Some(&modulation), &OPTIONS).map(drop)
        });
        bench.measure("group_norm", "backward", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let (x, modulation) = (r.random(&shape, dtype)?, r.random(&[n, 2 * c], dtype)?);
            let (gamma, beta) = (r.parameter(&[c])?, r.parameter(&[c])?);
            r.cx.watch(&x);
            r.cx.watch(&modulation);
            let y = group_norm(&mut r.cx, &x, &gamma, &beta, Some(&modulation), &OPTIONS)?;
            r.backward_of(&y)
        });
    }
}
