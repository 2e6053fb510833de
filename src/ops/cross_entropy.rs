//! Cross-entropy.  l_n = log Σ_k e^{x[n,k]} - x[n, label],  loss = weight·Σ_n l_n,  dx = dloss·weight·(softmax(x) - onehot).
//!
//! Logits `[N, K]` f32, labels `[N]` u32; a label of K or more leaves its sample out. With weight -s the gradient is that of
//! s·log p(label given x), which guides a sampler.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const OP: &str = "cross_entropy";

const ROWS: Kernel = Kernel::new(OP, wgsl!("cross_entropy"), "rows", &[Read, Read, Write]);
const TOTAL: Kernel =
    Kernel::new("cross_entropy_total", wgsl!("cross_entropy"), "total", &[Read, Write, Write]);
const GRADIENT: Kernel = Kernel::new(
    "cross_entropy_backward",
    wgsl!("cross_entropy"),
    "gradient",
    &[Read, Read, Read, Read, Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    classes: u32,
    accumulate: u32,
    weight: f32,
}

/// What comes of a batch.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// `[1]` f32; has gradients.
    pub loss: Tensor,
    /// `[N]` f32, in nats, without the weight.
    pub per_sample: Tensor,
    /// `[N, 4]` f32: the sample's loss, 1 where the largest logit is the label's, log Σ e^x, 0.
    pub terms: Tensor,
}

/// Records the cross-entropy of `logits` and `labels`, `weight` being 1/N for a mean.
///
/// # Errors
/// [`Error::Shape`] when they are not `[N, K]` f32 and `[N]` u32.
pub fn cross_entropy(
    cx: &mut Context,
    logits: &Tensor,
    labels: &Tensor,
    weight: f32,
) -> Result<CrossEntropy> {
    let &[samples @ (1..), classes @ (1..)] = logits.shape() else {
        return Err(Error::shape(OP, format!("expected logits [N, K], got {:?}", logits.shape())));
    };
    expect(OP, "logits", logits, &[samples, classes], DType::F32)?;
    expect(OP, "labels", labels, &[samples], DType::U32)?;
    let params = Params { samples: samples as u32, classes: classes as u32, accumulate: 0, weight };
    let terms = cx.output("cross entropy terms", &[samples, 4], DType::F32)?;
    let per_sample = cx.output("cross entropy per sample", &[samples], DType::F32)?;
    let loss = cx.output("cross entropy", &[1], DType::F32)?;
    cx.launch(&ROWS).bind(logits).bind(labels).bind(&terms).params(&params).over(samples, 64);
    cx.launch(&TOTAL).bind(&terms).bind(&per_sample).bind(&loss).params(&params).over_groups(1);
    cx.backward(&loss, &[logits], {
        let [logits, labels, terms] = [logits, labels, &terms].map(Tensor::clone);
        move |cx, dloss| {
            if let Some(d) = cx.grad_target(&logits)? {
                let params = Params { accumulate: d.flag(), ..params };
                let launch = cx.launch(&GRADIENT).bind(&logits).bind(&labels).bind(&terms).bind(dloss);
                launch.bind(&d.tensor).params(&params).over(logits.len(), 64);
            }
            Ok(())
        }
    });
    Ok(CrossEntropy { loss, per_sample, terms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, Golden, check_gradients, download, forward_backward, gpu};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        let x = golden.array("cross_entropy.a.x");
        let labels: Vec<u32> = golden.f64s("cross_entropy.a.label").into_iter().map(|y| y as u32).collect();
        let gy = golden.array("cross_entropy.a.gy").reshape(&[1]);
        let (y, grads) = forward_backward(DType::F32, &[x], &gy, |cx, x| {
            let labels = cx.constant_u32("labels", &[4], &labels)?;
            Ok(cross_entropy(cx, &x[0], &labels, 0.25)?.loss)
        });
        let want = golden.array("cross_entropy.a.y").reshape(&[1]);
        y.check("y", &want, DType::F32);
        golden.check("cross_entropy.a.dx", &grads[0], DType::F32);
    }

    #[test]
    fn gradients_are_those_of_differences() {
        check_gradients(&[Array::random(&[70, 33], 1)], |cx, x| {
            // The last two are left out.
            let labels: Vec<u32> = (0..70).map(|n| n * 7 % 35).collect();
            let labels = cx.constant_u32("labels", &[70], &labels)?;
            Ok(cross_entropy(cx, &x[0], &labels, -0.3)?.loss)
        });
    }

    #[test]
    fn large_logits_and_hits() {
        let mut cx = Context::new(gpu());
        let x = cx.constant_f32("x", &[3, 3], &[1e4, 0.0, -1e4, -300.0, 2.0, 1.0, 5.0, 5.5, 4.0]).unwrap();
        let labels = cx.constant_u32("labels", &[3], &[0, 2, 9]).unwrap();
        let found = cross_entropy(&mut cx, &x, &labels, 1.0).unwrap();
        cx.keep(&found.terms);
        let plan = cx.finish("cross entropy").unwrap();
        plan.run().unwrap();
        let terms = download(&plan, &found.terms).data;
        let second = (1.0 + f32::exp(-1.0)).ln() + 1.0;
        assert_eq!((terms[0], terms[1], terms[5], terms[8], terms[9]), (0.0, 1.0, 0.0, 0.0, 0.0));
        assert!((terms[4] - second).abs() < 1e-6, "{terms:?}");
        let mut cx = Context::new(gpu());
        let error = cross_entropy(&mut cx, &x, &x, 1.0).unwrap_err().to_string();
        assert!(error.contains("labels must be [3] U32"), "{error}");
    }
}
