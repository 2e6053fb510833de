//! Multi-head attention (Vaswani et al. 2017).  S = q·kᵀ·d^-½,  P = softmax(S),  o = P·v, for every head.
//! Self-attention of qkv `[N, ..., 3·heads·d]`, cross-attention of q `[N, ..., heads·d]` to kv `[R, L, 2·heads·d]`;
//! o `[N, ..., heads·d]`; the axes between are the tokens.
//!
//! The scores are never stored: the softmax keeps a running maximum, and the backward pass makes the scores again from
//! the log-sum-exp of each row (Dao et al. 2022). Products of queries and keys are summed in f32 and scaled there, so
//! none overflows whatever f16 holds. The order of every sum depends on tokens, keys and d alone.

mod coop;
mod cross;
mod problem;
mod rungs;
mod tiled;

use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Tensor};

use problem::{Params, Problem};

pub use cross::cross_attention;

/// The largest head size.
const MOST_HEAD: usize = 512;

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
/// [`Error::Shape`] when the channels do not split into three times the heads, or a head has more than 512.
pub fn attention(cx: &mut Context, qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Tensor> {
    of_itself(cx, "attention", qkv, heads, order)
}

/// The same where token t sees tokens 0..=t alone, as a text encoder's do.
///
/// # Errors
/// As [`attention`].
pub fn attention_causal(cx: &mut Context, qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Tensor> {
    of_itself(cx, "attention_causal", qkv, heads, order)
}

fn of_itself(
    cx: &mut Context,
    op: &'static str,
    qkv: &Tensor,
    heads: usize,
    order: QkvOrder,
) -> Result<Tensor> {
    let params = check(op, qkv, heads, order)?;
    let mut shape = qkv.shape().to_vec();
    *shape.last_mut().expect("it was checked to have three or four dimensions") =
        heads * params.head as usize;
    let causal = op == "attention_causal";
    rungs::record(cx, Problem { op, q: qkv.clone(), kv: qkv.clone(), rows: None, causal, params }, &shape)
}

fn check(op: &'static str, qkv: &Tensor, heads: usize, order: QkvOrder) -> Result<Params> {
    let fail = |what: String| Err(Error::shape(op, what));
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
    check_head(op, "qkv", channels, heads, head)?;
    let (k_at, v_at, head_stride) = match order {
        QkvOrder::New => (heads, 2 * heads, 1),
        QkvOrder::Legacy => (1, 2, 3),
    };
    let tokens = (qkv.len() / (batch * channels)) as u32;
    Ok(Params {
        batch: batch as u32,
        tokens,
        keys: tokens,
        sequences: batch as u32,
        heads: heads as u32,
        head: head as u32,
        q_step: 3 * heads as u32,
        kv_step: 3 * heads as u32,
        head_stride,
        k_at: k_at as u32,
        v_at: v_at as u32,
        accumulate: 0,
        scale: (head as f32).powf(-0.5),
    })
}

/// That a head is not too large.
fn check_head(op: &'static str, name: &str, channels: usize, heads: usize, head: usize) -> Result<()> {
    if head <= MOST_HEAD {
        return Ok(());
    }
    let what = format!(
        "{name} has {channels} channels, so each of the {heads} heads has {head}; at most {MOST_HEAD} are \
         supported: use more heads"
    );
    Err(Error::shape(op, what))
}

#[cfg(test)]
mod coop_tests;
#[cfg(test)]
mod tests;
