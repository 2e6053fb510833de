// The high half of a product of 32 bits.  A library: no entry point, no binding. See its twin, multiply_high.wgsl.

fn multiply_high(a: u32, b: u32) -> u32 {
    return u32((u64(a) * u64(b)) >> 32u);
}
