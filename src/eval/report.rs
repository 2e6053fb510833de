//! All measures of a set of pictures against a reference.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::caution::Measured;
use super::store::Collected;
use super::{
    Features, Gaussian, NEIGHBOURS, Reference, class_recall, frechet_distance, kernel_distance,
    precision_recall,
};
use crate::error::{Error, Result};

/// Subsets and their size for KID.
const SUBSETS: (usize, usize) = (100, 1000);

/// The recall of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallOfClass {
    /// The class.
    pub class: u32,
    /// Its real and generated pictures.
    pub real: usize,
    /// Its generated pictures.
    pub generated: usize,
    /// From 0 to 1; nothing where there are too few pictures.
    pub recall: Option<f64>,
}

/// What was measured; what could not be is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Pictures measured.
    pub pictures: usize,
    /// The network whose features these are.
    pub features: String,
    /// The Fréchet distance of pooled features.
    pub fid: f64,
    /// That of spatial features.
    pub sfid: Option<f64>,
    /// The inception score: mean over splits of 5000.
    pub inception_score: f64,
    /// Its standard deviation over splits; nothing for one split.
    pub inception_score_deviation: Option<f64>,
    /// How many splits there are.
    pub inception_score_splits: usize,
    /// The kernel distance: mean over subsets.
    pub kid: Option<f64>,
    /// Its standard deviation over subsets, which is not the error of their mean; nothing for one subset.
    pub kid_deviation: Option<f64>,
    /// How many subsets there are, and the pictures in each.
    pub kid_subsets: Option<(usize, usize)>,
    /// Of generated pictures, the part within the real manifold.
    pub precision: Option<f64>,
    /// Of real pictures, the part within the generated manifold.
    pub recall: Option<f64>,
    /// Recall within each class.
    pub class_recall: Option<Vec<RecallOfClass>>,
    /// The part of pictures that the network takes for the class they were asked for.
    pub agreement: Option<f64>,
    /// What makes a number above say little or nothing, a sentence each.
    pub warnings: Vec<String>,
    /// What to know before comparing, a sentence each.
    pub notes: Vec<String>,
}

/// The part of pictures that are taken for the class of their label, both numbers of one list; nothing of no pictures.
pub fn agreement(labels: &[u32], taken_for: &[u32]) -> Option<f64> {
    let right = labels.iter().zip(taken_for).filter(|(label, taken)| label == taken).count();
    (!labels.is_empty()).then(|| right as f64 / labels.len() as f64)
}

/// Which measures to take beside FID, sFID, inception score and agreement, which cost little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// KID.
    pub kernel: bool,
    /// Precision and recall.
    pub manifold: bool,
    /// Recall within each class.
    pub classes: bool,
}

impl Measures {
    /// All there are.
    pub const ALL: Measures = Measures { kernel: true, manifold: true, classes: true };
}

/// Measures pictures against a reference. `same_classes` says that the network's classes are the pictures' own, so that
/// agreement means something.
///
/// # Errors
/// [`Error::Config`] when the reference is of another network, or there are too few pictures.
pub fn measure(
    collected: &Collected,
    network: &str,
    reference: &Reference,
    same_classes: bool,
    measures: Measures,
) -> Result<Report> {
    if let Some(other) = reference.network.as_ref().filter(|other| *other != network) {
        return Err(Error::Config(format!(
            "the reference is of another network, so nothing compares:\n  reference: {other}\n  pictures: {network}"
        )));
    }
    let fid = frechet_distance(&reference.pooled, &collected.pooled.gaussian()?)?;
    let spatial =
        reference.spatial.as_ref().map(|spatial| frechet_distance(spatial, &collected.spatial.gaussian()?));
    let score = collected.score.score()?;
    let real = reference.features.as_ref();
    let kid = real
        .filter(|_| measures.kernel)
        .map(|real| kernel_distance(real, &collected.features, SUBSETS.0, SUBSETS.1, 0))
        .transpose()?;
    // A manifold needs more pictures than neighbours.
    let enough =
        real.filter(|real| measures.manifold && real.len().min(collected.features.len()) > NEIGHBOURS);
    let both = enough.map(|real| precision_recall(real, &collected.features, NEIGHBOURS)).transpose()?;
    let classes = match (real, &reference.labels, &collected.labels) {
        (Some(real), Some(real_labels), Some(labels)) if measures.classes => {
            let classes = real_labels.iter().chain(labels).filter(|&&label| label < 1 << 20).max();
            let classes = classes.map_or(0, |&class| class + 1);
            let recalls =
                class_recall((real, real_labels), (&collected.features, labels), classes, NEIGHBOURS)?;
            Some(
                recalls
                    .into_iter()
                    .map(|one| RecallOfClass {
                        class: one.class,
                        real: one.real,
                        generated: one.generated,
                        recall: one.recall,
                    })
                    .collect(),
            )
        }
        _ => None,
    };
    let agreement = collected
        .labels
        .as_ref()
        .filter(|_| same_classes)
        .and_then(|labels| agreement(labels, &collected.taken_for));
    let measured = Measured {
        pictures: collected.features.len(),
        reference: real.map(Features::len),
        pooled: reference.pooled.dim(),
        spatial: reference.spatial.as_ref().map(Gaussian::dim),
        splits: score.splits,
        subsets: kid.map(|kid| (kid.subsets, kid.size)),
    };
    Ok(Report {
        pictures: collected.features.len(),
        features: network.to_owned(),
        fid,
        sfid: spatial.transpose()?,
        inception_score: score.mean,
        inception_score_deviation: (score.splits > 1).then_some(score.deviation),
        inception_score_splits: score.splits,
        kid: kid.map(|kid| kid.mean),
        kid_deviation: kid.filter(|kid| kid.subsets > 1).map(|kid| kid.deviation),
        kid_subsets: measured.subsets,
        precision: both.map(|both| both.precision),
        recall: both.map(|both| both.recall),
        class_recall: classes,
        agreement,
        warnings: measured.warnings(),
        notes: measured.notes(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pictures, features: {}", self.pictures, self.features)?;
        writeln!(f, "FID              {:.4}", self.fid)?;
        if let Some(sfid) = self.sfid {
            writeln!(f, "sFID             {sfid:.4}")?;
        }
        write!(f, "inception score  {:.4}", self.inception_score)?;
        match self.inception_score_deviation {
            Some(deviation) => writeln!(
                f,
                " ± {deviation:.4} (standard deviation of {} splits)",
                self.inception_score_splits
            )?,
            None => writeln!(f, " (of one split)")?,
        }
        if let (Some(kid), Some((subsets, size))) = (self.kid, self.kid_subsets) {
            write!(f, "KID              {kid:.6}")?;
            match self.kid_deviation {
                Some(deviation) => writeln!(
                    f,
                    " ± {deviation:.6} (standard deviation of {subsets} subsets of {size} pictures)"
                )?,
                None => writeln!(f, " (of one subset)")?,
            }
        }
        if let (Some(precision), Some(recall)) = (self.precision, self.recall) {
            writeln!(f, "precision        {precision:.4}\nrecall           {recall:.4}")?;
        }
        if let Some(agreement) = self.agreement {
            writeln!(f, "class agreement  {agreement:.4}")?;
        }
        for one in self.class_recall.iter().flatten() {
            let recall = one.recall.map_or("too few pictures".into(), |recall| format!("{recall:.4}"));
            writeln!(
                f,
                "recall of class {:<4} {recall}  ({} real, {} generated)",
                one.class, one.real, one.generated
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
