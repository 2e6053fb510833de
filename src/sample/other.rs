//! What is evaluated beside a picture's own condition.

/// A condition that is evaluated beside each picture's own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Other {
    /// A row of the network's own table.
    pub class: u32,
    /// Whether the picture's own vector stays; else it is "nothing".
    pub keeps_vector: bool,
}
