//! The tape: backward closures in the order of the forward pass, and the gradients gathered so far.
//!
//! The law: an operation's closure is called once, with the whole gradient of its output; it adds to the
//! gradient of each of its inputs. The first to add writes, those after accumulate.

use std::collections::{HashMap, HashSet};

use crate::error::Result;

use super::Tensor;

/// A backward pass: what it is recorded into, and the whole gradient of the output.
pub(super) type Closure<C> = Box<dyn FnOnce(&mut C, &Tensor) -> Result<()>>;
type Identity = (u64, u64);

/// The tape of a `C`, which holds it.
pub(super) struct Tape<C> {
    pub entries: Vec<(Tensor, Closure<C>)>,
    pub gradients: HashMap<Identity, Tensor>,
    /// Values whose gradient is wanted: parameters, and whatever depends on one.
    pub tracked: HashSet<Identity>,
    /// Values whose gradient outlives the pass: parameters and watched inputs.
    pub roots: HashSet<Identity>,
    /// Of the roots, those whose gradient has a place of its own, which several may share: a parameter and its copy in f16.
    pub parameters: HashSet<Identity>,
    /// The gradient that the closure at work was handed.
    pub handed: Option<Identity>,
}

impl<C> Default for Tape<C> {
    fn default() -> Self {
        Tape {
            entries: Vec::new(),
            gradients: HashMap::new(),
            tracked: HashSet::new(),
            roots: HashSet::new(),
            parameters: HashSet::new(),
            handed: None,
        }
    }
}

/// Where a closure puts the gradient of an input.
pub struct GradTarget {
    /// The gradient, of the input's shape.
    pub tensor: Tensor,
    /// Whether to add to what is there instead of overwriting it.
    pub accumulate: bool,
}

impl GradTarget {
    /// As a flag for a kernel's parameters.
    pub fn flag(&self) -> u32 {
        u32::from(self.accumulate)
    }
}
