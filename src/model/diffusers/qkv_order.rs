//! The orders of the channels of joint projections.

/// The rows of a joint projection in the other order: `[head][q, k, v][d]` (legacy) and `[q, k, v][head][d]` (new).
/// `bytes` are 3·heads·d rows of the same length.
pub(in crate::model) fn reorder_qkv(bytes: &[u8], heads: usize, to_new: bool) -> Vec<u8> {
    let block = bytes.len() / (3 * heads);
    let mut turned = Vec::with_capacity(bytes.len());
    for i in 0..3 * heads {
        let from = if to_new { (i % heads) * 3 + i / heads } else { (i % 3) * heads + i / 3 };
        turned.extend_from_slice(&bytes[from * block..(from + 1) * block]);
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_qkv_goes_there_and_back() {
        // Two heads of two channels, rows of one byte: the letter is the part, the digit the head.
        let legacy = b"qqkkvvQQKKVV";
        let new = b"qqQQkkKKvvVV";
        assert_eq!(reorder_qkv(legacy, 2, true), new);
        assert_eq!(reorder_qkv(new, 2, false), legacy);
        assert_eq!(reorder_qkv(b"qkv", 1, true), b"qkv");
    }
}
