// The high half of a product of 32 bits.  A library: no entry point, no binding. Its twin for devices with 64-bit
// integers is multiply_high_int64.wgsl; `#import multiply_high` takes the one that suits.

// WGSL has no 64-bit integers: schoolbook multiplication by halves of 16 bits.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    // Each sum is at most 0xfffe0001 + 0xffff: neither leaves 32 bits.
    let middle = a_high * b_low + ((a_low * b_low) >> 16u);
    let carry = a_low * b_high + (middle & 0xffffu);
    return a_high * b_high + (middle >> 16u) + (carry >> 16u);
}
