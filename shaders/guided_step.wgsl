#import index
#import guided
#import rule_cfg
#import philox
#import normal
#import chw
// The guided ancestral step (CFG, Algorithm 2, lines 3-6), z in place:
//   eps = rule(eps_c, eps_u),  x = clip((z - sigma eps)/alpha),  z <- mean_z z + mean_x x + noise_sd·noise, or x in the last step.
// z [N, H, W, C], eps [2N or N, H, W, E] with E >= C, its first C channels read: conditional half, then unconditional.
// noise: Philox key = seeds[n], counter = (block, step, 0, 1), four elements in C, H, W order (see chw.wgsl).
// One element at a time, any shape: the fast twin of the common shapes is guided_step_packed.wgsl.
// magnitudes: |x| before the clip, for those who need its quantiles.   z is f32, eps elem. N·H·W·E·2 below 2^32.

@group(0) @binding(0) var<storage, read_write> z: array<f32>;
@group(0) @binding(1) var<storage, read> eps: array<elem>;
@group(0) @binding(5) var<storage, read> seeds: array<vec2<u32>>;   // [N] (low, high)
@group(0) @binding(6) var<storage, read> table: array<vec2<u32>, 512>;
@group(0) @binding(7) var<uniform> p: Params;

@group(0) @binding(7) var<storage, read_write> preview: array<f32>; // [N, H, W, C]: x
@group(0) @binding(8) var<uniform> q: Params;

@group(0) @binding(5) var<storage, read_write> magnitude: array<f32>; // [N, length]
@group(0) @binding(6) var<uniform> r: Params;

// The guided noise at a place (pixel, channel) of sample n, where z is `value`.
fn guided(n: u32, place: vec2<u32>, value: f32, k: Rule, m: Params) -> f32 {
    let whole = m.pixels * m.eps_channels;
    let i = n * whole + place.x * m.eps_channels + place.y;
    if (m.pair == 0u) {
        return f32(eps[i]);
    }
    return combined_one(k, f32(eps[i]), f32(eps[m.samples * whole + i]), value);
}

// x at a place of sample n, element i; z there becomes the next latent.
fn advance(i: u32, n: u32, place: vec2<u32>, noise: f32, step: Step, k: Rule, m: Params) -> f32 {
    let raw = (z[i] - step.sigma * guided(n, place, z[i], k, m)) * step.inverse_alpha;
    let x = clipped(vec4<f32>(raw), threshold_of(k), m.clip).x;
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
    let k = rule_of(n, p.rows, step_index(p.steps));
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
    let k = rule_of(n, q.rows, step_index(q.steps));
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
    let k = rule_of(n, r.rows, step_index(r.steps));
    let place = vec2<u32>((i % r.length) / r.channels, i % r.channels);
    magnitude[i] = abs((z[i] - now.sigma * guided(n, place, z[i], k, r)) * now.inverse_alpha);
}
