//! From pictures to numbers on the device: the small classifier, interrupted collections, statistics in files.

use std::cell::Cell;

use super::*;
use crate::data::Dataset;
use crate::error::Error;
use crate::io::NpzWriter;
use crate::shape::Extent;
use crate::testing::gpu;

/// Pictures to measure: a part and a bit, and as many on both sides, so that KID is of all at once.
const COUNT: usize = 700;

fn digits() -> Dataset {
    Dataset::open("digits", None).unwrap()
}

#[test]
fn a_classifier_learns_the_digits_and_an_evaluation_goes_on_after_an_interruption() {
    let (gpu, digits, dir) = (gpu(), digits(), tempfile::tempdir().unwrap());
    let network = train_classifier(gpu, &digits, 4096, 1, |_, _| Ok(())).unwrap();
    println!("accuracy {}", network.accuracy());
    assert!(network.accuracy() >= 0.9, "{}", network.accuracy());

    // A file holds all of it.
    let path = dir.path().join("classifier.safetensors");
    network.save(&path).unwrap();
    let again = PictureClassifier::load(gpu, &path).unwrap();
    assert_eq!((again.identity(), again.accuracy()), (network.identity(), network.accuracy()));

    // Stopped after the first part, then going on: the same bits as without.
    let straight =
        collect(&mut DataPictures::new(&digits, Some(COUNT)), &network, &dir.path().join("a"), |_, _| Ok(()));
    let straight = straight.unwrap();
    let stop = |done: usize, _| if done >= 512 { Err(Error::Interrupted) } else { Ok(()) };
    let parts = dir.path().join("b");
    let stopped = collect(&mut DataPictures::new(&digits, Some(COUNT)), &again, &parts, stop);
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let begun = Cell::new(None);
    let resumed = collect(&mut DataPictures::new(&digits, Some(COUNT)), &again, &parts, |done, _| {
        begun.set(begun.get().or(Some(done)));
        Ok(())
    });
    assert_eq!(begun.get(), Some(512));
    let resumed = resumed.unwrap();
    assert_eq!(resumed.features, straight.features);
    assert_eq!(resumed.pooled, straight.pooled);
    assert_eq!((resumed.features.len(), resumed.labels.as_deref()), (COUNT, Some(&digits.labels()[..COUNT])));

    // The digits are like themselves; through a file of statistics too.
    let reference = Reference::of(&straight, network.identity()).unwrap();
    let stats = dir.path().join("stats.npz");
    reference.save(&stats).unwrap();
    let loaded = Reference::load(&stats).unwrap();
    assert_eq!((&loaded.pooled, &loaded.features), (&reference.pooled, &reference.features));
    let report = measure(&resumed, network.identity(), &loaded, true, Measures::ALL).unwrap();
    println!("{report}");
    assert!(report.fid < 1e-6 && report.sfid.unwrap() < 1e-6 && report.kid.unwrap() < 1e-3, "{report:?}");
    assert_eq!((report.precision, report.recall), (Some(1.0), Some(1.0)));
    assert!(report.agreement.unwrap() > 0.9 && report.class_recall.unwrap().len() == 10);
    assert!((3.0..10.0).contains(&report.inception_score), "{}", report.inception_score);

    // One class repeated is far from all of them, has no recall to speak of, and says little.
    let path = dir.path().join("samples.npz");
    let mut writer = NpzWriter::create(&path, COUNT + 20, Extent::square(8)).unwrap();
    let zeros: Vec<usize> =
        (0..digits.len()).filter(|&i| digits.label(i) == 0).cycle().take(COUNT + 20).collect();
    for index in zeros {
        writer.push(&digits.decode(index).unwrap().pixels, 1, &[5]).unwrap();
    }
    writer.finish().unwrap();
    let mut pictures = NpzPictures::open(&path, Some(COUNT)).unwrap();
    let collected = collect(&mut pictures, &network, &dir.path().join("c"), |_, _| Ok(())).unwrap();
    let zeros = measure(&collected, network.identity(), &loaded, true, Measures::ALL).unwrap();
    println!("{zeros}");
    assert!(
        zeros.pictures == COUNT && zeros.fid > 100.0 * report.fid && zeros.inception_score < 1.5,
        "{zeros:?}"
    );
    assert!(zeros.recall.unwrap() < 0.2 && zeros.agreement.unwrap() < 0.1);

    // What does not compare is refused.
    let error = measure(&collected, "another network", &loaded, true, Measures::ALL).unwrap_err().to_string();
    assert!(error.contains("another network") && error.contains("nothing compares"), "{error}");
    let error = collect(&mut DataPictures::new(&digits, Some(9)), &network, &parts, |_, _| Ok(()));
    assert!(error.unwrap_err().to_string().contains("features of other pictures"));
    let wide = Dataset::open("digits", Some(Extent::square(9))).unwrap();
    let error =
        collect(&mut DataPictures::new(&wide, Some(9)), &network, &dir.path().join("d"), |_, _| Ok(()));
    assert!(error.unwrap_err().to_string().contains("this classifier takes 8x8"));
    assert!(Reference::load(&path).unwrap_err().to_string().contains("no mu and sigma"));
}
