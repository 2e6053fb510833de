#import index
// Bilinear upsampling by a whole factor F, corners not aligned: output row i reads at (i + ½)/F - ½, not below 0; the
// last row stands for those past it. x [N, H, W, C], y [N, F·H, F·W, C], f32.
// backward: an invocation an element of dx; it walks the outputs that read it, row by row.

struct Params {
    count: u32, // of what the entry writes
    height: u32,
    width: u32,
    channels: u32,
    factor: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

// The two places that output place i reads, of `length`, and the weight of the second.
struct Reads {
    low: u32,
    high: u32,
    weight: f32,
}

fn reads(i: u32, length: u32) -> Reads {
    let at = max((f32(i) + 0.5) / f32(p.factor) - 0.5, 0.0);
    let low = min(u32(at), length - 1u);
    return Reads(low, min(low + 1u, length - 1u), at - f32(low));
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
    let column = reads(i / p.channels % (p.factor * p.width), p.width);
    let line = i / (p.channels * p.factor * p.width);
    let row = reads(line % (p.factor * p.height), p.height);
    let image = line / (p.factor * p.height) * p.height;
    let above = (image + row.low) * p.width;
    let below = (image + row.high) * p.width;
    let top = mix(x[(above + column.low) * p.channels + c], x[(above + column.high) * p.channels + c], column.weight);
    let bottom = mix(x[(below + column.low) * p.channels + c], x[(below + column.high) * p.channels + c], column.weight);
    y[i] = mix(top, bottom, row.weight);
}

// How much place `place` counts in output place i.
fn share(i: u32, place: u32, length: u32) -> f32 {
    let r = reads(i, length);
    var weight = 0.0;
    if (r.low == place) {
        weight += 1.0 - r.weight;
    }
    if (r.high == place) {
        weight += r.weight;
    }
    return weight;
}

// The outputs that may read place `place`: [first, end).
fn readers(place: u32, length: u32) -> vec2<u32> {
    let first = select(0u, (place - 1u) * p.factor, place > 0u);
    return vec2(first, min((place + 2u) * p.factor, length * p.factor));
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let c = i % p.channels;
    let w = i / p.channels % p.width;
    let line = i / (p.channels * p.width);
    let h = line % p.height;
    let image = line / p.height * p.height * p.factor;
    let rows = readers(h, p.height);
    let columns = readers(w, p.width);
    var sum = 0.0;
    for (var row = rows.x; row < rows.y; row++) {
        let high = share(row, h, p.height);
        for (var column = columns.x; column < columns.y; column++) {
            let wide = share(column, w, p.width);
            sum += high * wide * x[((image + row) * p.factor * p.width + column) * p.channels + c];
        }
    }
    if (p.accumulate != 0u) {
        sum += y[i];
    }
    y[i] = sum;
}
