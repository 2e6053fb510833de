#import index
#import philox
#import normal
#import chw
#import rule_cfg
// One move of a sampler, z in place:
//   x = clip(x_z z + x_out out),  z <- mean_z z + mean_x x + mean_out out + mean_previous x' + mean_gradient V g + noise sqrt(V) normal.
// z, gradient [N, H, W, C]; out [2N or N, H, W, E], E = C or 2C: predictions and, learned, variance channels; the conditional
//   half, whose variances count, then the unconditional one. V: 1, or exp(f log_large + (1 - f) log_small), f = (v + 1)/2, or
//   exp(v). x' is the x of the move before, kept in `previous`.
// steps [T, 12] words: x_z, x_out, mean_z, mean_x | mean_out, mean_previous, noise, time | mean_gradient, log_small, log_large,
//   out_gradient. counter [1], or [N]: the step of each sample.
// noise: Philox key = seeds[n], counter = (block, step, 0, 1), four elements in C, H, W order; `given` takes it from a tensor.
// guide: out <- out + out_gradient g, both halves.   magnitudes: |x| before the clip.   Always f32. 2·N·H·W·E below 2^32.

struct Params {
    count: u32,        // invocations
    blocks: u32,       // of a sample: ceil(length / 4)
    length: u32,       // H·W·C
    channels: u32,     // C
    pixels: u32,       // H·W
    out_channels: u32, // E
    samples: u32,      // N
    pair: u32,         // whether out has both halves
    clip: u32,         // 0: none, 1: to [-1, 1], 2: to ±s, then divided by s
    rows: u32,         // whether the rule has a row for each sample
    steps: u32,        // T
    stream: u32,
    variance: u32,     // 0: fixed, 1: range, 2: its log
    guided: u32,       // whether there is a gradient
    counters: u32,     // 1 or N
}

@group(0) @binding(0) var<storage, read_write> z: array<f32>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> steps: array<vec4<u32>>;   // [T, 3]
@group(0) @binding(3) var<storage, read> counter: array<u32>;       // [1] or [N]
@group(0) @binding(5) var<storage, read> seeds: array<vec2<u32>>;   // [N] (low, high)
@group(0) @binding(6) var<storage, read> table: array<vec2<u32>, 512>;
@group(0) @binding(7) var<storage, read> gradient: array<f32>;      // [N, H, W, C]
@group(0) @binding(8) var<uniform> p: Params;

@group(0) @binding(7) var<storage, read_write> previous: array<f32>; // [N, H, W, C]

@group(0) @binding(5) var<storage, read> noise: array<f32>;          // [N, H, W, C]
@group(0) @binding(6) var<storage, read> slope: array<f32>;          // [N, H, W, C]: the gradient
@group(0) @binding(7) var<uniform> q: Params;

@group(0) @binding(5) var<storage, read_write> magnitude: array<f32>; // [N, length]
@group(0) @binding(6) var<uniform> r: Params;

@group(0) @binding(0) var<storage, read_write> guided_out: array<f32>;
@group(0) @binding(1) var<storage, read> push: array<f32>;            // [N, H, W, C]: the gradient
@group(0) @binding(4) var<uniform> g: Params;

fn step_index(n: u32, m: Params) -> u32 {
    // A plan that is run too often stays at the last step.
    return min(counter[select(0u, n, m.counters > 1u)], m.steps - 1u);
}

// The guided output at a place (pixel, channel) of sample n, where z is `value`.
fn combined(n: u32, place: vec2<u32>, value: f32, k: Rule, m: Params) -> f32 {
    let whole = m.pixels * m.out_channels;
    let i = n * whole + place.x * m.out_channels + place.y;
    if (m.pair == 0u) {
        return out[i];
    }
    return combined_one(k, out[i], out[m.samples * whole + i], value);
}

