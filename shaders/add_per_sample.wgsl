#import index
// y[n,p,c] = x[n,p,c] + e[n,c];  de[n,c] = Σ_p dy[n,p,c], in the order of the pixels.
// N samples, P = H·W pixels, C channels; e and de are f32.

struct Params {
    samples: u32,
    pixels: u32,
    channels: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [N, P, C]
@group(0) @binding(1) var<storage, read> e: array<f32>;        // [N, C]
@group(0) @binding(2) var<storage, read_write> y: array<elem>; // [N, P, C]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> dy: array<elem>;      // [N, P, C]
@group(0) @binding(1) var<storage, read_write> de: array<f32>; // [N, C]
@group(0) @binding(2) var<uniform> q: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = p.pixels * p.channels;
    if (i >= p.samples * row) {
        return;
    }
    y[i] = elem(f32(x[i]) + e[i / row * p.channels + i % p.channels]);
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.samples * q.channels) {
        return;
    }
    let first = i / q.channels * q.pixels * q.channels + i % q.channels;
    var sum = 0.0;
    for (var pixel = 0u; pixel < q.pixels; pixel++) {
        sum += f32(dy[first + pixel * q.channels]);
    }
    if (q.accumulate != 0u) {
        sum += de[i];
    }
    de[i] = sum;
}
