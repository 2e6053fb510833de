//! Attention in tiles of 64 rows by 64 columns, for GPUs and storage types without cooperative matrices. See
//! `shaders/attention_tile.wgsl` for how the work is shared out.

use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, GradTarget, Tensor};
use crate::wgsl;

use super::problem::{PARTS, Params, Problem};

use Access::{Read, Update, Write};

const CHECKED: Kernel = Kernel::new(
    "attention",
    wgsl!("attention_tiled"),
    "forward_tiles",
    &[Read, Read, Read, Read, Write, Write],
);
const CHECKED_BACKWARD: Kernel = Kernel::new(
    "attention_backward",
    wgsl!("attention_tiled_backward"),
    "backward_tiles",
    &[Read, Read, Read, Read, Read, Read, Update],
);

// The shaders' headers say why no access is out of bounds; every loop counts up to a number of the launch.
const FORWARD: Kernel = unsafe { CHECKED.trusted() };
const BACKWARD: Kernel = unsafe { CHECKED_BACKWARD.trusted() };

/// Rows of a workgroup, and quads of the output that it makes.
const ROWS: usize = 64;
const SPAN: usize = 16;

fn workgroups(problem: &Problem, part: usize) -> usize {
    let spans = (problem.params.head as usize / 4).div_ceil(SPAN);
    problem.heads() * problem.length(part).div_ceil(ROWS) * spans
}

/// y and the log-sum-exps; `checked` as a test wants it.
pub(super) fn forward(cx: &mut Context, problem: &Problem, [y, lse]: [&Tensor; 2], checked: bool) {
    let launch = problem.launch(cx.launch(if checked { &CHECKED } else { &FORWARD }));
    // q holds the place of dy, unread.
    let launch = launch.bind(&problem.q).bind(y).bind(lse).params(&problem.params);
    launch.variant(format_args!("{}tiled 64x64", problem.kind())).over_groups(workgroups(problem, 0));
}

/// One part of the gradient.
pub(super) fn backward(
    cx: &mut Context,
    problem: &Problem,
    part: usize,
    [dy, lse, delta]: [&Tensor; 3],
    target: &GradTarget,
    checked: bool,
) {
    let params = Params { accumulate: target.flag(), ..problem.params };
    let launch = problem.launch(cx.launch(if checked { &CHECKED_BACKWARD } else { &BACKWARD }));
    let launch = launch.bind(dy).bind(lse).bind(delta).bind(&target.tensor);
    let launch = launch.params(&params).constant("PART", part as f64);
    let (kind, name) = (problem.kind(), PARTS[part]);
    launch.variant(format_args!("{kind}{name} tiled 64x64")).over_groups(workgroups(problem, part));
}
