#import index
// The first token of each image.  y[n,c] = x[n,0,c];  dx[n,t,c] = dy[n,c] for t = 0, else 0.
// N images, T tokens, C channels; all f32. The backward pass runs over all of dx.

struct Params {
    images: u32,
    tokens: u32,
    channels: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.images * p.channels) {
        return;
    }
    y[i] = x[i / p.channels * p.tokens * p.channels + i % p.channels];
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = p.tokens * p.channels;
    if (i >= p.images * row) {
        return;
    }
    let place = i % row;
    var value = 0.0;
    if (place < p.channels) {
        value = x[i / row * p.channels + place];
    }
    if (p.accumulate != 0u) {
        value += y[i];
    }
    y[i] = value;
}
