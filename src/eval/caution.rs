//! What measures of few pictures are worth, in words.
//!
//! A covariance of n pictures has rank n - 1 at most; FID is larger the fewer pictures there are, and numbers below 10,000
//! pictures are not those of more (Heusel et al., arXiv 1706.08500, section A1; Bińkowski et al., arXiv 1801.01401).

/// Pictures from which on FID hardly depends on their number any more.
const ENOUGH: usize = 10_000;

/// How much was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Pictures measured.
    pub pictures: usize,
    /// Those of the reference, where it says.
    pub reference: Option<usize>,
    /// Numbers of a picture's pooled features.
    pub pooled: usize,
    /// Those of its spatial features, where there is an sFID.
    pub spatial: Option<usize>,
    /// Splits of the inception score.
    pub splits: usize,
    /// Subsets of KID and the pictures in each, where there is a KID.
    pub subsets: Option<(usize, usize)>,
}

impl Measured {
    /// What makes a number say little or nothing, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let measures = [("FID", Some(self.pooled)), ("sFID", self.spatial)];
        let sets =
            [("the pictures are", Some(self.pictures)), ("those of the reference are", self.reference)];
        for (measure, dim) in measures {
            for (who, count) in sets {
                if let (Some(dim), Some(count)) = (dim, count)
                    && count <= dim
                {
                    warnings.push(format!(
                        "{measure}: {who} {count}, so their covariance of {dim} features is singular and the distance \
                         says little; {} pictures are the least",
                        dim + 1
                    ));
                }
            }
        }
        warnings
    }

    /// What to know before comparing, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let fewest = self.reference.map_or(self.pictures, |reference| reference.min(self.pictures));
        if fewest < ENOUGH {
            notes.push(format!(
                "FID of {fewest} pictures is larger than that of more: below {ENOUGH} compare only numbers of equally many"
            ));
        }
        if self.splits < 2 {
            notes.push(format!(
                "inception score: {} pictures are one split, so there is no deviation to tell",
                self.pictures
            ));
        }
        match self.subsets {
            Some((1, size)) => {
                notes.push(format!("KID: all {size} pictures are one subset, so there is no deviation to tell"));
            }
            Some((subsets, size)) => notes.push(format!(
                "KID: the deviation is that of {subsets} subsets of {size} pictures among themselves, not the error of \
                 their mean"
            )),
            None => {}
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Measured = Measured {
        pictures: 50_000,
        reference: Some(50_000),
        pooled: 2048,
        spatial: Some(2023),
        splits: 10,
        subsets: None,
    };

    #[test]
    fn few_pictures_are_warned_of_and_many_are_not() {
        assert!(MANY.warnings().is_empty() && MANY.notes().is_empty());
        let few = Measured { pictures: 2048, ..MANY };
        assert_eq!(few.warnings().len(), 1, "{:?}", few.warnings());
        assert!(few.warnings()[0].starts_with("FID: the pictures are 2048") && few.notes().len() == 1);
        assert!(Measured { pictures: 2049, ..MANY }.warnings().is_empty());
        let reference = Measured { reference: Some(100), ..MANY };
        assert_eq!(reference.warnings().len(), 2, "FID and sFID: {:?}", reference.warnings());
        assert!(reference.warnings().iter().all(|warning| warning.contains("reference are 100")));
        assert!(Measured { reference: None, ..MANY }.notes().is_empty());
        let below = |pictures| Measured { pictures, ..MANY }.notes().len();
        assert_eq!((below(9_999), below(10_000)), (1, 0));
    }

    #[test]
    fn deviations_are_told_for_what_they_are() {
        let alone = Measured { splits: 1, subsets: Some((1, 700)), ..MANY }.notes();
        assert!(alone[0].contains("one split") && alone[1].contains("all 700 pictures"), "{alone:?}");
        let some = Measured { subsets: Some((100, 1000)), ..MANY }.notes();
        assert!(some.len() == 1 && some[0].contains("100 subsets of 1000"), "{some:?}");
    }
}
