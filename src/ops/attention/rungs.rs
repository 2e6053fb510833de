//! The kernels of every rung, forward and backward, and which of them runs.

use crate::error::Result;
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, GradTarget, Tensor};
use crate::wgsl;

use super::problem::{PARTS, Params, Problem};
use super::{coop, tiled};

use Access::{Read, Update, Write};

const NAIVE: Kernel =
    Kernel::new("attention", wgsl!("attention"), "forward", &[Read, Read, Read, Write, Write]);
const ROWS: Kernel =
    Kernel::new("attention", wgsl!("attention_rows"), "forward_rows", &[Read, Read, Read, Write, Write]);
pub(super) const DELTA: Kernel =
    Kernel::new("attention_delta", wgsl!("attention"), "row_products", &[Read, Read, Write]);
const BACKWARD_ACCESS: &[Access] = &[Read, Read, Read, Read, Read, Read, Update];
const NAIVE_BACKWARD: Kernel =
    Kernel::new("attention_backward", wgsl!("attention"), "backward", BACKWARD_ACCESS);
const ROWS_BACKWARD: Kernel =
    Kernel::new("attention_backward", wgsl!("attention_rows"), "backward_rows", BACKWARD_ACCESS);

/// Rows of an invocation of the register-tiled kernels, and quads of the output that it holds.
const ROWS_TILE: [usize; 2] = [4, 8];

/// The output, of this shape, and its backward pass.
pub(super) fn record(cx: &mut Context, problem: Problem, shape: &[usize]) -> Result<Tensor> {
    let params = problem.params;
    let [batch, tokens, heads] = [params.batch, params.tokens, params.heads].map(|n| n as usize);
    let rung = if params.head.is_multiple_of(4) { cx.rung() } else { Rung::Naive };
    let y = cx.output(problem.op, shape, problem.q.dtype())?;
    let lse = cx.output("attention log-sum-exp", &[batch, heads, tokens], DType::F32)?;
    let kind = problem.kind();
    let on_matrices = coop::takes(cx, &problem);
    match rung {
        _ if on_matrices => coop::forward(cx, &problem, [&y, &lse]),
        Rung::Naive => {
            let launch = problem.launch(cx.launch(&NAIVE)).bind(&y).bind(&lse).params(&params);
            launch.variant(format_args!("{kind}naive")).over(y.len(), 64);
        }
        Rung::Cpu => {
            let launch = problem.launch(cx.launch(&ROWS)).bind(&y).bind(&lse).params(&params);
            launch.variant(format_args!("{kind}cpu 4x4")).over(pieces(&problem, 0), 16);
        }
        Rung::Tiled | Rung::Coop => tiled::forward(cx, &problem, [&y, &lse], false),
    }

    // Two products of queries by keys by d a head forward; five backward, the scores made again among them.
    let product = 2.0 * problem.scores() * f64::from(params.head);
    cx.count_flops(2.0 * product);

    cx.backward(&y, &[&problem.q, &problem.kv], {
        let (problem, y) = (problem.clone(), y.clone());
        move |cx, dy| {
            let of_q = cx.grad_target(&problem.q)?;
            let joint = problem.is_joint();
            let of_kv = if joint { None } else { cx.grad_target(&problem.kv)? };
            let targets = [of_q.as_ref(), if joint { of_q.as_ref() } else { of_kv.as_ref() }];
            if targets.iter().all(Option::is_none) {
                return Ok(());
            }
            cx.count_flops(5.0 * product);
            backward(cx, &problem, [&y, dy, &lse], targets)
        }
    });
    Ok(y)
}

/// The gradients of q and of kv, where they are wanted.
fn backward(
    cx: &mut Context,
    problem: &Problem,
    [y, dy, lse]: [&Tensor; 3],
    targets: [Option<&GradTarget>; 2],
) -> Result<()> {
    let params = problem.params;
    let rung = if params.head.is_multiple_of(4) { cx.rung() } else { Rung::Naive };
    if let [Some(of_q), Some(_)] = targets
        && coop::takes_backward(cx, problem)
    {
        return coop::backward(cx, problem, [y, dy, lse], of_q);
    }
    let delta = cx.output("attention delta", lse.shape(), DType::F32)?;
    let launch = cx.launch(&DELTA).bind(y).bind(dy).bind(&delta).params(&params);
    launch.over(delta.len(), 64);
    // Each part has a launch of its own; together they write all of q's gradient and of kv's.
    for (part, name) in PARTS.into_iter().enumerate() {
        let Some(target) = targets[usize::from(part > 0)] else { continue };
        let known = [dy, lse, &delta];
        if rung.is_tiled() {
            tiled::backward(cx, problem, part, known, target, false);
            continue;
        }
        let (kernel, variant) = match rung {
            Rung::Naive => (&NAIVE_BACKWARD, "naive"),
            _ => (&ROWS_BACKWARD, "cpu 4x4"),
        };
        let params = Params { accumulate: target.flag(), ..params };
        let launch = known.into_iter().fold(problem.launch(cx.launch(kernel)), |launch, x| launch.bind(x));
        let launch = launch.bind(&target.tensor).params(&params).constant("PART", part as f64);
        let launch = launch.variant(format_args!("{}{name} {variant}", problem.kind()));
        match rung {
            Rung::Naive => {
                let elements = problem.heads() * problem.length(part) * params.head as usize;
                launch.over(elements, 64);
            }
            _ => launch.over(pieces(problem, part), 16),
        }
    }
    Ok(())
}

/// Pieces of a gradient's part (of the output: as of q) that the register-tiled kernels make.
fn pieces(problem: &Problem, part: usize) -> usize {
    let [rows, span] = ROWS_TILE;
    let spans = (problem.params.head as usize / 4).div_ceil(span);
    problem.heads() * problem.length(part).div_ceil(rows) * spans
}
