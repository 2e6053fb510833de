#import guided
#import philox
#import normal
// The guided ancestral step of guided_step.wgsl, four elements in memory order an invocation: the same bits.
// Needs H·W divisible by 4 and C a divisor of 192. C neighbouring invocations share four pixels, which are C vectors: each
// makes the noise of one channel there, one Philox block, and takes one vector. The noise changes hands in workgroup memory.
// z [N, H, W, C], eps [2N or N, H, W, E] elem; workgroup (x, n): 192 vectors of sample n.

const SIZE: u32 = 192u;

// C, known when the kernel is compiled: division by it is multiplication.
override channels: u32 = 3u;

@group(0) @binding(0) var<storage, read_write> z4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> eps4: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read> seeds: array<vec2<u32>>;       // [N] (low, high)
@group(0) @binding(6) var<storage, read> table: array<vec4<u32>>;       // [512]
@group(0) @binding(7) var<uniform> p: Params;

@group(0) @binding(7) var<storage, read_write> preview4: array<vec4<f32>>; // [N, H, W, C]: x
@group(0) @binding(8) var<uniform> q: Params;

@group(0) @binding(5) var<storage, read_write> magnitude4: array<vec4<f32>>; // [N, length]
@group(0) @binding(6) var<uniform> r: Params;

var<workgroup> noise: array<vec4<f32>, SIZE>;

// The predictions for vector i of sample n, from `base` on: 0, or the elements of the conditional half.
fn predicted(base: u32, n: u32, i: u32, m: Params) -> vec4<f32> {
    if (m.eps_channels == channels) {
        return vec4<f32>(eps4[(base + n * m.length) / 4u + i]);
    }
    // Behind C channels come others.
    var v: vec4<f32>;
    var place = vec2<u32>(i * 4u / channels, i * 4u % channels); // pixel, channel
    for (var j = 0u; j < 4u; j++) {
        let at = base + (n * m.pixels + place.x) * m.eps_channels + place.y;
        v[j] = f32(eps4[at / 4u][at % 4u]);
        place.y += 1u;
        if (place.y == channels) {
            place = vec2<u32>(place.x + 1u, 0u);
        }
    }
    return v;
}

fn guided(n: u32, i: u32, k: vec3<f32>, m: Params) -> vec4<f32> {
    let conditional = predicted(0u, n, i, m);
    if (m.pair == 0u) {
        return conditional;
    }
    return k.x * conditional + k.y * predicted(m.samples * m.pixels * m.eps_channels, n, i, m);
}

// Puts the noise of channel i % C of this invocation's pixels where their vectors are.
fn share_noise(n: u32, i: u32, lane: u32, m: Params) {
    let channel = lane % channels;
    let block = channel * (m.pixels / 4u) + i / channels;
    let words = philox4x32_10(vec4<u32>(block, counter[0], 0u, m.stream), seeds[n]);
    let first = (lane - channel) * 4u + channel;
    #unroll j in 0..4
    let at${j} = first + ${j}u * channels;
    noise[at${j} / 4u][at${j} % 4u] = normal_from_word(words[${j}], table[normal_segment(words[${j}])]);
    #end
}

// x; z there becomes the next latent.
fn advance(at: u32, value: vec4<f32>, eps: vec4<f32>, noise: vec4<f32>, step: Step, k: vec3<f32>, clip: u32) -> vec4<f32> {
    let x = clipped((value - step.sigma * eps) * step.inverse_alpha, k.z, clip);
    if (step.is_last) {
        z4[at] = x;
    } else {
        z4[at] = step.mean_z * value + step.mean_x * x + step.noise_sd * noise;
    }
    return x;
}

@compute @workgroup_size(192)
fn step(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let i = wid.x * SIZE + lane;
    let at = n * (p.length / 4u) + i;
    let now = current_step(p.steps);
    let k = coefficients(n, p.rows);
    // Under way while the noise is made.
    var value: vec4<f32>;
    var eps: vec4<f32>;
    let within = i < p.length / 4u;
    if (within) {
        value = z4[at];
        eps = guided(n, i, k, p);
    }
    share_noise(n, i, lane, p);
    workgroupBarrier();
    if (within) {
        advance(at, value, eps, noise[lane], now, k, p.clip);
    }
}

@compute @workgroup_size(192)
fn step_preview(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let i = wid.x * SIZE + lane;
    let at = n * (q.length / 4u) + i;
    let now = current_step(q.steps);
    let k = coefficients(n, q.rows);
    // Under way while the noise is made.
    var value: vec4<f32>;
    var eps: vec4<f32>;
    let within = i < q.length / 4u;
    if (within) {
        value = z4[at];
        eps = guided(n, i, k, q);
    }
    share_noise(n, i, lane, q);
    workgroupBarrier();
    if (within) {
        preview4[at] = advance(at, value, eps, noise[lane], now, k, q.clip);
    }
}

@compute @workgroup_size(192)
fn magnitudes(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let i = wid.x * SIZE + lane;
    if (i >= r.length / 4u) {
        return;
    }
    let at = n * (r.length / 4u) + i;
    let now = current_step(r.steps);
    let k = coefficients(n, r.rows);
    magnitude4[at] = abs((z4[at] - now.sigma * guided(n, i, k, r)) * now.inverse_alpha);
}
