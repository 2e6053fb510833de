#import index
// ReLU.  y = max(x, 0),  dx = dy where y > 0, else 0.   Any shape; `count` elements.

struct Params {
    count: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;        // [count]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;  // [count]
@group(0) @binding(2) var<uniform> p: Params;

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
        y[i] = max(x[i], elem(0.0));
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
    var g = select(0.0, f32(dy[i]), x[i] > elem(0.0));
    if (q.accumulate != 0u) {
        g += f32(dx[i]);
    }
    dx[i] = elem(g);
}
