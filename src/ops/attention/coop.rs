//! Attention on cooperative matrices: f16 products, f32 sums; as fast attention goes, block by block with an online
//! softmax (Dao et al. 2022), rescaled only where a row's maximum has grown by much.
//!
//! What it does not take runs on the tiled kernels: f32, heads that 8 does not divide or above 160 channels (128
//! backward), gradients of cross-attention and of causal attention. Heads that 16 does not divide are padded where they
//! are worked on, never in memory. A row's sums go by 16 tokens whatever the number of subgroups, so that number may
//! depend on the batch.

use crate::error::Result;
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, GradTarget, Launch, Tensor};
use crate::wgsl;

use super::problem::{Params, Problem};

use Access::{Read, Update, Write};

// Trusted: the shaders' headers say why no access is out of bounds; every loop counts up to a number of the launch.
const FORWARD: Kernel = unsafe {
    Kernel::new("attention", wgsl!("attention_coop"), "forward", &[Read, Read, Read, Write, Write]).trusted()
};
const BACKWARD: Kernel = unsafe {
    let access = &[Read, Read, Read, Update];
    Kernel::new("attention_backward", wgsl!("attention_coop_backward"), "backward", access).trusted()
};
const STATS: Kernel =
    Kernel::new("attention_stats", wgsl!("attention_coop_stats"), "row_stats", &[Read, Read, Read, Write]);

/// The largest head sizes, forward and backward: sums of more would not fit into registers.
const MOST_HEAD: u32 = 160;
const MOST_HEAD_BACKWARD: u32 = 128;

/// Channels that are fetched at a time.
const EIGHT: u32 = 8;

/// Tokens that the kernels take at a time, also rows of a subgroup.
const BLOCK: usize = 16;

/// Whether the kernels take these types and head sizes.
pub(super) fn takes(cx: &Context, problem: &Problem) -> bool {
    let params = &problem.params;
    // A rung set by hand does not give a device matrices.
    cx.rung() == Rung::Coop
        && cx.capabilities().rung == Rung::Coop
        && problem.q.dtype() == DType::F16
        && params.head.is_multiple_of(EIGHT)
        && params.head <= MOST_HEAD
}

/// Whether there are kernels for the gradient, too: of a joint projection.
pub(super) fn takes_backward(cx: &Context, problem: &Problem) -> bool {
    takes(cx, problem) && problem.is_joint() && !problem.causal && problem.params.head <= MOST_HEAD_BACKWARD
}

/// Subgroups of a workgroup of the forward pass: as many as share what they fetch within 24 KiB of workgroup memory,
/// above which workgroups do not share a multiprocessor; few where there are few tokens.
fn forward_subgroups(params: &Params) -> usize {
    if params.head <= 80 && params.tokens as usize > 4 * BLOCK { 8 } else { 4 }
}

/// And of the backward pass.
fn backward_subgroups(params: &Params) -> usize {
    if params.head <= 64 { 4 } else { 2 }
}

fn launch<'a>(launch: Launch<'a>, params: &Params, others: u32, subgroups: usize) -> Launch<'a> {
    launch
        .params(params)
        .constant("HEAD", params.head.into())
        .constant("SUBGROUPS", subgroups as f64)
        .constant("TAIL", f64::from(u8::from(!others.is_multiple_of(BLOCK as u32))))
}

/// y and its log-sum-exp.
pub(super) fn forward(cx: &mut Context, problem: &Problem, [y, lse]: [&Tensor; 2]) {
    let params = &problem.params;
    let subgroups = forward_subgroups(params);
    let rows = BLOCK * subgroups;
    let dispatch = problem.launch(cx.launch(&FORWARD)).bind(y).bind(lse);
    let dispatch = launch(dispatch, params, params.keys, subgroups)
        .variant(format_args!("{}coop {rows}x{BLOCK}", problem.kind()));
    dispatch.over_groups(problem.heads() * problem.length(0).div_ceil(rows));
}

/// The gradient of a joint projection, from what the forward pass left: all of it, in two launches.
pub(super) fn backward(
    cx: &mut Context,
    problem: &Problem,
    [y, dy, lse]: [&Tensor; 3],
    target: &GradTarget,
) -> Result<()> {
    let [images, heads, tokens] =
        [problem.params.batch, problem.params.heads, problem.params.tokens].map(|n| n as usize);
    let blocks = tokens.div_ceil(BLOCK);
    let stats = cx.output("attention stats", &[images, heads, 2, blocks * BLOCK], DType::F32)?;
    let dispatch = cx.launch(&STATS).bind(y).bind(dy).bind(lse).bind(&stats).params(&problem.params);
    dispatch.over_groups(images * heads * blocks);

    let params = Params { accumulate: target.flag(), ..problem.params };
    // A pair of subgroups shares 32 rows.
    let subgroups = backward_subgroups(&params);
    let rows = BLOCK * subgroups;
    for (part, name) in ["q", "k v"].into_iter().enumerate() {
        let dispatch = cx.launch(&BACKWARD).bind(&problem.q).bind(dy).bind(&stats).bind(&target.tensor);
        let dispatch = launch(dispatch, &params, params.tokens, subgroups).constant("PART", part as f64);
        let dispatch = dispatch.variant(format_args!("{name} coop {rows}x{BLOCK}"));
        dispatch.over_groups(images * heads * tokens.div_ceil(rows));
    }
    Ok(())
}
