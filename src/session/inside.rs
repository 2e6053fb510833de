//! What a session holds on the device, for hosts that go on computing with it.

use crate::gpu::{Buffer, Plan};

use super::Session;

impl Session {
    /// z, the noisy latent, `[1, H, W, C]` f32.
    pub fn latent(&self) -> &Buffer {
        &self.program.z
    }

    /// x̃, what the guided network takes the clean picture to be, `[1, H, W, C]` f32.
    pub fn picture(&self) -> &Buffer {
        &self.program.picture
    }

    /// The plans of a step: of the condition's evaluation alone, and of all where there are more.
    pub fn step_plans(&self) -> (&Plan, Option<&Plan>) {
        (&self.program.single, self.program.all.as_ref())
    }

    #[cfg(test)]
    pub(super) fn shape(&self) -> [usize; 3] {
        self.program.shape
    }
}
