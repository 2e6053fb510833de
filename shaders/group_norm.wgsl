#import index
// Group norm, forward.  u = ((x - mean)·rstd·gamma + beta)·(1 + scale) + shift,  y = u or u·σ(u).
// x [N, P, C] with P pixels, groups of C/G channels.  All of a channel's numbers come down to four, its
// coefficients [N, 4, C]: mean, rstd, gain = rstd·gamma·(1 + scale), bias = beta·(1 + scale) + shift, and
// u = (x - mean)·gain + bias: the large mean of an input is taken off before anything is multiplied.
// The entries ending in 4 take four channels an invocation: C must divide by 4 (C/G need not).
// Neither workgroup memory nor barriers: for software adapters, and for any channels. See also group_norm_tiled.wgsl.

struct Params {
    batch: u32,
    pixels: u32,
    channels: u32,
    groups: u32,
    block: u32,            // pixels of a block
    blocks: u32,           // ceil(pixels / block)
    silu: u32,
    scale_shift: u32,      // 0: none, 1: f32, 2: f16
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;                  // [N, P, C]
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;           // [N, P, C/4]
@group(0) @binding(0) var<storage, read> chunks: array<vec4<f32>>;         // [N, chunks, G]: mean, Σ(x - mean)², count
@group(0) @binding(1) var<storage, read> gamma: array<f32>;               // [C]
@group(0) @binding(2) var<storage, read> beta: array<f32>;                // [C]
@group(0) @binding(3) var<storage, read> scale_shift: array<u32>;         // [N, 2, C] in f32 or f16
@group(0) @binding(4) var<storage, read_write> coefficients: array<f32>;  // [N, 4, C]
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> known: array<f32>;               // coefficients [N, 4, C]
@group(0) @binding(1) var<storage, read> known4: array<vec4<f32>>;        // coefficients [N, 4, C/4]
@group(0) @binding(2) var<storage, read_write> y: array<elem>;            // [N, P, C]
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<elem>>;     // [N, P, C/4]
@group(0) @binding(3) var<uniform> r: Params;

fn modulation(i: u32) -> f32 {
    if (p.scale_shift == 2u) {
        return unpack2x16float(scale_shift[i / 2u])[i % 2u];
    }
    return bitcast<f32>(scale_shift[i]);
}

fn write_coefficients(n: u32, c: u32, mean: f32, rstd: f32) {
    var gain = rstd * gamma[c];
    var bias = beta[c];
    if (p.scale_shift != 0u) {
        let scale = 1.0 + modulation(n * 2u * p.channels + c);
        gain *= scale;
        bias = bias * scale + modulation((n * 2u + 1u) * p.channels + c);
    }
    let at = n * 4u * p.channels + c;
    coefficients[at] = mean;
    coefficients[at + p.channels] = rstd;
    coefficients[at + 2u * p.channels] = gain;
    coefficients[at + 3u * p.channels] = bias;
}

// Statistics, one invocation an image and group: the mean first, then the squares around it.
@compute @workgroup_size(16)
fn whole_groups(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    if (i >= p.batch * p.groups) {
        return;
    }
    let n = i / p.groups;
    let width = p.channels / p.groups;
    let first = n * p.pixels * p.channels + (i % p.groups) * width;
    let count = f32(p.pixels * width);
    // Sums are of differences from the first element and pixel by pixel, so neither a large mean nor a long sum
    // costs digits.
    let origin = f32(x[first]);
    var total = 0.0;
    for (var pixel = 0u; pixel < p.pixels; pixel++) {
        var sum = 0.0;
        for (var c = 0u; c < width; c++) {
            sum += f32(x[first + pixel * p.channels + c]) - origin;
        }
        total += sum;
    }
    let mean = origin + total / count;
    total = 0.0;
    for (var pixel = 0u; pixel < p.pixels; pixel++) {
        var sum = 0.0;
        for (var c = 0u; c < width; c++) {
            let d = f32(x[first + pixel * p.channels + c]) - mean;
            sum += d * d;
        }
        total += sum;
    }
    let rstd = 1.0 / sqrt(total / count + p.eps);
    for (var c = 0u; c < width; c++) {
        write_coefficients(n, (i % p.groups) * width + c, mean, rstd);
    }
}

// The same of statistics that were taken chunk by chunk; p.blocks are the chunks of an image.
@compute @workgroup_size(16)
fn of_chunks(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    if (i >= p.batch * p.groups) {
        return;
    }
    let n = i / p.groups;
    let first = n * p.blocks * p.groups + i % p.groups;
    let origin = chunks[first].x;
    var sum = 0.0;
    var squares = 0.0;
    var count = 0.0;
    for (var chunk = 0u; chunk < p.blocks; chunk++) {
        let one = chunks[first + chunk * p.groups];
        let d = one.x - origin;
        sum += one.z * d;
        squares += one.y + one.z * d * d;
        count += one.z;
    }
    let shift = sum / count;
    let rstd = 1.0 / sqrt(max(squares / count - shift * shift, 0.0) + p.eps);
    let width = p.channels / p.groups;
    for (var c = 0u; c < width; c++) {
        write_coefficients(n, (i % p.groups) * width + c, origin + shift, rstd);
    }
}

// One element an invocation.
@compute @workgroup_size(64)
fn apply(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= r.batch * r.pixels * r.channels) {
        return;
    }
    let at = i / (r.pixels * r.channels) * 4u * r.channels + i % r.channels;
    let u = (f32(x[i]) - known[at]) * known[at + 2u * r.channels] + known[at + 3u * r.channels];
    y[i] = elem(select(u, u / (1.0 + exp(-u)), r.silu != 0u));
}

// Four channels of the pixels of a block an invocation.
@compute @workgroup_size(64)
fn apply4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let quads = r.channels / 4u;
    if (i >= r.batch * r.blocks * quads) {
        return;
    }
    let quad = i % quads;
    let b = i / quads;
    let n = b / r.blocks;
    let start = (b % r.blocks) * r.block;
    let count = min(r.block, r.pixels - start);
    let first = (n * r.pixels + start) * quads + quad;
    let mean = known4[n * 4u * quads + quad];
    let gain = known4[(n * 4u + 2u) * quads + quad];
    let bias = known4[(n * 4u + 3u) * quads + quad];
    for (var pixel = 0u; pixel < count; pixel++) {
        let at = first + pixel * quads;
        var u = (vec4<f32>(x4[at]) - mean) * gain + bias;
        if (r.silu != 0u) {
            u = u / (1.0 + exp(-u));
        }
        y4[at] = vec4<elem>(u);
    }
}
