#import index
#import pack
// y[n,p,c] = x[n,p,c] + e[n,c];  de[n,c] = Σ_p dy[n,p,c], in the order of the pixels.
// N samples, P = H·W pixels, C channels; e and de are f32.
// The entry that ends in _packed is for C of whole packs.

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

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;         // [N, P, C]
@group(0) @binding(1) var<storage, read> e4: array<vec4<f32>>;        // [N, C/4]
@group(0) @binding(2) var<storage, read_write> y_pack: array<pack>;   // [N, P, C]

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

@compute @workgroup_size(256)
fn forward_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    let packs = p.channels / LANES;
    let row = p.pixels * packs;
    if (i >= p.samples * row) {
        return;
    }
    let first = (i / row * packs + i % packs) * ${vectors}u;
    let value = x_pack[i];
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, part${v}(value) + e4[first + ${v}u]);
    #end
    y_pack[i] = result;
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
