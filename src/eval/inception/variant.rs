//! The two networks that bear the name.

/// Whose network it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// torchvision's: means of the pools' branches over the whole window, 1000 classes.
    Torchvision,
    /// The one that FID is defined by, of 2015, in pytorch-fid's and torch-fidelity's files: means over what is inside, the
    /// largest instead of the mean in the last block, 1008 classes.
    Fid,
}
