//! Sections of tensors: y[to + i] = x[from + i] for i below a count, both seen as rows of elements one after the other. For
//! networks that are only run: there is no gradient, and a tape refuses it.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

const COPY: Kernel = Kernel::new("section", wgsl!("section"), "copy", &[Access::Read, Access::Update]);
const COPY_PACKED: Kernel =
    Kernel::new("section", wgsl!("section"), "copy_packed", &[Access::Read, Access::Update]);

/// WebGPU's default alignment of a binding's offset.
const ALIGNMENT: u64 = 256;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    from: u32,
    to: u32,
    pad: u32,
}

/// Copies `count` elements of x, from element `from` on, to where element `to` of y is; the rest of y stays as it is.
///
/// # Errors
/// [`Error::Shape`] for sections that are not there, and other types; [`Error::Config`] on a tape that asks for x's gradient.
pub fn put_section(
    cx: &mut Context,
    (x, from): (&Tensor, usize),
    (y, to): (&Tensor, usize),
    count: usize,
) -> Result<()> {
    check(cx, x, from, count)?;
    let inside = to.checked_add(count).is_some_and(|end| end <= y.len());
    if !inside || y.dtype() != x.dtype() {
        let what =
            format!("{count} of {:?} do not fit at {to} of y {:?} {:?}", x.dtype(), y.shape(), y.dtype());
        return Err(Error::shape("section", what));
    }
    let chosen = choose(cx, x.dtype(), &[from, to, count], &COPY_PACKED, &COPY);
    let [count, from, to] = [count, from, to].map(|at| (at / chosen.lanes) as u32);
    let params = Params { count, from, to, pad: 0 };
    let launch = cx.launch(chosen.kernel).bind(x).bind(y).params(&params);
    launch.variant(chosen.variant("")).over(count as usize, chosen.size);
    Ok(())
}

/// The elements of x from `from` on as a tensor of `shape`: the same memory where a binding may begin there, else a copy.
///
/// # Errors
/// As [`put_section`].
pub fn section(cx: &mut Context, x: &Tensor, from: usize, shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    check(cx, x, from, count)?;
    let offset = x.offset() + (from * x.dtype().bytes()) as u64;
    if offset.is_multiple_of(ALIGNMENT) || from == 0 {
        return Ok(Tensor::new(x.storage().clone(), offset, shape, x.dtype()));
    }
    let y = cx.output("section", shape, x.dtype())?;
    put_section(cx, (x, from), (&y, 0), count)?;
    Ok(y)
}

fn check(cx: &Context, x: &Tensor, from: usize, count: usize) -> Result<()> {
    if cx.needs_grad(x) {
        return Err(Error::Config(
            "sections have no gradient: they are for networks that are only run".into(),
        ));
    }
    if count == 0 || from.checked_add(count).is_none_or(|end| end > x.len()) {
        let what = format!("{count} elements from {from} on are not in x {:?}", x.shape());
        return Err(Error::shape("section", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, download, dtypes, gpu, rungs};

    #[test]
    fn sections_are_taken_and_put() {
        let x = Array::random(&[4, 5, 33], 1);
        for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
            // In whole packs and not, from where a binding may begin and from where not.
            for (from, to, count) in [(0, 0, 660), (128, 8, 256), (7, 3, 100), (256, 300, 40), (659, 0, 1)] {
                let mut cx = Context::new(gpu());
                cx.set_rung(rung);
                let (input, y) = (x.upload(&cx, dtype), Array::random(&[700], 2));
                let output = y.upload(&cx, dtype);
                let taken = section(&mut cx, &input, from, &[1, count]).unwrap();
                let taken = cx.copy(&taken).unwrap();
                let whole = cx.copy(&output).unwrap();
                put_section(&mut cx, (&input, from), (&whole, to), count).unwrap();
                cx.keep(&taken);
                cx.keep(&whole);
                let plan = cx.finish("sections").unwrap();
                plan.run().unwrap();
                let wanted = &x.data[from..from + count];
                let mut want = y.data.clone();
                want[to..to + count].copy_from_slice(wanted);
                assert_eq!(download(&plan, &taken).data, wanted, "{rung} {from}");
                assert_eq!(download(&plan, &whole).data, want, "{rung} {from} to {to}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let mut cx = Context::with_tape(gpu());
        let [x, y] = [[2, 3], [1, 4]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let error = section(&mut cx, &x, 4, &[3]).unwrap_err().to_string();
        assert_eq!(error, "section: 3 elements from 4 on are not in x [2, 3]");
        let error = put_section(&mut cx, (&x, 0), (&y, 2), 3).unwrap_err().to_string();
        assert_eq!(error, "section: 3 of F32 do not fit at 2 of y [1, 4] F32");
        cx.watch(&x);
        assert!(section(&mut cx, &x, 0, &[2]).unwrap_err().to_string().contains("no gradient"));
    }
}
