//! What was found in a file.

use serde::{Deserialize, Serialize};

use super::decode::Header;

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// A picture: the two halves of its contents' hash, width, height, and whether it is grey.
    Picture(u64, u64, usize, usize, bool),
    /// A picture that is damaged, and how.
    Damaged(String),
    /// No picture of a kind that is read.
    Other(String),
}

impl Found {
    pub fn picture(hash: u128, header: Header) -> Found {
        Found::Picture((hash >> 64) as u64, hash as u64, header.width, header.height, header.grey)
    }
}

/// A file that was looked at.
pub struct Looked {
    pub found: Found,
    /// Its bytes, where they had to be read and are to be kept.
    pub bytes: Option<Vec<u8>>,
    /// Whether the same would be found the next time.
    pub lasting: bool,
}
