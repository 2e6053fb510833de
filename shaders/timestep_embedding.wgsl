#import index
// Sinusoidal embedding.  y[n, :] = [cos(t[n] f_0) .., sin(t[n] f_0) ..], a zero column where D is odd.
// t [N] f32, frequency [half] in turns: rows (high, middle, low, 0), high and middle of 12 significant bits each.
// Limits: t·f below 2^20 turns. The angle is reduced without rounding: 12-bit factors have exact products, and
// fract is exact. sin and cos are polynomials of our own: WGSL asks only 2^-11 of its own.

struct Params {
    count: u32, // N
    half: u32,
    width: u32, // D
}

@group(0) @binding(0) var<storage, read> t: array<f32>;               // [N]
@group(0) @binding(1) var<storage, read> frequency: array<vec4<f32>>; // [half]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;         // [N, D]
@group(0) @binding(3) var<uniform> p: Params;

// (cos, sin) of 2π·turns, |turns| at most a few.
fn cos_sin(turns: f32) -> vec2<f32> {
    let quarter = round(turns * 4.0);
    let a = (turns - quarter * 0.25) * 6.283185307179586; // within ±π/4
    let b = a * a;
    let c = 1.0 + b * (-0.5 + b * (4.1666667e-2 + b * (-1.3888889e-3 + b * 2.4801587e-5)));
    let s = a * (1.0 + b * (-1.6666667e-1 + b * (8.3333333e-3 + b * (-1.9841270e-4 + b * 2.7557319e-6))));
    switch (i32(quarter) & 3) {
        case 0: { return vec2<f32>(c, s); }
        case 1: { return vec2<f32>(-s, c); }
        case 2: { return vec2<f32>(-c, -s); }
        default: { return vec2<f32>(s, -c); }
    }
}

@compute @workgroup_size(64)
fn embed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count * p.half) {
        return;
    }
    let n = i / p.half;
    let k = i % p.half;
    let time = t[n];
    // The upper 12 of 24 significant bits, and the rest: a mask, so that no compiler can cancel the difference.
    let high = bitcast<f32>(bitcast<u32>(time) & 0xfffff000u);
    let low = time - high;
    let f = frequency[k];
    let turns = fract(high * f.x) + fract(high * f.y) + fract(low * f.x) + (low * f.y + time * f.z);
    let value = cos_sin(turns);
    let row = n * p.width;
    y[row + k] = value.x;
    y[row + p.half + k] = value.y;
    if (k == 0u && p.width % 2u == 1u) {
        y[row + p.width - 1u] = 0.0;
    }
}
