#import index
// Bytes to a square of numbers:  y = factor·(bilinear of x) + shift,  corners not aligned; no smoothing when it shrinks.
// Place i reads at i·(n/size), or with `centred` set at max((i + 1/2)(n/size) - 1/2, 0): between its two neighbours.
// x [N, H, W, C] bytes, four to a word, y [N, size, size, C] f32.

struct Params {
    count: u32, // of y
    height: u32,
    width: u32,
    channels: u32,
    size: u32,
    centred: u32,
    factor: f32,
    shift: f32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

fn at(i: u32) -> f32 {
    return f32((x[i / 4u] >> (8u * (i % 4u))) & 255u);
}

// (place before, part of the way to the next) of output place i over n places.
fn source(i: u32, n: u32) -> vec2<f32> {
    let ratio = f32(n) / f32(p.size);
    var s = f32(i) * ratio;
    if (p.centred != 0u) {
        s = max((f32(i) + 0.5) * ratio - 0.5, 0.0);
    }
    let low = min(floor(s), f32(n - 1u));
    return vec2<f32>(low, s - low);
}

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let c = i % p.channels;
    let place = i / p.channels;
    let across = source(place % p.size, p.width);
    let down = source(place / p.size % p.size, p.height);
    let n = place / (p.size * p.size);
    let x0 = u32(across.x);
    let x1 = min(x0 + 1u, p.width - 1u);
    let y0 = u32(down.x);
    let y1 = min(y0 + 1u, p.height - 1u);
    let above = (n * p.height + y0) * p.width;
    let below = (n * p.height + y1) * p.width;
    let upper = mix(at((above + x0) * p.channels + c), at((above + x1) * p.channels + c), across.y);
    let lower = mix(at((below + x0) * p.channels + c), at((below + x1) * p.channels + c), across.y);
    y[i] = p.factor * mix(upper, lower, down.y) + p.shift;
}
