#import index
// Repetition.  y[k·length + i] = x[i] for k < times: [N, ..] to [times·N, ..]; an invocation an i.
// vectors, words: 16 or 4 bytes at a time, whatever they mean; halves: for an odd number of f16.

struct Params {
    length: u32,
    times: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;            // [length]
@group(0) @binding(1) var<storage, read_write> y: array<u32>;      // [times·length]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<u32>>;

@group(0) @binding(0) var<storage, read> x_half: array<elem>;
@group(0) @binding(1) var<storage, read_write> y_half: array<elem>;

@compute @workgroup_size(256)
fn vectors(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.length) {
        return;
    }
    let v = x4[i];
    for (var k = 0u; k < p.times; k++) {
        y4[k * p.length + i] = v;
    }
}

@compute @workgroup_size(256)
fn words(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.length) {
        return;
    }
    let v = x[i];
    for (var k = 0u; k < p.times; k++) {
        y[k * p.length + i] = v;
    }
}

@compute @workgroup_size(256)
fn halves(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.length) {
        return;
    }
    let v = x_half[i];
    for (var k = 0u; k < p.times; k++) {
        y_half[k * p.length + i] = v;
    }
}
