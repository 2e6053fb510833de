//! Attention in tiles of 64 rows by 64 columns, for GPUs and storage types without cooperative matrices. See
//! `shaders/attention_tile.wgsl` for how the work is shared out.

use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, GradTarget, Tensor};
use crate::wgsl;

use super::problem::Params;

use Access::{Read, Update, Write};

const CHECKED: Kernel =
    Kernel::new("attention", wgsl!("attention_tiled"), "forward_tiles", &[Read, Read, Write, Write]);
const CHECKED_BACKWARD: Kernel = Kernel::new(
    "attention_backward",
    wgsl!("attention_tiled_backward"),
    "backward_tiles",
    &[Read, Read, Read, Read, Update],
);

// The shaders' headers say why no access is out of bounds; every loop counts up to a number of the launch.
const FORWARD: Kernel = unsafe { CHECKED.trusted() };
const BACKWARD: Kernel = unsafe { CHECKED_BACKWARD.trusted() };

/// Rows of a workgroup, and quads of the output that it makes.
const ROWS: u32 = 64;
const SPAN: u32 = 16;

fn workgroups(params: &Params) -> usize {
    let tiles = params.tokens.div_ceil(ROWS) * (params.head / 4).div_ceil(SPAN);
    params.batch as usize * params.heads as usize * tiles as usize
}

/// y and the log-sum-exps of qkv `[N, T, ..]`; `checked` as a test wants it.
pub(super) fn forward(
    cx: &mut Context,
    qkv: &Tensor,
    [y, lse]: [&Tensor; 2],
    params: &Params,
    checked: bool,
) {
    // qkv holds the place of dy, unread.
    let launch = cx.launch(if checked { &CHECKED } else { &FORWARD }).bind(qkv).bind(qkv).bind(y).bind(lse);
    launch.params(params).variant("tiled 64x64").over_groups(workgroups(params));
}

/// dqkv, whose parts have a launch each; together they write all of it.
pub(super) fn backward(
    cx: &mut Context,
    [qkv, dy, lse, delta]: [&Tensor; 4],
    dqkv: &GradTarget,
    params: &Params,
    checked: bool,
) {
    let params = Params { accumulate: dqkv.flag(), ..*params };
    let kernel = if checked { &CHECKED_BACKWARD } else { &BACKWARD };
    for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
        let launch = cx.launch(kernel).bind(qkv).bind(dy).bind(lse).bind(delta).bind(&dqkv.tensor);
        let launch = launch.params(&params).constant("PART", part as f64);
        launch.variant(format_args!("{name} tiled 64x64")).over_groups(workgroups(&params));
    }
}
