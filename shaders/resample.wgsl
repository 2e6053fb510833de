#import index
#import pack
// Resampling by two.  small [N, H, W, C], large [N, rH, 2W, C], r rows being 2, or 1 of lines; an invocation an element of the
// small one.
// spread: large[n,rh+i,2w+j,c] = scale·small[n,h,w,c].   (nearest upsampling; the gradient of the pool, scale 1/2r)
// gather: small[n,h,w,c] = scale·Σ_ij large[n,rh+i,2w+j,c].   (average pooling, scale 1/2r; the gradient of upsampling)
// The terms are added in the order (0,0), (0,1), (1,0), (1,1).
// The entries that end in _packed are for C of whole packs; `count` and `channels` are of packs.

struct Params {
    count: u32,      // of the small tensor
    width: u32,      // W, of the small tensor
    channels: u32,
    accumulate: u32,
    scale: f32,
    rows: u32,       // of the large tensor, for each of the small one: 2, or 1
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> y_pack: array<pack>;

// The upper left of the four elements of the large tensor that belong to element i of the small one.
fn corner(i: u32) -> u32 {
    let c = i % p.channels;
    let pixel = i / p.channels;
    let w = pixel % p.width;
    let row = pixel / p.width; // n·H + h: the large tensor has `rows` for each, through all images
    return (row * p.rows * 2u * p.width + w * 2u) * p.channels + c;
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

// The pack at i of the result, where it is added to; zero where not.
fn before(i: u32) -> pack {
    var old: pack;
    if (p.accumulate != 0u) {
        old = y_pack[i];
    }
    return old;
}

fn put_scaled(i: u32, value: pack) {
    let old = before(i);
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, p.scale * part${v}(value) + part${v}(old));
    #end
    y_pack[i] = result;
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
    if (p.rows > 1u) {
        put(below, v);
        put(below + p.channels, v);
    }
}

@compute @workgroup_size(256)
fn spread_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let value = x_pack[i];
    let above = corner(i);
    let below = above + large_row();
    put_scaled(above, value);
    put_scaled(above + p.channels, value);
    if (p.rows > 1u) {
        put_scaled(below, value);
        put_scaled(below + p.channels, value);
    }
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
    var sum = f32(x[above]) + f32(x[above + p.channels]);
    if (p.rows > 1u) {
        sum = sum + f32(x[below]) + f32(x[below + p.channels]);
    }
    put(i, p.scale * sum);
}

@compute @workgroup_size(256)
fn gather_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let above = corner(i);
    let below = above + large_row();
    let a = x_pack[above];
    let b = x_pack[above + p.channels];
    // A line has nothing below: zeros.
    var c: pack;
    var d: pack;
    if (p.rows > 1u) {
        c = x_pack[below];
        d = x_pack[below + p.channels];
    }
    let old = before(i);
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, p.scale * (part${v}(a) + part${v}(b) + part${v}(c) + part${v}(d)) + part${v}(old));
    #end
    y_pack[i] = result;
}
