#import index
// Scaled sum.  sum: y = scale·(a + b).  into: y = scale·a, or y += scale·a.
// Any shape; `count` elements.

struct Params {
    count: u32,
    accumulate: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> a: array<elem>;       // [count]
@group(0) @binding(1) var<storage, read> b: array<elem>;       // [count]
@group(0) @binding(2) var<storage, read_write> y: array<elem>; // [count]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read_write> target_: array<elem>; // [count]
@group(0) @binding(2) var<uniform> q: Params;

@compute @workgroup_size(64)
fn sum(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y[i] = elem(p.scale * (f32(a[i]) + f32(b[i])));
    }
}

@compute @workgroup_size(64)
fn into(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var v = q.scale * f32(a[i]);
    if (q.accumulate != 0u) {
        v += f32(target_[i]);
    }
    target_[i] = elem(v);
}