fn clipped(x: f32, s: f32, clip: u32) -> f32 {
    // A NaN must pass on to where it is noticed; clamp may swallow it.
    let is_nan = (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
    if (clip == 0u || is_nan) {
        return x;
    }
    if (clip == 1u) {
        return clamp(x, -1.0, 1.0);
    }
    return clamp(x, -s, s) / s;
}

// (the next z, x) of element i of sample n at a place.
fn moved(i: u32, n: u32, place: vec2<u32>, normal: f32, slope: f32, before: f32, m: Params) -> vec2<f32> {
    let row = step_index(n, m) * 3u;
    let a = bitcast<vec4<f32>>(steps[row]);
    let b = bitcast<vec4<f32>>(steps[row + 1u]);
    let c = bitcast<vec4<f32>>(steps[row + 2u]);
    let k = rule_of(n, m.rows, step_index(n, m));
    let o = combined(n, place, z[i], k, m);
    let x = clipped(a.x * z[i] + a.y * o, threshold_of(k), m.clip);
    var log_variance = 0.0;
    if (m.variance != 0u) {
        let v = out[(n * m.pixels + place.x) * m.out_channels + m.channels + place.y];
        let f = 0.5 * v + 0.5;
        log_variance = select(v, f * c.z + (1.0 - f) * c.y, m.variance == 1u);
    }
    var next = a.z * z[i] + a.w * x + b.x * o + b.y * before;
    if (m.guided != 0u) {
        next += c.x * exp(log_variance) * slope;
    }
    return vec2<f32>(next + b.z * exp(0.5 * log_variance) * normal, x);
}

fn noise_words(n: u32, block: u32, m: Params) -> vec4<u32> {
    let step = counter[select(0u, n, m.counters > 1u)];
    return philox4x32_10(vec4<u32>(block, step, 0u, m.stream), seeds[n]);
}

@compute @workgroup_size(64)
fn step(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let n = i / p.blocks;
    let block = chw_block(i % p.blocks, p.channels, p.pixels);
    let words = noise_words(n, block, p);
    var place = chw_place(block, p.pixels);
    for (var j = 0u; j < min(4u, p.length - block * 4u); j++) {
        let at = n * p.length + place.x * p.channels + place.y;
        let normal = normal_from_word(words[j], table[normal_segment(words[j])]);
        var slope = 0.0;
        if (p.guided != 0u) {
            slope = gradient[at];
        }
        z[at] = moved(at, n, place, normal, slope, 0.0, p).x;
        place = chw_next(place, p.pixels);
    }
}

@compute @workgroup_size(64)
fn multistep(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let n = i / p.blocks;
    let block = chw_block(i % p.blocks, p.channels, p.pixels);
    let words = noise_words(n, block, p);
    var place = chw_place(block, p.pixels);
    for (var j = 0u; j < min(4u, p.length - block * 4u); j++) {
        let at = n * p.length + place.x * p.channels + place.y;
        let normal = normal_from_word(words[j], table[normal_segment(words[j])]);
        // What lies there before the first move is multiplied by zero, and must be a number.
        let next = moved(at, n, place, normal, 0.0, previous[at], p);
        z[at] = next.x;
        previous[at] = next.y;
        place = chw_next(place, p.pixels);
    }
}

@compute @workgroup_size(64)
fn given(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    let n = i / q.length;
    let place = vec2<u32>((i % q.length) / q.channels, i % q.channels);
    var push = 0.0;
    if (q.guided != 0u) {
        push = slope[i];
    }
    z[i] = moved(i, n, place, noise[i], push, 0.0, q).x;
}

@compute @workgroup_size(64)
fn magnitudes(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= r.count) {
        return;
    }
    let n = i / r.length;
    let a = bitcast<vec4<f32>>(steps[step_index(n, r) * 3u]);
    let place = vec2<u32>((i % r.length) / r.channels, i % r.channels);
    magnitude[i] = abs(a.x * z[i] + a.y * combined(n, place, z[i], rule_of(n, r.rows, step_index(n, r)), r));
}

@compute @workgroup_size(64)
fn guide(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= g.count) {
        return;
    }
    let n = (i / g.length) % g.samples;
    let place = vec2<u32>((i % g.length) / g.channels, i % g.channels);
    let factor = bitcast<vec4<f32>>(steps[step_index(n, g) * 3u + 2u]).w;
    let at = ((i / g.length) * g.pixels + place.x) * g.out_channels + place.y;
    guided_out[at] += factor * push[n * g.length + place.x * g.channels + place.y];
}
