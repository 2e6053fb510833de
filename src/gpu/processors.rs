//! How many multiprocessors an adapter has. No interface tells, and tiles are chosen by it: a table of names, and a number
//! between for adapters that are not in it. The numbers are the makers' own; speeds were measured on an H100 and an H200.

/// A part of an adapter's name and its multiprocessors; the first that fits counts, so longer names come first.
const KNOWN: [(&str, u32); 39] = [
    ("H100 PCIe", 114),
    ("H100", 132),
    ("H200", 132),
    ("A100", 108),
    ("A40", 84),
    ("A30", 56),
    ("L40", 142),
    ("L4", 58),
    ("T4", 40),
    ("V100", 80),
    ("RTX 5090", 170),
    ("RTX 5080", 84),
    ("RTX 5070 Ti", 70),
    ("RTX 5070", 48),
    ("RTX 4090", 128),
    ("RTX 4080 SUPER", 80),
    ("RTX 4080", 76),
    ("RTX 4070 Ti SUPER", 66),
    ("RTX 4070 Ti", 60),
    ("RTX 4070 SUPER", 56),
    ("RTX 4070", 46),
    ("RTX 4060 Ti", 34),
    ("RTX 4060", 24),
    ("RTX 3090 Ti", 84),
    ("RTX 3090", 82),
    ("RTX 3080 Ti", 80),
    ("RTX 3080", 68),
    ("RTX 3070 Ti", 48),
    ("RTX 3070", 46),
    ("RTX 3060 Ti", 38),
    ("RTX 3060", 28),
    ("RTX 2080 Ti", 68),
    ("RTX 2080 SUPER", 48),
    ("RTX 2080", 46),
    ("RTX 2070 SUPER", 40),
    ("RTX 2070", 36),
    ("RTX 2060 SUPER", 34),
    ("RTX 2060", 30),
    ("TITAN RTX", 72),
];

/// Of adapters that are not in the table.
const UNKNOWN: u32 = 64;

/// The multiprocessors of the adapter of this name.
pub(super) fn of(name: &str) -> u32 {
    // Those of notebooks have the names of larger ones.
    let known = KNOWN.iter().find(|(part, _)| !name.contains("Laptop") && names(name, part));
    known.map_or(UNKNOWN, |(_, count)| *count)
}

/// Whether `part` stands in `name`, and no letter or digit next to it: an L40 is no L4, but an L40S is an L40.
fn names(name: &str, part: &str) -> bool {
    name.match_indices(part).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + part.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_known_by_their_names() {
        assert_eq!(of("NVIDIA H200"), 132);
        assert_eq!(of("NVIDIA H100 80GB HBM3"), 132);
        assert_eq!(of("NVIDIA H100 PCIe"), 114);
        assert_eq!(of("NVIDIA L40S"), 142);
        assert_eq!(of("NVIDIA L4"), 58);
        assert_eq!(of("NVIDIA GeForce RTX 4070 Ti SUPER"), 66);
        assert_eq!(of("NVIDIA GeForce RTX 4070 Laptop GPU"), UNKNOWN);
        assert_eq!(of("llvmpipe (LLVM 15.0.6, 256 bits)"), UNKNOWN);
    }

    #[test]
    fn no_name_hides_a_longer_one() {
        for (i, (name, _)) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..i].iter().all(|(earlier, _)| !names(name, earlier)), "{name}");
        }
    }
}
