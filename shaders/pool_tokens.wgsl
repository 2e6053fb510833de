#import index
// The tokens of an attention pool: the pixels' mean, then the pixels, each with its place's vector added.
// y[n,0,c] = Σ_p x[n,p,c]/P + e[0,c],  y[n,1+p,c] = x[n,p,c] + e[1+p,c]
// dx[n,p,c] = dy[n,1+p,c] + dy[n,0,c]/P,  de[t,c] = Σ_n dy[n,t,c].  N images, P = H·W pixels, C channels; all f32.
// Law: a mean is the sum in the order of the pixels.

struct Params {
    images: u32,
    pixels: u32,
    channels: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;       // [N, P, C]
@group(0) @binding(1) var<storage, read> e: array<f32>;       // [1 + P, C]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [N, 1 + P, C]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> dy: array<f32>;      // [N, 1 + P, C]
@group(0) @binding(1) var<storage, read_write> g: array<f32>; // dx [N, P, C] or de [1 + P, C]
@group(0) @binding(2) var<uniform> q: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = (1u + p.pixels) * p.channels;
    if (i >= p.images * row) {
        return;
    }
    let image = i / row;
    let place = i % row;
    let first = image * p.pixels * p.channels;
    if (place >= p.channels) {
        y[i] = x[first + place - p.channels] + e[place];
        return;
    }
    var sum = 0.0;
    for (var pixel = 0u; pixel < p.pixels; pixel++) {
        sum += x[first + pixel * p.channels + place];
    }
    y[i] = sum / f32(p.pixels) + e[place];
}

@compute @workgroup_size(64)
fn backward_x(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = q.pixels * q.channels;
    if (i >= q.images * row) {
        return;
    }
    let first = i / row * (row + q.channels);
    var sum = dy[first + q.channels + i % row] + dy[first + i % q.channels] / f32(q.pixels);
    if (q.accumulate != 0u) {
        sum += g[i];
    }
    g[i] = sum;
}

@compute @workgroup_size(64)
fn backward_e(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = (1u + q.pixels) * q.channels;
    if (i >= row) {
        return;
    }
    var sum = 0.0;
    for (var image = 0u; image < q.images; image++) {
        sum += dy[image * row + i];
    }
    if (q.accumulate != 0u) {
        sum += g[i];
    }
    g[i] = sum;
}
