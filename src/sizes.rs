//! Sizes: what is refused as beyond any use, products that cannot wrap, and whether this machine has room.
//!
//! Whoever multiplies numbers that a person or a file gave asks here; whoever is about to take much memory asks first.

use crate::error::{Error, Result};
use crate::shape::{Extent, Shape};

/// Images of a training: a thousand times those of the largest published one.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const MOST_IMAGES: u64 = 1_000_000_000_000;
/// Pictures of a batch.
pub(crate) const MOST_BATCH: usize = 1 << 20;
/// Steps of a sampler or of a discrete process; published models have 1000 or 4000.
pub(crate) const MOST_STEPS: usize = 1_000_000;
/// Pixels along a side of a picture.
pub(crate) const MOST_SIDE: usize = 1 << 14;
/// Samples of a line.
pub(crate) const MOST_LENGTH: usize = 1 << 20;

/// The product of `factors`, which is the number of `what`.
///
/// # Errors
/// [`Error::Config`] with the factors when it exceeds what memory can hold.
pub(crate) fn product(what: &str, factors: &[usize]) -> Result<usize> {
    let all = factors.iter().try_fold(1usize, |all, factor| all.checked_mul(*factor));
    all.filter(|all| isize::try_from(*all).is_ok()).ok_or_else(|| {
        let factors: Vec<String> = factors.iter().map(usize::to_string).collect();
        Error::Config(format!("{what}: {} is more than any memory holds", factors.join(" x ")))
    })
}

/// The bytes of `factors` elements of `each` bytes.
///
/// # Errors
/// As [`product`].
pub(crate) fn bytes(what: &str, factors: &[usize], each: usize) -> Result<u64> {
    Ok(product(what, &[factors, &[each]].concat())? as u64)
}

/// The most places along an axis.
pub(crate) fn most_along(extent: Extent) -> usize {
    if extent.is_line() { MOST_LENGTH } else { MOST_SIDE }
}

/// Refuses a batch of no pictures, and one whose numbers alone are more than any memory holds.
///
/// # Errors
/// [`Error::Config`] with the numbers.
pub(crate) fn check_batch(pictures: usize, shape: Shape) -> Result<()> {
    match pictures {
        0 => Err(Error::Config("a batch of 0 pictures".into())),
        // Both halves of guidance, f32.
        1..=MOST_BATCH => {
            let [n, height, width, channels] = shape.nhwc(pictures);
            product("a batch of pictures", &[2, n, height, width, channels, 4]).map(drop)
        }
        _ => Err(Error::Config(format!("a batch of {pictures} pictures; at most {MOST_BATCH} are possible"))),
    }
}

/// Refuses 0 steps, and more than any process has.
///
/// # Errors
/// [`Error::Config`] with both numbers.
pub(crate) fn check_steps(steps: usize) -> Result<()> {
    match steps {
        0 => Err(Error::Config("sampling needs at least one step, and 0 were asked for".into())),
        1..=MOST_STEPS => Ok(()),
        _ => Err(Error::Config(format!("{steps} steps were asked for; at most {MOST_STEPS} are possible"))),
    }
}

/// Refuses what this machine has no room for, before it is allocated. Where nothing is known of its memory, all is let
/// through.
///
/// # Errors
/// [`Error::NoRoom`] with `what`, both figures and `way_out`.
pub(crate) fn check_host(what: &str, needed: u64, way_out: &str) -> Result<()> {
    // Not worth asking the system.
    const SMALL: u64 = 16 << 20;
    match (needed > SMALL).then(available_memory).flatten() {
        Some(available) if needed > available => {
            Err(Error::NoRoom { what: what.to_owned(), needed, available, way_out: way_out.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The bytes that can still be taken without driving other programs out, as far as the system tells: within the limit of
/// a container, too.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let free = Some(system.available_memory()).filter(|free| *free > 0);
    // What a container's files hold in memory is given up when it is needed: only what its processes hold counts.
    let contained = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    free.into_iter().chain(contained).min()
}

/// A browser does not tell.
#[cfg(target_arch = "wasm32")]
pub(crate) fn available_memory() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As in numbers that cannot wrap, whatever the factors.
        #[test]
        fn products_are_right_or_refused(factors in prop::collection::vec(any::<usize>(), 0..5), small in 0..70u32) {
            let factors: Vec<usize> = factors.into_iter().map(|x| x.checked_shr(small % 64).unwrap_or(0)).collect();
            let exact = factors.iter().try_fold(1u128, |all, x| all.checked_mul(*x as u128));
            match product("numbers", &factors) {
                Ok(found) => prop_assert_eq!(Some(found as u128), exact),
                Err(error) => {
                    // A zero behind factors that are too large makes nothing right.
                    let large = factors.iter().filter(|x| **x > 0).try_fold(1u128, |all, x| all.checked_mul(*x as u128));
                    prop_assert!(large.is_none_or(|large| large > isize::MAX as u128), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_room_is_refused_with_the_figures() {
        check_host("little", 1, "").unwrap();
        let Some(available) = available_memory() else { return };
        check_host("half of it", available / 2, "").unwrap();
        let message =
            check_host("a large picture", u64::MAX / 2, "take a smaller one").unwrap_err().to_string();
        for part in ["a large picture", "8 EiB", "iB are free", "take a smaller one"] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }

    #[test]
    fn steps_have_bounds() {
        assert!(check_steps(0).is_err() && check_steps(usize::MAX).is_err());
        check_steps(1).and(check_steps(MOST_STEPS)).unwrap();
    }
}
