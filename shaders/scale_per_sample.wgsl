#import index
// Scaling by a factor a sample.  y[n, i] = factor[n]·x[n, i];  into: y[n, i] (+)= factor[n]·x[n, i], x being the gradient.
// x, y [N, L], factor [N] f32; `count` is N·L below 2^32.

struct Params {
    count: u32,
    length: u32,     // L
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [N, L]
@group(0) @binding(1) var<storage, read> factor: array<f32>;   // [N]
@group(0) @binding(2) var<storage, read_write> y: array<elem>; // [N, L]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    var value = factor[i / p.length] * f32(x[i]);
    if (p.accumulate != 0u) {
        value += f32(y[i]);
    }
    y[i] = elem(value);
}
