//! Cross-attention: the queries of a picture against the keys of a sequence, a prompt's for one.

use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Tensor};

use super::problem::{Params, Problem};
use super::{check_head, rungs};

/// Multi-head attention of queries q `[N, T, heads·d]` or `[N, H, W, heads·d]` to keys and values kv
/// `[R, L, 2·heads·d]`, a token's channels ordered `[k, v][head][d]`. Picture n reads sequence `rows[n]`, rows `[N]`
/// u32, or, without rows, sequence n of as many as there are pictures. The result has q's shape. A row past the last
/// sequence reads nothing and gets zeros, and no gradient.
///
/// With rows, several pictures may read one sequence: its keys and values are made once and never copied. Their
/// gradient would have to be gathered from all those pictures, and is not made.
///
/// # Errors
/// [`Error::Shape`] when the channels do not split or do not agree, a head has more than 512, the types differ, there
/// are not as many sequences as pictures (or rows, as pictures), or a gradient of kv is wanted with rows given.
pub fn cross_attention(
    cx: &mut Context,
    q: &Tensor,
    kv: &Tensor,
    rows: Option<&Tensor>,
    heads: usize,
) -> Result<Tensor> {
    let params = check(q, kv, rows, heads)?;
    if rows.is_some() && cx.needs_grad(kv) {
        let what = "a gradient of kv is wanted, which pictures may share through rows; give every picture its own \
                    keys and values, without rows";
        return Err(Error::shape("cross_attention", what.to_owned()));
    }
    let problem = Problem {
        op: "cross_attention",
        q: q.clone(),
        kv: kv.clone(),
        rows: rows.cloned(),
        causal: false,
        params,
    };
    rungs::record(cx, problem, q.shape())
}

fn check(q: &Tensor, kv: &Tensor, rows: Option<&Tensor>, heads: usize) -> Result<Params> {
    let fail = |what: String| Err(Error::shape("cross_attention", what));
    let (&[batch, .., channels], 3 | 4, &[sequences, keys, both]) = (q.shape(), q.shape().len(), kv.shape())
    else {
        return fail(format!(
            "expected q as [N, T, heads·d] or [N, H, W, heads·d] and kv as [R, L, 2·heads·d], got {:?} and {:?}",
            q.shape(),
            kv.shape()
        ));
    };
    if q.is_empty() || kv.is_empty() || q.dtype() == DType::U32 || q.dtype() != kv.dtype() {
        return fail(format!(
            "q is {:?} {:?} and kv {:?} {:?}, expected floats of one type, at least one",
            q.shape(),
            q.dtype(),
            kv.shape(),
            kv.dtype()
        ));
    }
    if heads == 0 || !channels.is_multiple_of(heads) {
        return fail(format!("q has {channels} channels, which {heads} heads do not split evenly"));
    }
    if both != 2 * channels {
        return fail(format!(
            "kv has {both} channels, but keys and values of q's {channels} are {}",
            2 * channels
        ));
    }
    match rows {
        None if sequences != batch => {
            return fail(format!(
                "kv has {sequences} sequences for {batch} pictures; without rows each reads its own"
            ));
        }
        Some(rows) if rows.dtype() != DType::U32 || rows.shape() != [batch] => {
            return fail(format!(
                "rows is {:?} {:?}, expected [{batch}] U32, the sequence of each picture",
                rows.shape(),
                rows.dtype()
            ));
        }
        _ => {}
    }
    let head = channels / heads;
    check_head("cross_attention", "q", channels, heads, head)?;
    Ok(Params {
        batch: batch as u32,
        tokens: (q.len() / (batch * channels)) as u32,
        keys: keys as u32,
        sequences: sequences as u32,
        heads: heads as u32,
        head: head as u32,
        q_step: heads as u32,
        kv_step: 2 * heads as u32,
        head_stride: 1,
        k_at: 0,
        v_at: heads as u32,
        accumulate: 0,
        scale: (head as f32).powf(-0.5),
    })
}

#[cfg(test)]
pub(super) mod tests;
