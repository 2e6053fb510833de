//! The measures against numpy and scipy on the same features; `tests/fixtures/eval.py` made the numbers.

use std::collections::BTreeMap;

use super::*;
use crate::io::SafetensorsFile;

struct Reference {
    file: SafetensorsFile,
    numbers: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Reference {
    fn open() -> Reference {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval.safetensors");
        let file = SafetensorsFile::open(&path).unwrap();
        let numbers = serde_json::from_str(&file.metadata()["numbers"]).unwrap();
        Reference { file, numbers }
    }

    fn features(&self, name: &str) -> Features {
        let (shape, values) = self.file.to_f32(name).unwrap();
        Features { dim: shape[1], values }
    }
}

fn gaussian(features: &Features) -> Gaussian {
    let mut moments = Moments::new(features.dim);
    // In uneven pieces, as they come.
    for rows in features.values.chunks(7 * features.dim) {
        moments.push(rows).unwrap();
    }
    moments.gaussian().unwrap()
}

/// To four digits of the reference, or of 1e-4 where it is 0.
#[track_caller]
fn close(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-4 * want.abs().max(1e-3), "{what}: {got}, the reference has {want}");
}

#[test]
fn every_measure_agrees_with_numpy_and_scipy() {
    let reference = Reference::open();
    let mut pairs = 0;
    for (names, want) in reference.numbers.iter().filter(|(names, _)| !names.starts_with("is ")) {
        let (a, b) = names.split_once(' ').unwrap();
        let (real, fake) = (reference.features(a), reference.features(b));
        let fid = frechet_distance(&gaussian(&real), &gaussian(&fake)).unwrap();
        close(&format!("FID of {names}"), fid, want["fid"]);
        close(&format!("FID of {names}, by eigenvalues"), fid, want["fid_eigen"]);
        let got = precision_recall(&real, &fake, NEIGHBOURS).unwrap();
        close(&format!("precision of {names}"), got.precision, want["precision"]);
        close(&format!("recall of {names}"), got.recall, want["recall"]);
        close(&format!("KID of {names}"), squared_discrepancy(&real, &fake).unwrap(), want["kid"]);
        if real.len() == fake.len() {
            let whole = kernel_distance(&real, &fake, 5, 1000, 1).unwrap();
            close(&format!("KID of the whole of {names}"), whole.mean, want["kid"]);
        }
        pairs += 1;
    }
    assert_eq!(pairs, 6);
}

#[test]
fn a_covariance_does_not_depend_on_how_pictures_come() {
    let reference = Reference::open();
    let real = reference.features("real");
    let pieces = gaussian(&real);
    let mut whole = Moments::new(real.dim);
    whole.push(&real.values).unwrap();
    let whole = whole.gaussian().unwrap();
    let (_, mean) = reference.file.to_f32("real_mean").unwrap();
    let (_, covariance) = reference.file.to_f32("real_covariance").unwrap();
    let all = |gaussian: &Gaussian| [&gaussian.mean[..], &gaussian.covariance].concat();
    for ((pieces, whole), want) in all(&pieces).iter().zip(all(&whole)).zip(mean.iter().chain(&covariance)) {
        assert!((pieces - whole).abs() < 1e-13, "{pieces} and {whole}");
        assert!((pieces - f64::from(*want)).abs() < 1e-6, "{pieces}, numpy has {want}");
    }
}

