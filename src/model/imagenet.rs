//! The classes of ImageNet's challenge (ILSVRC 2012; Russakovsky et al., arXiv 1409.0575), as every published model orders
//! them: the names of their WordNet synsets, sorted by synset.

/// The names of the 1000 classes; several of one class stand between commas.
pub fn class_names() -> Vec<String> {
    include_str!("imagenet_classes.txt").lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_a_thousand_in_the_order_of_their_labels() {
        let names = super::class_names();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| !name.trim().is_empty() && name.trim() == name));
        for (label, name) in
            [(0, "tench"), (249, "malamute"), (281, "tabby"), (517, "crane"), (999, "toilet tissue")]
        {
            assert_eq!(names[label].split(',').next(), Some(name));
        }
    }
}
