//! Which rows of the class embedding a training reached, so that no sampler draws from one that it did not.

use serde::{Deserialize, Serialize};

/// The rows that a training could reach: by its probability of leaving labels out, and by the classes of its pictures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedRows {
    /// Whether labels were left out, so that the null class was learnt.
    pub null: bool,
    /// Whether labels were shown, so that classes were.
    pub classes: bool,
    /// Labels of classes without a picture, in order: their rows are as they were at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_pictures: Vec<u32>,
}

impl TrainedRows {
    /// The rows of a training on pictures of these `labels`, each below `classes`, that leaves labels out with
    /// `unconditional_probability`.
    pub fn of(labels: &[u32], classes: usize, unconditional_probability: f64) -> TrainedRows {
        let mut seen = vec![false; classes];
        for label in labels {
            if let Some(seen) = seen.get_mut(*label as usize) {
                *seen = true;
            }
        }
        TrainedRows {
            null: unconditional_probability > 0.0,
            classes: unconditional_probability < 1.0,
            without_pictures: (0..classes as u32).filter(|label| !seen[*label as usize]).collect(),
        }
    }

    /// The row of a class, or of the null class for `None`.
    pub fn has(&self, class: Option<u32>) -> bool {
        match class {
            None => self.null,
            Some(label) => self.classes && self.without_pictures.binary_search(&label).is_err(),
        }
    }

    /// What is here or in `other`: a student begins with its teacher's rows.
    pub fn or(&self, other: &TrainedRows) -> TrainedRows {
        let lacking = |rows: &TrainedRows, label: &u32| !rows.has(Some(*label));
        TrainedRows {
            null: self.null || other.null,
            classes: self.classes || other.classes,
            without_pictures: match (self.classes, other.classes) {
                (true, false) => self.without_pictures.clone(),
                (false, true) => other.without_pictures.clone(),
                _ => self.without_pictures.iter().copied().filter(|label| lacking(other, label)).collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_probability_and_pictures() {
        let rows = |p| TrainedRows::of(&[0, 2, 2], 4, p);
        assert_eq!(rows(0.1), TrainedRows { null: true, classes: true, without_pictures: vec![1, 3] });
        assert!(!rows(0.0).has(None) && rows(0.0).has(Some(2)) && !rows(0.0).has(Some(3)));
        assert!(rows(1.0).has(None) && !rows(1.0).has(Some(2)));
    }

    #[test]
    fn a_student_has_its_teachers_rows_too() {
        let teacher = TrainedRows::of(&[0, 1], 4, 0.1);
        let student = TrainedRows::of(&[1, 2], 4, 0.0).or(&teacher);
        assert_eq!(student, TrainedRows { null: true, classes: true, without_pictures: vec![3] });
        let unlabelled = TrainedRows::of(&[0, 1, 2, 3], 4, 1.0).or(&TrainedRows::of(&[1], 4, 0.0));
        assert_eq!(unlabelled, TrainedRows { null: true, classes: true, without_pictures: vec![0, 2, 3] });
    }
}
