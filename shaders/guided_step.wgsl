#import index
#import philox
#import normal
#import chw
// The guided ancestral step (CFG, Algorithm 2, lines 3-6), z in place:
//   eps = a eps_c + b eps_u,  x = clip((z - sigma eps)/alpha),  z <- mean_z z + mean_x x + noise_sd·noise, or x in the last step.
// z [N, H, W, C], eps [2N or N, H, W, E] with E >= C, its first C channels read: conditional half, then unconditional.
// steps [T, 12] words: alpha, sigma, 1/alpha, mean_z, mean_x, noise_sd, log_snr, time, is_last (u32), 3 unused.
// strength [1]: w, so a = 1 + w, b = -w; or, `rows` set, [N, 4]: a, b and the dynamic threshold s of each sample.
// noise: Philox key = seeds[n], counter = (block, step, 0, 1), four elements in C, H, W order (see chw.wgsl).
// magnitudes: |x| before the clip, for those who need its quantiles.   Always f32. N·H·W·E·2 below 2^32.

struct Params {
    count: u32,        // N·blocks; for magnitudes N·length
    blocks: u32,       // of a sample: ceil(length / 4)
    length: u32,       // H·W·C
    channels: u32,     // C
    pixels: u32,       // H·W
    eps_channels: u32, // E
    samples: u32,      // N
    pair: u32,         // whether eps has both halves
    clip: u32,         // 0: none, 1: to [-1, 1], 2: to ±s, then divided by s
    rows: u32,         // whether strength is [N, 4]
    steps: u32,        // T
    stream: u32,
}

@group(0) @binding(0) var<storage, read_write> z: array<f32>;
@group(0) @binding(1) var<storage, read> eps: array<f32>;
@group(0) @binding(2) var<storage, read> steps: array<vec4<u32>>;   // [T, 3]
@group(0) @binding(3) var<storage, read> counter: array<u32>;       // [1]
@group(0) @binding(4) var<storage, read> strength: array<f32>;
@group(0) @binding(5) var<storage, read> seeds: array<vec2<u32>>;   // [N] (low, high)
@group(0) @binding(6) var<storage, read> table: array<vec4<u32>>;   // [512]
@group(0) @binding(7) var<uniform> p: Params;

@group(0) @binding(7) var<storage, read_write> preview: array<f32>; // [N, H, W, C]: x
@group(0) @binding(8) var<uniform> q: Params;

@group(0) @binding(5) var<storage, read_write> magnitude: array<f32>; // [N, length]
@group(0) @binding(6) var<uniform> r: Params;

struct Step {
    sigma: f32,
    inverse_alpha: f32,
    mean_z: f32,
    mean_x: f32,
    noise_sd: f32,
    is_last: bool,
}

// A plan that is run too often stays at the last step.
fn current_step(count: u32) -> Step {
    let row = min(counter[0], count - 1u) * 3u;
    let a = bitcast<vec4<f32>>(steps[row]);
    let b = bitcast<vec4<f32>>(steps[row + 1u]);
    return Step(a.y, a.z, a.w, b.x, b.y, steps[row + 2u].x != 0u);
}

// (a, b, s) of sample n.
fn coefficients(n: u32, rows: u32) -> vec3<f32> {
    if (rows != 0u) {
        return vec3<f32>(strength[n * 4u], strength[n * 4u + 1u], strength[n * 4u + 2u]);
    }
    return vec3<f32>(1.0 + strength[0], -strength[0], 1.0);
}

// The guided noise at a place (pixel, channel) of sample n.
fn guided(n: u32, place: vec2<u32>, k: vec3<f32>, m: Params) -> f32 {
    let whole = m.pixels * m.eps_channels;
    let i = n * whole + place.x * m.eps_channels + place.y;
    if (m.pair == 0u) {
        return eps[i];
    }
    return k.x * eps[i] + k.y * eps[m.samples * whole + i];
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

// x at a place of sample n, element i; z there becomes the next latent.
fn advance(i: u32, n: u32, place: vec2<u32>, noise: f32, step: Step, k: vec3<f32>, m: Params) -> f32 {
    let x = clipped((z[i] - step.sigma * guided(n, place, k, m)) * step.inverse_alpha, k.z, m.clip);
    if (step.is_last) {
        z[i] = x;
    } else {
        z[i] = step.mean_z * z[i] + step.mean_x * x + step.noise_sd * noise;
    }
    return x;
}

fn noise_words(n: u32, block: u32, stream: u32) -> vec4<u32> {
    return philox4x32_10(vec4<u32>(block, counter[0], 0u, stream), seeds[n]);
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
    let now = current_step(p.steps);
    let k = coefficients(n, p.rows);
    let words = noise_words(n, block, p.stream);
    var place = chw_place(block, p.pixels);
    for (var j = 0u; j < min(4u, p.length - block * 4u); j++) {
        let at = n * p.length + place.x * p.channels + place.y;
        let noise = normal_from_word(words[j], table[normal_segment(words[j])]);
        advance(at, n, place, noise, now, k, p);
        place = chw_next(place, p.pixels);
    }
}

@compute @workgroup_size(64)
fn step_preview(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    let n = i / q.blocks;
    let block = chw_block(i % q.blocks, q.channels, q.pixels);
    let now = current_step(q.steps);
    let k = coefficients(n, q.rows);
    let words = noise_words(n, block, q.stream);
    var place = chw_place(block, q.pixels);
    for (var j = 0u; j < min(4u, q.length - block * 4u); j++) {
        let at = n * q.length + place.x * q.channels + place.y;
        let noise = normal_from_word(words[j], table[normal_segment(words[j])]);
        preview[at] = advance(at, n, place, noise, now, k, q);
        place = chw_next(place, q.pixels);
    }
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
    let now = current_step(r.steps);
    let k = coefficients(n, r.rows);
    let place = vec2<u32>((i % r.length) / r.channels, i % r.channels);
    magnitude[i] = abs((z[i] - now.sigma * guided(n, place, k, r)) * now.inverse_alpha);
}
