//! What a host wants of the picture under way.

use crate::diffusion::Guidance;
use crate::model::Sequence;

/// The condition of a request, as it may change between steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub guidance: Guidance,
    /// Classes and their parts, of sum 1; empty for no class.
    pub mix: Vec<(u32, f32)>,
    pub tokens: Option<Sequence>,
    /// What stands for "nothing" where the network takes tokens.
    pub negative: Option<Sequence>,
    pub vector: Option<Vec<f32>>,
}
