use super::*;
use crate::nn::UNetConfig;
use crate::nn::unet::tests::small;

/// Four classes, null class and trained rows as given.
fn conditions(null: Null, untrained: &[u32]) -> Conditions {
    let names = ["ant", "bee", "cat", "dog"].map(String::from).to_vec();
    let (pieces, untrained) = (Vec::new(), untrained.to_vec());
    let (vector, in_parts, told_weight) = (0, None, false);
    Conditions { classes: 4, tokens: 0, vector, pieces, null, in_parts, untrained, names, told_weight }
}

fn refused(result: Result<()>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_row_that_is_asked_for_is_there_and_trained() {
    use Evaluations::{Both, Conditional, Unconditional};
    let all = conditions(Null::Trained, &[]);
    for (classes, evaluations) in
        [(vec![Some(3), None], Both), (vec![None], Unconditional), (vec![Some(0)], Conditional)]
    {
        all.check(classes, evaluations, false).unwrap();
    }
    for null in [Null::Absent, Null::Untrained] {
        let without = conditions(null, &[]);
        without.check([Some(0), Some(3)], Conditional, false).unwrap();
        without.check([Some(0)], Both, true).unwrap();
        for (class, evaluations, elsewhere) in [
            (None, Conditional, false),
            (None, Both, true),
            (Some(1), Both, false),
            (Some(1), Unconditional, false),
        ] {
            let message = refused(without.check([class], evaluations, elsewhere));
            for way in ["null class", "`w` 0", "uncond-model", "from-classes", "label dropout"] {
                assert!(message.contains(way), "{class:?} {evaluations:?}: {message}");
            }
            assert_eq!(message.contains("null-class last"), null == Null::Absent, "{message}");
        }
    }
    // Past the last, at any guidance.
    for evaluations in [Both, Conditional, Unconditional] {
        for class in [4, u32::MAX] {
            let message = refused(all.check([Some(0), Some(class)], evaluations, false));
            assert!(
                message.contains(&format!("no class {class}")) && message.contains("0 to 3"),
                "{message}"
            );
        }
    }
    let some = conditions(Null::Trained, &[2]);
    some.check([Some(2)], Unconditional, false).unwrap();
    assert!(refused(some.check([Some(0), Some(2)], Conditional, false)).contains("2 (cat)"));
    assert!(refused(some.check_guidance("distillation")).contains("2 (cat)"));
    let none = conditions(Null::Trained, &[0, 1, 2, 3]);
    assert!(refused(none.check([Some(1)], Both, false)).contains("without labels"));
    none.check([None], Unconditional, false).unwrap();
    assert!(all.can_guide() && some.can_guide() && !none.can_guide());
    assert!(!conditions(Null::Absent, &[]).can_guide());
}

#[test]
fn a_network_without_classes_takes_none() {
    let unet = UNetConfig { num_classes: None, null_class: NullClass::Absent, ..small() };
    let none = Conditions::of_network(&unet.takes());
    none.check([None], Evaluations::Both, false).unwrap();
    none.check([None], Evaluations::Unconditional, false).unwrap();
    assert!(refused(none.check([Some(0)], Evaluations::Both, false)).contains("without classes"));
    assert!(!none.can_guide());
}

#[test]
fn the_default_is_one_that_the_model_can_do() {
    let default = |null| conditions(null, &[]).default_guidance().unwrap();
    assert_eq!(default(Null::Trained).0.weight(), 1.0);
    for null in [Null::Absent, Null::Untrained] {
        let (guidance, note) = default(null);
        conditions(null, &[]).check([Some(0)], guidance.evaluations(), false).unwrap();
        assert!(note.unwrap().contains("w = 0"));
    }
}
