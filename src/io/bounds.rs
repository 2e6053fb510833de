//! How much is read of a file before it is believed.

/// The longest header of a safetensors file; the bound of the crate that reads it.
pub(super) const MOST_HEADER: u64 = 100_000_000;
