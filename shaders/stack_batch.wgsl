#import index
// y[i] = a[i] for i < first, b[i - first] behind.  Any shape; `count` elements in all.

struct Params {
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<storage, read> a: array<elem>;       // [first]
@group(0) @binding(1) var<storage, read> b: array<elem>;       // [count - first]
@group(0) @binding(2) var<storage, read_write> y: array<elem>; // [count]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.first) {
        y[i] = a[i];
    } else if (i < p.count) {
        y[i] = b[i - p.first];
    }
}
