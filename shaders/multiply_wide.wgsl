// A product of 32 bits by 32 bits, (low, high).  A library: no entry point, no binding. Its twin for devices with 64-bit
// integers is multiply_wide_int64.wgsl; `#import multiply_wide` takes the one that suits.

// WGSL has no 64-bit integers: schoolbook multiplication by halves of 16 bits.
fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    // Each sum is at most 0xfffe0001 + 0xffff: neither leaves 32 bits.
    let middle = a_high * b_low + ((a_low * b_low) >> 16u);
    let carry = a_low * b_high + (middle & 0xffffu);
    return vec2<u32>(a * b, a_high * b_high + (middle >> 16u) + (carry >> 16u));
}
