#import index
// Resampling by two.
// spread: y[n,h,w,c] = scale·x[n,h/2,w/2,c].              (nearest upsampling; the gradient of the pool, scale 1/4)
// gather: y[n,h,w,c] = scale·Σ_ij x[n,2h+i,2w+j,c].       (average pooling, scale 1/4; the gradient of upsampling)
// small [N, H, W, C], large [N, 2H, 2W, C].  The four terms are added in the order (0,0), (0,1), (1,0), (1,1).
// The _vec4 entries view C/4 vectors of four channels: C must be a multiple of 4, `channels` counts vectors.

struct Params {
    count: u32,      // elements, or vectors, of y
    height: u32,     // of y
    width: u32,      // of y
    channels: u32,   // elements, or vectors
    scale: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<elem>>;

// Where element i of y finds its (first) source in x.
fn source_of_spread(i: u32) -> u32 {
    let c = i % p.channels;
    let pixel = i / p.channels;
    let w = pixel % p.width;
    let row = pixel / p.width; // n·H + h; an even H keeps the halves of different images apart
    return ((row / 2u) * (p.width / 2u) + w / 2u) * p.channels + c;
}

fn source_of_gather(i: u32) -> u32 {
    let c = i % p.channels;
    let pixel = i / p.channels;
    let w = pixel % p.width;
    let row = pixel / p.width;
    return ((row * 2u) * (p.width * 2u) + w * 2u) * p.channels + c;
}

@compute @workgroup_size(64)
fn spread(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    var v = p.scale * f32(x[source_of_spread(i)]);
    if (p.accumulate != 0u) {
        v += f32(y[i]);
    }
    y[i] = elem(v);
}

@compute @workgroup_size(64)
fn spread_vec4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    var v = p.scale * vec4<f32>(x4[source_of_spread(i)]);
    if (p.accumulate != 0u) {
        v += vec4<f32>(y4[i]);
    }
    y4[i] = vec4<elem>(v);
}

@compute @workgroup_size(64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let from_ = source_of_gather(i);
    let below = from_ + 2u * p.width * p.channels;
    let top = f32(x[from_]) + f32(x[from_ + p.channels]);
    var v = p.scale * (top + f32(x[below]) + f32(x[below + p.channels]));
    if (p.accumulate != 0u) {
        v += f32(y[i]);
    }
    y[i] = elem(v);
}

@compute @workgroup_size(64)
fn gather_vec4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let from_ = source_of_gather(i);
    let below = from_ + 2u * p.width * p.channels;
    let top = vec4<f32>(x4[from_]) + vec4<f32>(x4[from_ + p.channels]);
    var v = p.scale * (top + vec4<f32>(x4[below]) + vec4<f32>(x4[below + p.channels]));
    if (p.accumulate != 0u) {
        v += vec4<f32>(y4[i]);
    }
    y4[i] = vec4<elem>(v);
}
