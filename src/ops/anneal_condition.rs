//! Noise on the embedding of a condition: CADS (Sadat et al., arXiv 2310.17347), as
//! [`Annealing`](crate::diffusion::guiders::Annealing) has it, which is the reference. No gradient: sampling alone uses it.

use bytemuck::{Pod, Zeroable};

use super::noised::{expect, table};
use crate::diffusion::guiders::{Annealing, Moment};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "anneal_condition";

use Access::{Read, Write};

const ANNEAL: Kernel =
    Kernel::new(OP, wgsl!("anneal_condition"), "anneal", &[Read, Read, Read, Read, Read, Read, Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    samples: u32,
    width: u32,
    steps: u32,
    null_label: u32,
    stream: u32,
    mix: f32,
    pad: u32,
}

/// What the noise on a condition is a function of.
#[derive(Clone, Copy, Debug)]
pub struct AnnealCondition<'a> {
    /// How much of it, step by step.
    pub annealing: Annealing,
    /// `[T, 2]` f32 of [`annealing_table`].
    pub table: &'a Tensor,
    /// `[1]` u32: the step.
    pub counter: &'a Tensor,
    /// `[N, 2]` u32: low and high half of each sample's seed.
    pub seeds: &'a Tensor,
    /// The label that says "no condition", whose embedding stays as it is.
    pub null_label: u32,
}

/// `[T, 2]`: what stays of an embedding, and how much noise is added, at each of a sampler's steps.
pub fn annealing_rows(annealing: &Annealing, steps: &[Moment]) -> Vec<f32> {
    let row = |at| {
        let kept = annealing.kept(at);
        [kept.sqrt() as f32, (annealing.scale * (1.0 - kept).sqrt()) as f32]
    };
    steps.iter().flat_map(row).collect()
}

/// The same on the device.
pub fn annealing_table(cx: &Context, annealing: &Annealing, steps: &[Moment]) -> Result<Tensor> {
    cx.constant_f32("annealing", &[steps.len(), 2], &annealing_rows(annealing, steps))
}

