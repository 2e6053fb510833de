//! Multi-head self-attention (Vaswani et al. 2017).  S = q·kᵀ·d^-½,  P = softmax(S),  o = P·v, for every head.
//! qkv `[N, ..., 3·heads·d]`, o `[N, ..., heads·d]`; the axes between are the tokens.
//!
//! The scores are never stored: the softmax keeps a running maximum, and the backward pass makes the scores again from
//! the log-sum-exp of each row (Dao et al. 2022). The order of every sum depends on tokens and d alone.

mod coop;
mod problem;
mod tiled;

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};
use problem::Params;

const NAIVE: Kernel = Kernel::new("attention", wgsl!("attention"), "forward", &[Read, Write, Write]);
const ROWS: Kernel = Kernel::new("attention", wgsl!("attention"), "forward_rows", &[Read, Write, Write]);
const DELTA: Kernel =
    Kernel::new("attention_delta", wgsl!("attention"), "row_products", &[Read, Read, Write]);
const NAIVE_BACKWARD: Kernel =
    Kernel::new("attention_backward", wgsl!("attention"), "backward", &[Read, Read, Read, Read, Update]);
const ROWS_BACKWARD: Kernel =
    Kernel::new("attention_backward", wgsl!("attention"), "backward_rows", &[Read, Read, Read, Read, Update]);

/// Rows of an invocation of the register-tiled kernels, and quads of the output that it holds.
const ROWS_TILE: [usize; 2] = [4, 8];

/// The largest head size.
const MOST_HEAD: usize = 256;

/// How the channels of a joint projection are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvOrder {
    /// `[q, k, v][head][d]`.
    New,
    /// `[head][q, k, v][d]`.
    Legacy,
}

/// Multi-head self-attention of a joint projection qkv `[N, T, 3·heads·d]` or `[N, H, W, 3·heads·d]`; the result has
/// the same leading dimensions and heads·d channels.
///
/// # Errors
/// [`Error::Shape`] when the channels do not split into three times the heads, or a head has more than 256.
pub fn attention(cx: &mut Context, qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Tensor> {
    let params = check(qkv, heads, order)?;
    let [batch, tokens, head] = [params.batch, params.tokens, params.head].map(|n| n as usize);
    let rung = if head.is_multiple_of(4) { cx.rung() } else { Rung::Naive };

    let mut shape = qkv.shape().to_vec();
    *shape.last_mut().expect("it was checked to have three or four dimensions") = heads * head;
    let y = cx.output("attention", &shape, qkv.dtype())?;
    let lse = cx.output("attention log-sum-exp", &[batch, heads, tokens], DType::F32)?;
    // Pieces of an image's and head's output: rows by channels.
    let [rows, span] = ROWS_TILE;
    let pieces = batch * heads * tokens.div_ceil(rows) * (head / 4).div_ceil(span);
    let on_matrices = coop::takes(cx, qkv, &params);
    match rung {
        _ if on_matrices => coop::forward(cx, qkv, [&y, &lse], &params),
        Rung::Naive => {
            let launch = cx.launch(&NAIVE).bind(qkv).bind(&y).bind(&lse).params(&params);
            launch.variant("naive").over(y.len(), 64);
        }
        Rung::Cpu => {
            let launch = cx.launch(&ROWS).bind(qkv).bind(&y).bind(&lse).params(&params);
            launch.variant("cpu 4x4").over(pieces, 16);
        }
        Rung::Tiled | Rung::Coop => tiled::forward(cx, qkv, [&y, &lse], &params, false),
    }

    // Two products of T x T x d a head forward; five backward, the scores made again among them.
    let product = 2.0 * (batch * heads * head) as f64 * (tokens as f64).powi(2);
    cx.count_flops(2.0 * product);

    cx.backward(&y, &[qkv], {
        let (qkv, y) = (qkv.clone(), y.clone());
        move |cx, dy| {
            let Some(dqkv) = cx.grad_target(&qkv)? else { return Ok(()) };
            cx.count_flops(5.0 * product);
            if on_matrices {
                return coop::backward(cx, [&qkv, &y, dy, &lse], &dqkv, &params);
            }
            let delta = cx.output("attention delta", &[batch, heads, tokens], DType::F32)?;
            let launch = cx.launch(&DELTA).bind(&y).bind(dy).bind(&delta).params(&params);
            launch.over(delta.len(), 64);
            if rung.is_tiled() {
                tiled::backward(cx, [&qkv, dy, &lse, &delta], &dqkv, &params, false);
                return Ok(());
            }
            let params = Params { accumulate: dqkv.flag(), ..params };
            if rung == Rung::Naive {
                let launch = cx.launch(&NAIVE_BACKWARD).bind(&qkv).bind(dy).bind(&lse).bind(&delta);
                launch.bind(&dqkv.tensor).params(&params).variant("naive").over(qkv.len(), 64);
                return Ok(());
            }
            // Each part of dqkv has a launch of its own; together they write all of it.
            for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
                let launch = cx.launch(&ROWS_BACKWARD).bind(&qkv).bind(dy).bind(&lse).bind(&delta);
                let launch = launch.bind(&dqkv.tensor).params(&params).constant("PART", part as f64);
                launch.variant(format_args!("{name} cpu 4x4")).over(pieces, 16);
            }
            Ok(())
        }
    });
    Ok(y)
}

fn check(qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Params> {
    let fail = |what: String| Err(Error::shape("attention", what));
    let (&[batch, .., channels], 3 | 4) = (qkv.shape(), qkv.shape().len()) else {
        let shape = qkv.shape();
        return fail(format!("expected qkv as [N, T, 3·heads·d] or [N, H, W, 3·heads·d], got {shape:?}"));
    };
    if qkv.is_empty() || qkv.dtype() == DType::U32 {
        return fail(format!("qkv is {:?} {:?}, expected floats, at least one", qkv.shape(), qkv.dtype()));
    }
    if heads == 0 || !channels.is_multiple_of(3 * heads) {
        return fail(format!(
            "qkv has {channels} channels, which {heads} heads do not split evenly into q, k and v: \
             it must be a multiple of {}",
            3 * heads
        ));
    }
    let head = channels / (3 * heads);
    if head > MOST_HEAD {
        return fail(format!(
            "qkv has {channels} channels, so each of the {heads} heads has {head}; at most {MOST_HEAD} are \
             supported: use more heads"
        ));
    }
    let (part_stride, head_stride) = match order {
        QkvOrder::New => (heads, 1),
        QkvOrder::Legacy => (1, 3),
    };
    Ok(Params {
        batch: batch as u32,
        tokens: (qkv.len() / (batch * channels)) as u32,
        heads: heads as u32,
        head: head as u32,
        part_stride: part_stride as u32,
        head_stride,
        accumulate: 0,
        scale: (head as f32).powf(-0.5),
    })
}

#[cfg(test)]
mod tests;
