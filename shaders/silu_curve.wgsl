// SiLU and its slope, of four numbers.  A library: no entry point, no binding.

// v·σ(v): a reciprocal is one instruction of a GPU, a quotient several.
fn silu4(v: vec4<f32>) -> vec4<f32> {
    return v * (1.0 / (1.0 + exp(-v)));
}

// The derivative of v·σ(v): σ(v)·(1 + v·(1 - σ(v))).
fn silu_slope4(v: vec4<f32>) -> vec4<f32> {
    let s = 1.0 / (1.0 + exp(-v));
    return s * (1.0 + v * (1.0 - s));
}
