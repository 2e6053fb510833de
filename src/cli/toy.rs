//! `freeguide toy`.

use crate::error::Result;

/// Figure 2 of the CFG paper: guidance on three Gaussians in the plane.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> Result<()> {
    Ok(())
}
