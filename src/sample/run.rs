//! A batch of pictures under way.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};

use super::Sampler;

/// What [`Sampler::start`] begins: step it until it is finished, then read the pictures.
pub struct Run<'a> {
    sampler: &'a Sampler,
    /// Which of the sampler's runs this is.
    number: u64,
    /// Moves made.
    at: usize,
    /// Of guiders, which moves need all evaluations.
    needs_all: Vec<bool>,
}

impl<'a> Run<'a> {
    /// The run that begins on a sampler, in place of the one before it.
    pub(super) fn new(sampler: &'a Sampler, needs_all: Vec<bool>) -> Self {
        let number = sampler.runs.fetch_add(1, Ordering::SeqCst) + 1;
        Run { sampler, number, at: 0, needs_all }
    }

    /// Submits one denoising step; [`Sampler::moves`] of them make the pictures.
    ///
    /// # Errors
    /// [`Error::Config`] when the pictures are complete, or the sampler has begun others meanwhile; what the device objects to.
    pub fn step(&mut self) -> Result<()> {
        if self.sampler.runs.load(Ordering::SeqCst) != self.number {
            let what = "other pictures were begun on this sampler, which makes one batch at a time: start these again";
            return Err(Error::Config(what.into()));
        }
        if self.finished() {
            return Err(Error::Config(format!("the pictures are complete after {} moves", self.at)));
        }
        let all = self.needs_all.get(self.at).copied().unwrap_or(true);
        self.at += 1;
        self.sampler.first.as_ref().filter(|_| !all).unwrap_or(&self.sampler.all).run()
    }

    /// Whether all moves were made.
    pub fn finished(&self) -> bool {
        self.at == self.sampler.moves()
    }
}
