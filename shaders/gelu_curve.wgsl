// GELU and its slope, of four numbers.  A library: no entry point, no binding.
// WGSL has no error function.  Φ(-a) = exp(-a²/2)·q(a) for a >= 0, where q, which falls slowly, is a polynomial in
// 1 / (1 + a/3.3) fitted to a relative error of 1.1e-7 on 0..14 (least squares, reweighted towards the largest error); beyond
// that exp has no digits left.

// Every curve is 0 or x long before 30; held there, no infinity meets a zero.
fn held4(v: vec4<f32>) -> vec4<f32> {
    return clamp(v, vec4<f32>(-30.0), vec4<f32>(30.0));
}

// Φ(v), and the density exp(-v²/2)/√(2π), for |v| <= 30.
struct Normal4 {
    below: vec4<f32>,
    density: vec4<f32>,
}

fn normal4(v: vec4<f32>) -> Normal4 {
    let a = abs(v);
    let t = 1.0 / (1.0 + a * 0.3030303);
    var q = t * 0.0363985 - 0.15505411;
    q = q * t + 0.19435388;
    q = q * t - 0.044486176;
    q = q * t + 0.12413849;
    q = q * t + 0.10200439;
    q = q * t + 0.1217976;
    q = q * t + 0.12084739;
    let e = exp(-0.5 * a * a);
    let tail = q * t * e;
    return Normal4(select(1.0 - tail, tail, v < vec4<f32>()), 0.3989423 * e);
}

// v·Φ(v).
fn gelu_erf4(v: vec4<f32>) -> vec4<f32> {
    return v * normal4(held4(v)).below;
}

// Φ(v) + v·density(v).
fn gelu_erf_slope4(v: vec4<f32>) -> vec4<f32> {
    let held = held4(v);
    let n = normal4(held);
    return n.below + held * n.density;
}

// v·σ(2u) with u = √(2/π)·(v + 0.044715·v³): the same as v/2·(1 + tanh u).
fn gelu_tanh4(v: vec4<f32>) -> vec4<f32> {
    let h = held4(v);
    let u = 0.7978846 * h * (1.0 + 0.044715 * h * h);
    return v * (1.0 / (1.0 + exp(min(-2.0 * u, vec4<f32>(80.0)))));
}

fn gelu_tanh_slope4(v: vec4<f32>) -> vec4<f32> {
    let h = held4(v);
    let u = 0.7978846 * h * (1.0 + 0.044715 * h * h);
    let s = 1.0 / (1.0 + exp(min(-2.0 * u, vec4<f32>(80.0))));
    return s + h * s * (1.0 - s) * 1.5957691 * (1.0 + 0.134145 * h * h);
}

// v·σ(1.702·v).
fn gelu_quick4(v: vec4<f32>) -> vec4<f32> {
    return v * (1.0 / (1.0 + exp(-1.702 * held4(v))));
}

fn gelu_quick_slope4(v: vec4<f32>) -> vec4<f32> {
    let z = 1.702 * held4(v);
    let s = 1.0 / (1.0 + exp(-z));
    return s * (1.0 + z * (1.0 - s));
}
