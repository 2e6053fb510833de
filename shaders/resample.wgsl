#import index
// Resampling by two.  small [N, H, W, C], large [N, 2H, 2W, C]; an invocation an element of the small one.
// spread: large[n,2h+i,2w+j,c] = scale·small[n,h,w,c].   (nearest upsampling; the gradient of the pool, scale 1/4)
// gather: small[n,h,w,c] = scale·Σ_ij large[n,2h+i,2w+j,c].   (average pooling, scale 1/4; the gradient of upsampling)
// The four terms are added in the order (0,0), (0,1), (1,0), (1,1).
// The _vec4 entries view vectors of four channels: C must be a multiple of 4, `count` and `channels` are of vectors.

struct Params {
    count: u32,      // of the small tensor
    width: u32,      // W, of the small tensor
    channels: u32,
    accumulate: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<elem>>;

// The upper left of the four elements of the large tensor that belong to element i of the small one.
fn corner(i: u32) -> u32 {
    let c = i % p.channels;
    let pixel = i / p.channels;
    let w = pixel % p.width;
    let row = pixel / p.width; // n·H + h: the large tensor has two rows for each, through all images
    return (row * 4u * p.width + w * 2u) * p.channels + c;
}

// From a row of the large tensor to the next.
fn large_row() -> u32 {
    return 2u * p.width * p.channels;
}

fn put(i: u32, value: f32) {
    var v = value;
    if (p.accumulate != 0u) {
        v += f32(y[i]);
    }
    y[i] = elem(v);
}

fn put4(i: u32, value: vec4<f32>) {
    var v = value;
    if (p.accumulate != 0u) {
        v += vec4<f32>(y4[i]);
    }
    y4[i] = vec4<elem>(v);
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
    let v = p.scale * f32(x[i]);
    let above = corner(i);
    let below = above + large_row();
    put(above, v);
    put(above + p.channels, v);
    put(below, v);
    put(below + p.channels, v);
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
    let v = p.scale * vec4<f32>(x4[i]);
    let above = corner(i);
    let below = above + large_row();
    put4(above, v);
    put4(above + p.channels, v);
    put4(below, v);
    put4(below + p.channels, v);
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
    let above = corner(i);
    let below = above + large_row();
    let top = f32(x[above]) + f32(x[above + p.channels]);
    put(i, p.scale * (top + f32(x[below]) + f32(x[below + p.channels])));
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
    let above = corner(i);
    let below = above + large_row();
    let top = vec4<f32>(x4[above]) + vec4<f32>(x4[above + p.channels]);
    put4(i, p.scale * (top + vec4<f32>(x4[below]) + vec4<f32>(x4[below + p.channels])));
}