#[test]
fn inception_scores_agree_and_splits_count_alike() {
    let reference = Reference::open();
    let (shape, probabilities) = reference.file.to_f32("probabilities").unwrap();
    for split in [5000, 50] {
        let mut score = InceptionScore::new(shape[1], split);
        probabilities.chunks(11 * shape[1]).for_each(|rows| score.push(rows).unwrap());
        let (got, want) = (score.score().unwrap(), &reference.numbers[&format!("is {split}")]);
        close(&format!("IS in splits of {split}"), got.mean, want["mean"]);
        close(&format!("its deviation in splits of {split}"), got.deviation, want["deviation"]);
    }
    // Sure and even: as many as there are classes. Always the same: 1.
    let mut even = InceptionScore::new(4, 5000);
    (0..4).for_each(|class| {
        even.push(&std::array::from_fn::<f32, 4, _>(|i| f32::from(u8::from(i == class)))).unwrap()
    });
    assert!((even.score().unwrap().mean - 4.0).abs() < 1e-12);
    let mut one = InceptionScore::new(2, 5000);
    (0..3).for_each(|_| one.push(&[0.75, 0.25]).unwrap());
    assert!((one.score().unwrap().mean - 1.0).abs() < 1e-12);
    assert!(InceptionScore::new(2, 5000).score().is_err());
}

#[test]
fn kernel_distances_of_subsets_scatter_around_that_of_all() {
    let reference = Reference::open();
    let (real, fake) = (reference.features("real"), reference.features("fake"));
    let all = squared_discrepancy(&real, &fake).unwrap();
    let some = kernel_distance(&real, &fake, 40, 100, 7).unwrap();
    let error = some.deviation / 40f64.sqrt();
    assert!(some.deviation > 0.0 && (some.mean - all).abs() < 4.0 * error, "{some:?} around {all}");
    assert_eq!(some, kernel_distance(&real, &fake, 40, 100, 7).unwrap());
    assert_ne!(some, kernel_distance(&real, &fake, 40, 100, 8).unwrap());
}

#[test]
fn recall_of_a_class_is_that_of_its_pictures_alone() {
    let reference = Reference::open();
    let (real, fake) = (reference.features("real"), reference.features("fake"));
    let labels = |count: usize| -> Vec<u32> { (0..count).map(|i| if i % 5 == 0 { 1 } else { 0 }).collect() };
    let (mut real_labels, fake_labels) = (labels(real.len()), labels(fake.len()));
    real_labels[0] = 2;
    let recalls = class_recall((&real, &real_labels), (&fake, &fake_labels), 3, 3).unwrap();
    let of = |features: &Features, labels: &[u32]| {
        features.take(&(0..labels.len()).filter(|&i| labels[i] == 1).collect::<Vec<_>>())
    };
    let alone = precision_recall(&of(&real, &real_labels), &of(&fake, &fake_labels), 3).unwrap();
    assert_eq!(recalls[1].recall, Some(alone.recall));
    assert_eq!((recalls[1].real, recalls[1].generated), (79, 60));
    assert_eq!((recalls[2].recall, recalls[2].real, recalls[2].generated), (None, 1, 0));
    assert!(class_recall((&real, &real_labels[1..]), (&fake, &fake_labels), 3, 3).is_err());
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let some =
        |dim: usize, n: usize| Features { dim, values: (0..dim * n).map(|i| (i % 7) as f32).collect() };
    let error = frechet_distance(&gaussian(&some(3, 5)), &gaussian(&some(4, 5))).unwrap_err().to_string();
    assert!(error.contains("features of 3 numbers, the other of 4"), "{error}");
    assert!(precision_recall(&some(3, 3), &some(3, 9), 3).unwrap_err().to_string().contains("there are 3"));
    assert!(precision_recall(&some(3, 9), &some(2, 9), 3).is_err());
    assert!(kernel_distance(&some(3, 1), &some(3, 9), 10, 100, 0).is_err());
    let mut moments = Moments::new(2);
    assert!(moments.push(&[1.0, 2.0, 3.0]).is_err());
    let error = moments.push(&[1.0, 2.0, f32::NAN, 3.0]).unwrap_err().to_string();
    assert!(error.contains("feature 0 of picture 1 is NaN"), "{error}");
    moments.push(&[1.0, 2.0]).unwrap();
    assert!(moments.gaussian().unwrap_err().to_string().contains("there are 1"));
}
