//! Names of classes: which class a name means, and whether two lists mean the same.

use crate::error::{Error, Result, brief, one_line};

use super::imagenet;

/// The label of a class of these names; see `ModelConfig::class`.
pub(super) fn class_called(names: &[String], wanted: &str) -> Result<u32> {
    if let Ok(label) = wanted.parse::<u32>()
        && !names.iter().any(|name| name == wanted)
        && (label as usize) < names.len()
    {
        return Ok(label);
    }
    // The nearest way of being called so goes first: the whole name, the first of several, any of them.
    let wanted = wanted.trim();
    let called = |is: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|label| is(&names[*label])).collect()
    };
    let first =
        |name: &str| name.split(',').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(wanted));
    let any = |name: &str| name.split(',').any(|name| name.trim().eq_ignore_ascii_case(wanted));
    let ways = [called(&|name| name == wanted && !name.is_empty()), called(&first), called(&any)];
    let found = ways.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found[..] {
        [label] => Ok(label as u32),
        [] => Err(Error::Config(format!(
            "there is no class {wanted:?}; there are {} classes: {}",
            names.len(),
            listed(names),
            wanted = brief(wanted)
        ))),
        _ => {
            let names = found.iter().map(|label| format!("{label} ({})", one_line(&names[*label])));
            Err(Error::Config(format!(
                "several classes are called {wanted:?}; give the number: {}",
                names.collect::<Vec<_>>().join("; "),
                wanted = brief(wanted)
            )))
        }
    }
}

/// A few names, or the first and how to see the others.
fn listed(names: &[String]) -> String {
    match names.len() {
        0..=100 => names.iter().map(|name| brief(name).to_string()).collect::<Vec<_>>().join(", "),
        more => format!(
            "0 to {}, the first {:?}; `freeguide info MODEL --classes` lists them",
            more - 1,
            brief(&names[0])
        ),
    }
}

/// Refuses two lists of classes, of `ours` and `theirs`, that do not mean the same by the same numbers. With `fewer` theirs may
/// end sooner. Where one list has numbers for names there is nothing to compare; then a sentence says so.
///
/// # Errors
/// [`Error::Config`] with the first two names that differ, or both lengths.
pub fn check_same_classes(
    ours: (&str, &[String]),
    theirs: (&str, &[String]),
    fewer: bool,
) -> Result<Option<String>> {
    let ((our, ours), (their, theirs)) = (ours, theirs);
    if theirs.len() > ours.len() || (theirs.len() < ours.len() && !fewer) {
        return Err(Error::Config(format!(
            "{their} has {} classes, {our} {}: class by class they must be the same",
            theirs.len(),
            ours.len()
        )));
    }
    let unnamed = |list: &[String]| list.iter().enumerate().all(|(i, name)| *name == i.to_string());
    let differ = (0..theirs.len()).find(|i| !same_name(&ours[*i], &theirs[*i]));
    let Some(first) = differ else { return Ok(None) };
    if let Some(nameless) = [(our, ours), (their, theirs)].into_iter().find(|(_, list)| unnamed(list)) {
        return Ok(Some(format!(
            "classes are taken by their numbers, because {} has no names for them: 0 is {:?} and {:?}",
            nameless.0, ours[0], theirs[0]
        )));
    }
    if numbered_by_wordnet(theirs) && ours == imagenet::class_names() {
        return Ok(None);
    }
    Err(Error::Config(format!(
        "class {first} is {:?} in {our} and {:?} in {their}: the same classes in the same order are needed",
        ours[first], theirs[first]
    )))
}

/// Whether two names, each of which may be several between commas, begin with the same.
fn same_name(a: &str, b: &str) -> bool {
    let first = |name: &str| name.split(',').next().unwrap_or_default().trim().to_lowercase();
    first(a) == first(b)
}

/// Whether classes bear the folders' names of ImageNet, n01440764 to n15075141, whose order is that of its labels.
fn numbered_by_wordnet(names: &[String]) -> bool {
    let number = |name: &String| {
        name.strip_prefix('n')
            .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    names.len() == 1000 && names.iter().all(number) && names.is_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_same_by_name() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |a: &[&str], b: &[&str], fewer| {
            check_same_classes(("ours", &list(a)), ("theirs", &list(b)), fewer)
        };
        assert_eq!(check(&["ant", "bee, honey bee"], &["Ant", "bee"], false).unwrap(), None);
        assert_eq!(check(&["0", "1"], &["0", "1"], false).unwrap(), None);
        assert_eq!(check(&["ant", "bee"], &["ant"], true).unwrap(), None);
        for (a, b, fewer, said) in [
            (&["ant", "bee"][..], &["bee", "ant"][..], false, "\"ant\" in ours and \"bee\" in theirs"),
            (&["ant", "bee"], &["ant"], false, "theirs has 1 classes, ours 2"),
            (&["ant"], &["ant", "bee"], true, "theirs has 2 classes, ours 1"),
            (&["ant", "bee"], &["bee"], true, "class 0 is \"ant\""),
        ] {
            let message = check(a, b, fewer).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
        // Numbers of two lists are not compared in silence.
        assert!(check(&["ant", "bee"], &["0", "1"], false).unwrap().unwrap().contains("theirs has no names"));
        let folders: Vec<String> = (0..1000).map(|i| format!("n{:08}", 1_440_764 + 7 * i)).collect();
        assert_eq!(
            check_same_classes(("m", &imagenet::class_names()), ("d", &folders), false).unwrap(),
            None
        );
        assert!(check_same_classes(("m", &list(&["ant", "bee"])), ("d", &folders[..2]), false).is_err());
    }
}
