//! A stable hash of a set's listing.
//!
//! FNV-1a, because the value is written into training states: it must not change between runs, machines or
//! versions of a hashing crate. It guards against mistakes, not against forgery.

/// A running 64-bit FNV-1a hash.
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Starts with the class names and the labels, which every format has.
    pub fn new(class_names: &[String], labels: &[u32]) -> Self {
        let mut hash = Fingerprint(0xcbf2_9ce4_8422_2325);
        hash.number(class_names.len() as u64);
        for name in class_names {
            hash.text(name);
        }
        hash.number(labels.len() as u64);
        for &label in labels {
            hash.number(label.into());
        }
        hash
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// A string and its length, so that neighbours cannot run into each other.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// Sixteen hexadecimal digits.
    pub fn finish(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_function_and_tells_apart() {
        let mut plain = Fingerprint(0xcbf2_9ce4_8422_2325);
        plain.bytes(b"foobar");
        assert_eq!(plain.finish(), "85944171f73967e8");
        let names = |a: &str, b: &str| vec![a.to_string(), b.to_string()];
        let of = |names: Vec<String>, labels: &[u32]| Fingerprint::new(&names, labels).finish();
        assert_ne!(of(names("ab", "c"), &[0]), of(names("a", "bc"), &[0]));
        assert_ne!(of(names("a", "b"), &[0, 1]), of(names("a", "b"), &[1, 0]));
    }
}
