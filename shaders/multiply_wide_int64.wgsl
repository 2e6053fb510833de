// A product of 32 bits by 32 bits, (low, high).  A library: no entry point, no binding. See its twin, multiply_wide.wgsl.

fn multiply_wide(a: u32, b: u32) -> vec2<u32> {
    let product = u64(a) * u64(b);
    return vec2<u32>(u32(product), u32(product >> 32u));
}
