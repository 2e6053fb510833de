//! Rows of a learned table.  y[n] = table[index[n]],  dtable[r] = Σ_{n: index[n] = r} dy[n].
//!
//! table `[R, D]` f32, index `[N]` u32, y `[N, D]` f32. An index outside of the table gives zeros and no gradient, so
//! that "no label" can be said without a row for it.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const LOOKUP: Kernel =
    Kernel::new("embedding", wgsl!("embedding"), "lookup", &[Access::Read, Access::Read, Access::Write]);
const GRADIENT: Kernel = Kernel::new(
    "embedding_backward",
    wgsl!("embedding"),
    "gradient",
    &[Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    count: u32,
    accumulate: u32,
}

/// `y[n] = table[indices[n]]`.
///
/// # Errors
/// [`Error::Shape`] unless the table is `[R, D]` of f32 and the indices `[N]` of u32.
pub fn embedding(cx: &mut Context, table: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let (&[rows, width], &[count]) = (table.shape(), indices.shape()) else {
        let what = format!(
            "expected a table [R, D] and indices [N], got {:?}, {:?}",
            table.shape(),
            indices.shape()
        );
        return Err(Error::shape("embedding", what));
    };
    if table.dtype() != DType::F32 || indices.dtype() != DType::U32 {
        let what = format!(
            "the table must be F32 and the indices U32, got {:?}, {:?}",
            table.dtype(),
            indices.dtype()
        );
        return Err(Error::shape("embedding", what));
    }
    let y = cx.output("embedding", &[count, width], DType::F32)?;
    let params = Params { rows: rows as u32, width: width as u32, count: count as u32, accumulate: 0 };
    cx.launch(&LOOKUP).bind(table).bind(indices).bind(&y).params(&params).over(y.len(), 64);
    cx.backward(&y, &[table], {
        let (table, indices) = (table.clone(), indices.clone());
        move |cx, dy| {
            if let Some(dtable) = cx.grad_target(&table)? {
                let params = Params { accumulate: dtable.flag(), ..params };
                let launch = cx.launch(&GRADIENT).bind(dy).bind(&indices).bind(&dtable.tensor);
                launch.params(&params).over(table.len(), 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, Golden, check_gradients, forward_backward, gpu};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        let [w, idx, gy] = ["w", "idx", "gy"].map(|name| golden.array(&format!("embedding.a.{name}")));
        let (y, grads) = forward_backward(DType::F32, &[w], &gy, |cx, x| {
            let indices = idx.upload(cx, DType::U32);
            embedding(cx, &x[0], &indices)
        });
        golden.check("embedding.a.y", &y, DType::F32);
        golden.check("embedding.a.dw", &grads[0], DType::F32);
    }

    #[test]
    fn an_index_outside_of_the_table_gives_zeros_and_no_gradient() {
        let (table, gy) = (Array::random(&[4, 5], 1), Array::random(&[3, 5], 2));
        let (y, grads) = forward_backward(DType::F32, std::slice::from_ref(&table), &gy, |cx, x| {
            let indices = cx.constant_u32("indices", &[3], &[4, 3, u32::MAX])?;
            embedding(cx, &x[0], &indices)
        });
        assert_eq!(y.data, [[0.0; 5].as_slice(), &table.data[15..], &[0.0; 5]].concat());
        assert_eq!(grads[0].data, [[0.0; 15].as_slice(), &gy.data[5..10]].concat());
    }

    #[test]
    fn gradients_accumulate() {
        check_gradients(&[Array::random(&[6, 7], 1)], |cx, x| {
            let some = cx.constant_u32("indices", &[4], &[2, 5, 2, 0])?;
            let others = cx.constant_u32("indices", &[4], &[1, 2, 5, 5])?;
            let (some, others) = (embedding(cx, &x[0], &some)?, embedding(cx, &x[0], &others)?);
            crate::ops::add(cx, &some, &others, 1.0)
        });
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let table = Array::random(&[4, 5], 1).upload(&cx, DType::F32);
        let floats = Array::random(&[3], 1).upload(&cx, DType::F32);
        assert!(embedding(&mut cx, &table, &floats).unwrap_err().to_string().contains("U32"));
        assert!(embedding(&mut cx, &table, &table).unwrap_err().to_string().contains("[4, 5]"));
    }
}
