#import index
// A soft clamp.  y = m·tanh(x/m),  dx = dy·(1 - (y/m)²).   Any shape; `count` elements.

struct Params {
    count: u32,
    accumulate: u32,
    most: f32, // m
}

@group(0) @binding(0) var<storage, read> x: array<elem>;        // [count]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;  // [count]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> known: array<elem>;    // y [count]
@group(0) @binding(1) var<storage, read> dy: array<elem>;       // [count]
@group(0) @binding(2) var<storage, read_write> dx: array<elem>; // [count]
@group(0) @binding(3) var<uniform> q: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        // tanh of large numbers is not a number on some adapters, and from 10 on it is 1 in f32.
        y[i] = elem(p.most * tanh(clamp(f32(x[i]) / p.most, -10.0, 10.0)));
    }
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    let t = f32(known[i]) / q.most;
    var g = f32(dy[i]) * (1.0 - t * t);
    if (q.accumulate != 0u) {
        g += f32(dx[i]);
    }
    dx[i] = elem(g);
}
