//! Labels of one list of classes in the numbers of another: by the classes' names, as numbers of two lists say nothing of each
//! other.

use crate::model::check_same_classes;

/// For each class of `ours` its label among `theirs`, `None` where there is no such class or several. A list is what it is
/// called in a sentence, and its names; labels of a list without names are their own names.
///
/// # Errors
/// Why nothing can be said of them, in words that end a sentence: one of the two has names and the other numbers, or no class
/// is in both.
pub fn class_map(ours: (&str, &[String]), theirs: (&str, &[String])) -> Result<Vec<Option<u32>>, String> {
    let ((our, own), (their, other)) = (ours, theirs);
    match (numbered(own), numbered(other)) {
        (true, true) => {
            let count = if own.is_empty() { other.len() } else { own.len() };
            return Ok((0..count).map(|label| (label < other.len()).then_some(label as u32)).collect());
        }
        (true, false) => return Err(format!("{our} have numbers for classes, {their} names")),
        (false, true) => return Err(format!("{our} have names for classes, {their} numbers")),
        (false, false) => {}
    }
    if matches!(check_same_classes(ours, theirs, false), Ok(None)) {
        return Ok((0..own.len() as u32).map(Some).collect());
    }
    let among = |name: &String| {
        let mut places = other.iter().enumerate().filter(|(_, theirs)| key(theirs) == key(name));
        let first = places.next()?.0;
        let only = places.next().is_none() && own.iter().filter(|own| key(own) == key(name)).count() == 1;
        only.then_some(first as u32)
    };
    let map: Vec<Option<u32>> = own.iter().map(among).collect();
    match map.iter().any(Option::is_some) {
        true => Ok(map),
        false => Err(format!("{our} and {their} have no class of the same name")),
    }
}

/// Labels in the numbers of another list; those of classes that are not in it are those of none.
pub fn in_numbers_of(map: &[Option<u32>], labels: &[u32]) -> Vec<u32> {
    labels.iter().map(|&label| map.get(label as usize).copied().flatten().unwrap_or(u32::MAX)).collect()
}

/// Whether a list has numbers for names, or nothing.
fn numbered(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| *name == i.to_string())
}

/// What tells a class from others: the first of several names between commas.
fn key(name: &str) -> String {
    name.split(',').next().unwrap_or_default().trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ours: &[&str], theirs: &[&str]) -> Result<Vec<Option<u32>>, String> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        class_map(("the samples", &list(ours)), ("the network's classes", &list(theirs)))
    }

    #[test]
    fn labels_go_by_name_from_list_to_list() {
        assert_eq!(map(&["cat", "dog"], &["cat", "dog"]), Ok(vec![Some(0), Some(1)]));
        let turned = map(&["dog", "Cat, house cat", "cow"], &["cat", "dog", "emu"]).unwrap();
        assert_eq!(turned, [Some(1), Some(0), None]);
        assert_eq!(in_numbers_of(&turned, &[0, 1, 2, 9, 0]), [1, 0, u32::MAX, u32::MAX, 1]);
        // Two of one name are neither.
        assert_eq!(map(&["crane", "crane", "cat"], &["cat", "crane"]), Ok(vec![None, None, Some(0)]));
        assert_eq!(map(&["crane", "cat"], &["crane", "cat", "crane"]), Ok(vec![None, Some(1)]));
    }

    #[test]
    fn numbers_are_held_against_numbers_alone() {
        assert_eq!(map(&["0", "1", "2"], &["0", "1"]), Ok(vec![Some(0), Some(1), None]));
        assert_eq!(map(&[], &["0", "1"]), Ok(vec![Some(0), Some(1)]));
        for (ours, theirs) in
            [(&[][..], &["cat", "dog"][..]), (&["0", "1"], &["cat", "dog"]), (&["cat", "dog"], &["0", "1"])]
        {
            let why = map(ours, theirs).unwrap_err();
            assert!(why.contains("numbers") && why.contains("names"), "{why}");
        }
        assert!(map(&["cat"], &["dog"]).unwrap_err().contains("no class of the same name"));
    }
}
