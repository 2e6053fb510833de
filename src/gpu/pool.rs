//! The pool that plans take their slots from.

use crate::error::Result;

use super::buffer::Buffer;

/// Memory for the transient values of plans. Plans never run at the same time and leave nothing behind in
/// their slots, so all plans of a device share it.
#[derive(Default)]
pub(super) struct Pool {
    slots: Vec<Buffer>,
}

impl Pool {
    /// One buffer for each wanted size, the same ones as other plans where they are large enough. What is missing is made
    /// by `make`, after `room` was asked for all of it.
    pub fn take(
        &mut self,
        sizes: &[u64],
        room: impl Fn(u64) -> Result<()>,
        make: impl Fn(u64) -> Result<Buffer>,
    ) -> Result<Vec<Buffer>> {
        let mut free: Vec<Buffer> = self.slots.clone();
        free.sort_by_key(Buffer::bytes);
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
        let mut taken: Vec<Option<Buffer>> = vec![None; sizes.len()];
        for &i in &order {
            // The smallest that fits, unless it wastes more than it saves.
            let fit =
                free.iter().position(|b| b.bytes() >= sizes[i] && b.bytes() / 4 <= sizes[i].max(1 << 20));
            taken[i] = fit.map(|at| free.remove(at));
        }
        // All that is missing is known before any of it is made.
        let missing = || order.iter().copied().filter(|&i| taken[i].is_none());
        room(missing().map(|i| sizes[i]).fold(0, u64::saturating_add))?;
        for i in missing().collect::<Vec<_>>() {
            let made = make(sizes[i])?;
            self.slots.push(made.clone());
            taken[i] = Some(made);
        }
        Ok(taken.into_iter().map(|slot| slot.expect("every size was served")).collect())
    }

    /// Forgets them all; plans that use them keep them until they are dropped.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}
