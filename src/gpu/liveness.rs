//! Which values may share memory: two that do not live at the same time.

/// From the first dispatch that touches a value to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

/// A slot for each value, and the slots' sizes. Largest values first, each into the first slot that is free over
/// its whole life (greedy by size: within a few percent of optimal on networks, and deterministic).
pub(super) fn assign(lifetimes: &[Option<Lifetime>]) -> (Vec<Option<usize>>, Vec<u64>) {
    let mut order: Vec<usize> = (0..lifetimes.len()).filter(|&i| lifetimes[i].is_some()).collect();
    order.sort_by_key(|&i| {
        let life = lifetimes[i].expect("filtered");
        (std::cmp::Reverse(life.bytes), life.first)
    });
    let mut slot_of = vec![None; lifetimes.len()];
    let mut slots: Vec<(u64, Vec<Lifetime>)> = Vec::new();
    for i in order {
        let life = lifetimes[i].expect("filtered");
        let overlaps = |other: &Lifetime| life.first <= other.last && other.first <= life.last;
        let free = slots.iter().position(|(_, held)| !held.iter().any(overlaps));
        let slot = free.unwrap_or_else(|| {
            slots.push((life.bytes, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push(life);
        slot_of[i] = Some(slot);
    }
    (slot_of, slots.into_iter().map(|(bytes, _)| bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(first: usize, last: usize, bytes: u64) -> Option<Lifetime> {
        Some(Lifetime { first, last, bytes })
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let chain: Vec<_> = (0..9).map(|i| life(i, i + 1, 64)).collect();
        let (slot_of, sizes) = assign(&chain);
        assert_eq!(sizes, [64, 64]);
        for pair in slot_of.windows(2) {
            assert_ne!(pair[0], pair[1], "neighbours live at the same time");
        }
    }

    #[test]
    fn no_two_living_values_share_a_slot() {
        let lives = [life(0, 5, 10), life(1, 2, 99), life(3, 4, 50), None, life(2, 3, 7), life(5, 9, 99)];
        let (slot_of, sizes) = assign(&lives);
        assert_eq!(slot_of[3], None, "an unused value takes no memory");
        for (i, a) in lives.iter().enumerate() {
            for (j, b) in lives.iter().enumerate().skip(i + 1) {
                if let (Some(a), Some(b)) = (a, b) {
                    let apart = a.last < b.first || b.last < a.first;
                    assert!(apart || slot_of[i] != slot_of[j], "{i} and {j}");
                    assert!(sizes[slot_of[i].unwrap()] >= a.bytes);
                }
            }
        }
    }
}