/// The embeddings `y` `[K·N, D]` f32 with noise on all but those of the null class; `labels` `[K·N]` u32 are whose they
/// are, the first condition of all samples first. A sample's conditions share its noise.
///
/// # Errors
/// [`Error::Shape`] when tensors do not fit or 4 does not divide D; [`Error::Config`] when a gradient would be wanted.
pub fn anneal_condition(
    cx: &mut Context,
    y: &Tensor,
    labels: &Tensor,
    with: AnnealCondition<'_>,
) -> Result<Tensor> {
    let (&[rows, width], &[samples, _]) = (y.shape(), with.seeds.shape()) else {
        let what = format!(
            "expected embeddings [K·N, D] and seeds [N, 2], got {:?} and {:?}",
            y.shape(),
            with.seeds.shape()
        );
        return Err(Error::shape(OP, what));
    };
    if !width.is_multiple_of(4) || samples == 0 || !rows.is_multiple_of(samples) {
        let what = format!("embeddings {:?} of {samples} samples, D divisible by 4", y.shape());
        return Err(Error::shape(OP, what));
    }
    let steps = with.table.shape()[0];
    expect(OP, "y", y, y.shape(), DType::F32)?;
    expect(OP, "labels", labels, &[rows], DType::U32)?;
    expect(OP, "seeds", with.seeds, &[samples, 2], DType::U32)?;
    expect(OP, "counter", with.counter, &[1], DType::U32)?;
    expect(OP, "table", with.table, &[steps.max(1), 2], DType::F32)?;
    if cx.needs_grad(y) {
        return Err(Error::Config("anneal_condition has no gradient: it is for sampling".into()));
    }
    let normals = table(cx)?;
    let out = cx.output("annealed condition", &[rows, width], DType::F32)?;
    let params = Params {
        rows: rows as u32,
        samples: samples as u32,
        width: width as u32,
        steps: steps as u32,
        null_label: with.null_label,
        stream: Stream::ConditionNoise as u32,
        mix: with.annealing.mix as f32,
        pad: 0,
    };
    let launch = cx.launch(&ANNEAL).bind(y).bind(labels).bind(with.seeds).bind(with.counter);
    launch.bind(with.table).bind(&normals).bind(&out).params(&params).over_groups(rows);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::Guiders;
    use crate::random::{normal, words};
    use crate::testing::{Array, forward, gpu};

    #[test]
    fn agrees_with_the_reference() {
        let (samples, conditions, width, null) = (3, 3, 36, 7);
        let moments: Vec<Moment> = (0..9).map(|step| Moment { step, steps: 9, log_snr: 0.0 }).collect();
        let y = Array::random(&[samples * conditions, width], 1);
        let labels = [0, 7, 2, 3, 7, 7, 1, 1, 4];
        let seeds: [u64; 3] = [5, 1 << 40, u64::MAX];
        let halves: Vec<u32> = seeds.iter().flat_map(|seed| [*seed as u32, (seed >> 32) as u32]).collect();
        // All noise, between, whole; and past the table's end, which counts as its last row.
        for (step, text) in [
            (0, "annealing(s=0.4,psi=0.7)"),
            (2, "annealing(t1=0.2,t2=0.9,s=0.4)"),
            (3, "annealing(t1=0.3,t2=0.8,s=2,psi=0)"),
            (8, "annealing()"),
            (11, "annealing(t1=0,t2=0.5)"),
        ] {
            let annealing = text.parse::<Guiders>().unwrap().annealing().unwrap();
            let mut cx = Context::new(gpu());
            let table = annealing_table(&cx, &annealing, &moments).unwrap();
            let y_ = y.upload(&cx, DType::F32);
            let labels_ = cx.constant_u32("labels", &[9], &labels).unwrap();
            let seeds_ = cx.constant_u32("seeds", &[3, 2], &halves).unwrap();
            let counter = cx.constant_u32("counter", &[1], &[step]).unwrap();
            let with = AnnealCondition {
                annealing,
                table: &table,
                counter: &counter,
                seeds: &seeds_,
                null_label: null,
            };
            let got = anneal_condition(&mut cx, &y_, &labels_, with).unwrap();
            let got = forward(&[y_, labels_, seeds_, counter], cx, &got);

            let step = step.min(8);
            let mut want = Vec::new();
            for row in 0..samples * conditions {
                let own: Vec<f64> = y.data[row * width..][..width].iter().map(|y| f64::from(*y)).collect();
                let of = |block| words(seeds[row % samples], block, step.into(), Stream::ConditionNoise);
                let noise: Vec<f64> = (0..width as u32 / 4)
                    .flat_map(|block| of(block).map(|word| f64::from(normal(word))))
                    .collect();
                let changed = if labels[row] == null {
                    own
                } else {
                    annealing.apply(&moments[step as usize], &own, &noise)
                };
                want.extend(changed.iter().map(|x| *x as f32));
            }
            got.check_absolute(text, &Array::new(&[samples * conditions, width], want), 3e-6);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let annealing = "annealing()".parse::<Guiders>().unwrap().annealing().unwrap();
        let mut cx = Context::with_tape(gpu());
        let moments = [Moment { step: 0, steps: 1, log_snr: 0.0 }];
        let table = annealing_table(&cx, &annealing, &moments).unwrap();
        let [y, odd, three] =
            [[4, 8], [4, 6], [3, 8]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let labels = cx.constant_u32("labels", &[4], &[0; 4]).unwrap();
        let seeds = cx.constant_u32("seeds", &[2, 2], &[0; 4]).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
        let with =
            AnnealCondition { annealing, table: &table, counter: &counter, seeds: &seeds, null_label: 9 };
        for wrong in [&odd, &three] {
            let error = anneal_condition(&mut cx, wrong, &labels, with).unwrap_err();
            assert!(error.to_string().contains("of 2 samples, D divisible by 4"), "{error}");
        }
        cx.watch(&y);
        let error = anneal_condition(&mut cx, &y, &labels, with).unwrap_err();
        assert!(error.to_string().contains("gradient"), "{error}");
    }
}
