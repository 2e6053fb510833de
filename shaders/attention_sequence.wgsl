#import attention_params
// Whose keys a picture reads. Library file; who imports it declares `rows`, [N] or unread.

// The sequence of picture n; one past the last where it has none.
fn sequence_of(n: u32, sequences: u32) -> u32 {
    if (ROWS) {
        return min(rows[n], sequences);
    }
    return n;
}
