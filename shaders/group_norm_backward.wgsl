#import index
// Group norm, backward.  With d = x - mean, u = d·gain + bias and du = dy or dy·silu'(u), per image and channel
//   A = Σ du,  D = Σ du·d                                                    over the pixels
//   K1 = Σ gain·A / M,  K2 = rstd²·Σ gain·D / M                              over the channels of a group, M = P·C/G
//   dx = du·gain - K1 - d·K2
//   dshift = A,  dscale = gamma·rstd·D + beta·A
//   dbeta = Σ_n (1 + scale)·A,  dgamma = Σ_n (1 + scale)·rstd·D
// x, dy, dx [N, P, C]; coefficients [N, 4, C] of the forward pass: mean, rstd, gain, bias.
// The entries ending in 4 take four channels an invocation: C must divide by 4 (C/G need not).
// See also group_norm_tiled_backward.wgsl.

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
    accumulate: u32,
    of_beta: u32,          // affine_gradient: that of beta instead of gamma
}

@group(0) @binding(0) var<storage, read> x: array<elem>;                     // [N, P, C]
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;              // [N, P, C/4]
@group(0) @binding(1) var<storage, read> dy: array<elem>;                    // [N, P, C]
@group(0) @binding(1) var<storage, read> dy4: array<vec4<elem>>;             // [N, P, C/4]
@group(0) @binding(2) var<storage, read> coefficients: array<f32>;           // [N, 4, C]
@group(0) @binding(2) var<storage, read> coefficients4: array<vec4<f32>>;    // [N, 4, C/4]
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;          // [N, blocks, 2, C]: A, D of a block
@group(0) @binding(3) var<storage, read_write> partial4: array<vec4<f32>>;   // [N, blocks, 2, C/4]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> sums: array<f32>;                   // [N, 2, C]: A, D
@group(0) @binding(1) var<storage, read> known: array<f32>;                  // coefficients [N, 4, C]
@group(0) @binding(2) var<storage, read_write> totals: array<f32>;           // [N, 2, C]: K1, K2 of the channel's group
@group(0) @binding(3) var<uniform> r: Params;

@group(0) @binding(3) var<storage, read> group_totals: array<f32>;           // [N, 2, C]
@group(0) @binding(3) var<storage, read> group_totals4: array<vec4<f32>>;    // [N, 2, C/4]
@group(0) @binding(4) var<storage, read_write> dx: array<elem>;              // [N, P, C]
@group(0) @binding(4) var<storage, read_write> dx4: array<vec4<elem>>;       // [N, P, C/4]
@group(0) @binding(5) var<uniform> s: Params;

@group(0) @binding(2) var<storage, read> scale_shift: array<u32>;            // [N, 2, C] in f32 or f16
@group(0) @binding(3) var<storage, read_write> affine: array<f32>;           // [C]: dgamma or dbeta

@group(0) @binding(2) var<storage, read> gamma: array<f32>;                  // [C]
@group(0) @binding(3) var<storage, read> beta: array<f32>;                   // [C]
@group(0) @binding(4) var<storage, read_write> dscale_shift: array<elem>;    // [N, 2, C]

// silu'(u)
fn slope(u: f32) -> f32 {
    let t = 1.0 / (1.0 + exp(-u));
    return t * (1.0 + u * (1.0 - t));
}

fn slope4(u: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + exp(-u));
    return t * (1.0 + u * (1.0 - t));
}

// A and D, one invocation an image, block of pixels and channel.
@compute @workgroup_size(64)
fn block_sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.batch * p.blocks * p.channels) {
        return;
    }
    let c = i % p.channels;
    let b = i / p.channels;
    let n = b / p.blocks;
    let start = (b % p.blocks) * p.block;
    let count = min(p.block, p.pixels - start);
    let mean = coefficients[n * 4u * p.channels + c];
    let gain = coefficients[(n * 4u + 2u) * p.channels + c];
    let bias = coefficients[(n * 4u + 3u) * p.channels + c];
    var sum_a = 0.0;
    var sum_d = 0.0;
    for (var pixel = 0u; pixel < count; pixel++) {
        let at = (n * p.pixels + start + pixel) * p.channels + c;
        let d = f32(x[at]) - mean;
        var du = f32(dy[at]);
        if (p.silu != 0u) {
            du *= slope(d * gain + bias);
        }
        sum_a += du;
        sum_d += du * d;
    }
    partial[b * 2u * p.channels + c] = sum_a;
    partial[(b * 2u + 1u) * p.channels + c] = sum_d;
}

@compute @workgroup_size(64)
fn block_sums4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let quads = p.channels / 4u;
    if (i >= p.batch * p.blocks * quads) {
        return;
    }
    let quad = i % quads;
    let b = i / quads;
    let n = b / p.blocks;
    let start = (b % p.blocks) * p.block;
    let count = min(p.block, p.pixels - start);
    let first = (n * p.pixels + start) * quads + quad;
    let mean = coefficients4[n * 4u * quads + quad];
    let gain = coefficients4[(n * 4u + 2u) * quads + quad];
    let bias = coefficients4[(n * 4u + 3u) * quads + quad];
    var sum_a = vec4<f32>();
    var sum_d = vec4<f32>();
    for (var pixel = 0u; pixel < count; pixel++) {
        let at = first + pixel * quads;
        let d = vec4<f32>(x4[at]) - mean;
        var du = vec4<f32>(dy4[at]);
        if (p.silu != 0u) {
            du *= slope4(d * gain + bias);
        }
        sum_a += du;
        sum_d += du * d;
    }
    partial4[b * 2u * quads + quad] = sum_a;
    partial4[(b * 2u + 1u) * quads + quad] = sum_d;
}

