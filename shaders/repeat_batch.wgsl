#import index
// Repetition.  y[i] = x[i mod length], over `count` elements of y: [N, ..] to [times·N, ..].
// vectors, words: 16 or 4 bytes at a time, whatever they mean; halves: for an odd number of f16.

struct Params {
    count: u32,
    length: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;            // [length]
@group(0) @binding(1) var<storage, read_write> y: array<u32>;      // [count]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x4: array<vec4<u32>>;       // [length]
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<u32>>; // [count]

@group(0) @binding(0) var<storage, read> x_half: array<elem>;       // [length]
@group(0) @binding(1) var<storage, read_write> y_half: array<elem>; // [count]

@compute @workgroup_size(64)
fn vectors(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y4[i] = x4[i % p.length];
    }
}

@compute @workgroup_size(64)
fn words(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y[i] = x[i % p.length];
    }
}

@compute @workgroup_size(64)
fn halves(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y_half[i] = x_half[i % p.length];
    }
}
