#import index
// y[i] = a[i] for i < first, b[i - first] behind.  Any shape; `count` in all.
// vectors, words: 16 or 4 bytes at a time, whatever they mean; halves: for an odd number of f16.

struct Params {
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<storage, read> a: array<u32>;       // [first]
@group(0) @binding(1) var<storage, read> b: array<u32>;       // [count - first]
@group(0) @binding(2) var<storage, read_write> y: array<u32>; // [count]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> a4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<u32>>;

@group(0) @binding(0) var<storage, read> a_half: array<elem>;
@group(0) @binding(1) var<storage, read> b_half: array<elem>;
@group(0) @binding(2) var<storage, read_write> y_half: array<elem>;

@compute @workgroup_size(256)
fn vectors(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i < p.first) {
        y4[i] = a4[i];
    } else if (i < p.count) {
        y4[i] = b4[i - p.first];
    }
}

@compute @workgroup_size(256)
fn words(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i < p.first) {
        y[i] = a[i];
    } else if (i < p.count) {
        y[i] = b[i - p.first];
    }
}

@compute @workgroup_size(256)
fn halves(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i < p.first) {
        y_half[i] = a_half[i];
    } else if (i < p.count) {
        y_half[i] = b_half[i - p.first];
    }
}