// K1 and K2, one invocation an image and group.
@compute @workgroup_size(16)
fn group_sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    if (i >= r.batch * r.groups) {
        return;
    }
    let n = i / r.groups;
    let width = r.channels / r.groups;
    let first = (i % r.groups) * width;
    let base = n * 2u * r.channels;
    var sum_a = 0.0;
    var sum_d = 0.0;
    for (var c = first; c < first + width; c++) {
        let gain = known[(n * 4u + 2u) * r.channels + c];
        sum_a += gain * sums[base + c];
        sum_d += gain * sums[base + r.channels + c];
    }
    let rstd = known[(n * 4u + 1u) * r.channels + first];
    let count = f32(r.pixels * width);
    for (var c = first; c < first + width; c++) {
        totals[base + c] = sum_a / count;
        totals[base + r.channels + c] = rstd * rstd * sum_d / count;
    }
}

// One element an invocation.
@compute @workgroup_size(64)
fn input_gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= s.batch * s.pixels * s.channels) {
        return;
    }
    let n = i / (s.pixels * s.channels);
    let c = i % s.channels;
    let d = f32(x[i]) - coefficients[n * 4u * s.channels + c];
    let gain = coefficients[(n * 4u + 2u) * s.channels + c];
    var du = f32(dy[i]);
    if (s.silu != 0u) {
        du *= slope(d * gain + coefficients[(n * 4u + 3u) * s.channels + c]);
    }
    var g = du * gain - group_totals[n * 2u * s.channels + c] - d * group_totals[(n * 2u + 1u) * s.channels + c];
    if (s.accumulate != 0u) {
        g += f32(dx[i]);
    }
    dx[i] = elem(g);
}

// Four channels of the pixels of a block an invocation.
@compute @workgroup_size(64)
fn input_gradient4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let quads = s.channels / 4u;
    if (i >= s.batch * s.blocks * quads) {
        return;
    }
    let quad = i % quads;
    let b = i / quads;
    let n = b / s.blocks;
    let start = (b % s.blocks) * s.block;
    let count = min(s.block, s.pixels - start);
    let first = (n * s.pixels + start) * quads + quad;
    let mean = coefficients4[n * 4u * quads + quad];
    let gain = coefficients4[(n * 4u + 2u) * quads + quad];
    let bias = coefficients4[(n * 4u + 3u) * quads + quad];
    let k1 = group_totals4[n * 2u * quads + quad];
    let k2 = group_totals4[(n * 2u + 1u) * quads + quad];
    for (var pixel = 0u; pixel < count; pixel++) {
        let at = first + pixel * quads;
        let d = vec4<f32>(x4[at]) - mean;
        var du = vec4<f32>(dy4[at]);
        if (s.silu != 0u) {
            du *= slope4(d * gain + bias);
        }
        var g = du * gain - k1 - d * k2;
        if (s.accumulate != 0u) {
            g += vec4<f32>(dx4[at]);
        }
        dx4[at] = vec4<elem>(g);
    }
}

// dgamma or dbeta, one invocation a channel.
@compute @workgroup_size(16)
fn affine_gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = linear_index(wid, groups, 16u, lane);
    if (c >= p.channels) {
        return;
    }
    var g = 0.0;
    for (var n = 0u; n < p.batch; n++) {
        var term = 0.0;
        if (p.of_beta != 0u) {
            term = sums[n * 2u * p.channels + c];
        } else {
            term = sums[(n * 2u + 1u) * p.channels + c] * known[(n * 4u + 1u) * p.channels + c];
        }
        let at = n * 2u * p.channels + c;
        if (p.scale_shift == 1u) {
            term *= 1.0 + bitcast<f32>(scale_shift[at]);
        } else if (p.scale_shift == 2u) {
            term *= 1.0 + unpack2x16float(scale_shift[at / 2u])[at % 2u];
        }
        g += term;
    }
    if (p.accumulate != 0u) {
        g += affine[c];
    }
    affine[c] = g;
}

// One invocation an image and channel.
@compute @workgroup_size(64)
fn scale_shift_gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= s.batch * s.channels) {
        return;
    }
    let n = i / s.channels;
    let c = i % s.channels;
    let scale_at = n * 2u * s.channels + c;
    let shift_at = scale_at + s.channels;
    let a = sums[scale_at];
    let rstd = known[(n * 4u + 1u) * s.channels + c];
    var dscale = gamma[c] * rstd * sums[shift_at] + beta[c] * a;
    var dshift = a;
    if (s.accumulate != 0u) {
        dscale += f32(dscale_shift[scale_at]);
        dshift += f32(dscale_shift[shift_at]);
    }
    dscale_shift[scale_at] = elem(dscale);
    dscale_shift[shift_at] = elem(dshift);
}
