#import guided
#import rule_cfg
#import philox
#import normal
// The guided ancestral step of guided_step.wgsl, two vectors of four elements in memory order an invocation: the same bits.
// Needs H·W divisible by 4 and C a divisor of 192. C neighbouring invocations share four pixels, which are C vectors: each
// makes the noise of one channel there, one Philox block, and takes one vector. The noise changes hands in workgroup memory.
// z [N, H, W, C], eps [2N or N, H, W, E] elem; workgroup (x, n): 384 vectors of sample n, an invocation takes the vectors
// lane and 192 + lane. What bounds it is arithmetic: the numbers of the step and the key serve both.
// Trusted: vectors are taken below length / 4 and predictions below E/C times as many in each half; steps, strength and
// seeds have a row for every step and sample read; rows of the table are below 512; noise lies below 384 by the two above.

const SIZE: u32 = 192u;
const TILE: u32 = 384u;

// C, E and whether there are both halves, known when the kernel is compiled: division is multiplication, and no branch stands
// between the loads.
override channels: u32 = 3u;
override eps_channels: u32 = 3u;
override pair: u32 = 1u;

@group(0) @binding(0) var<storage, read_write> z4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> eps4: array<vec4<elem>>;
@group(0) @binding(5) var<storage, read> seeds: array<vec2<u32>>;       // [N] (low, high)
@group(0) @binding(6) var<storage, read> table: array<vec2<u32>, 512>;
@group(0) @binding(7) var<uniform> p: Params;

@group(0) @binding(7) var<storage, read_write> preview4: array<vec4<f32>>; // [N, H, W, C]: x
@group(0) @binding(8) var<uniform> q: Params;

@group(0) @binding(5) var<storage, read_write> magnitude4: array<vec4<f32>>; // [N, length]
@group(0) @binding(6) var<uniform> r: Params;

var<workgroup> noise: array<vec4<f32>, TILE>;

// The predictions for vector i of sample n, from `base` on: 0, or the elements of the conditional half.
fn predicted(base: u32, n: u32, i: u32, m: Params) -> vec4<f32> {
    if (eps_channels == channels) {
        return vec4<f32>(eps4[(base + n * m.length) / 4u + i]);
    }
    // Behind C channels come others.
    var v: vec4<f32>;
    var place = vec2<u32>(i * 4u / channels, i * 4u % channels); // pixel, channel
    for (var j = 0u; j < 4u; j++) {
        let at = base + (n * m.pixels + place.x) * eps_channels + place.y;
        v[j] = f32(eps4[at / 4u][at % 4u]);
        place.y += 1u;
        if (place.y == channels) {
            place = vec2<u32>(place.x + 1u, 0u);
        }
    }
    return v;
}

// The predictions of both halves; without two of them the same twice.
struct Both {
    conditional: vec4<f32>,
    unconditional: vec4<f32>,
}

fn both(n: u32, i: u32, m: Params) -> Both {
    let conditional = predicted(0u, n, i, m);
    if (pair == 0u) {
        return Both(conditional, conditional);
    }
    return Both(conditional, predicted(m.samples * m.pixels * eps_channels, n, i, m));
}

fn guided(halves: Both, value: vec4<f32>, k: Rule) -> vec4<f32> {
    if (pair == 0u) {
        return halves.conditional;
    }
    return combined_four(k, halves.conditional, halves.unconditional, value);
}

// Puts the noise of one channel of four pixels where their vectors are, twice.
fn share_noise(n: u32, tile: u32, lane: u32, m: Params) {
    let group = lane / channels;
    let channel = lane - group * channels;
    let first = group * channels * 4u + channel;
    let block = channel * (m.pixels / 4u) + tile * (TILE / channels) + group;
    let key = seeds[n];
    let now = counter[0];
    #unroll v in 0..2
    let words${v} = philox4x32_10(vec4<u32>(block + ${v}u * (SIZE / channels), now, 0u, m.stream), key);
    #end
    #unroll v in 0..2
    #unroll j in 0..4
    let row${v}_${j} = table[normal_segment(words${v}[${j}])];
    #end
    #end
    #unroll j in 0..4
    let at${j} = first + ${j}u * channels;
    #unroll v in 0..2
    noise[${v}u * SIZE + at${j} / 4u][at${j} % 4u] = normal_from_word(words${v}[${j}], row${v}_${j});
    #end
    #end
}

// x; z there becomes the next latent.
fn advance(at: u32, value: vec4<f32>, eps: vec4<f32>, noise: vec4<f32>, step: Step, k: Rule, clip: u32) -> vec4<f32> {
    let x = clipped((value - step.sigma * eps) * step.inverse_alpha, threshold_of(k), clip);
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
    let vectors = p.length / 4u;
    let now = current_step(p.steps);
    let k = rule_of(n, p.rows, step_index(p.steps));
    // Under way while the noise is made: nothing is computed of them before. Invocations past the end read the last vector again.
    #unroll v in 0..2
    let i${v} = wid.x * TILE + ${v}u * SIZE + lane;
    let from${v} = min(i${v}, vectors - 1u);
    let value${v} = z4[n * vectors + from${v}];
    let eps${v} = both(n, from${v}, p);
    #end
    share_noise(n, wid.x, lane, p);
    workgroupBarrier();
    #unroll v in 0..2
    if (i${v} < vectors) {
        advance(n * vectors + i${v}, value${v}, guided(eps${v}, value${v}, k), noise[${v}u * SIZE + lane], now, k, p.clip);
    }
    #end
}

@compute @workgroup_size(192)
fn step_preview(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let vectors = q.length / 4u;
    let now = current_step(q.steps);
    let k = rule_of(n, q.rows, step_index(q.steps));
    #unroll v in 0..2
    let i${v} = wid.x * TILE + ${v}u * SIZE + lane;
    let from${v} = min(i${v}, vectors - 1u);
    let value${v} = z4[n * vectors + from${v}];
    let eps${v} = both(n, from${v}, q);
    #end
    share_noise(n, wid.x, lane, q);
    workgroupBarrier();
    #unroll v in 0..2
    if (i${v} < vectors) {
        let at = n * vectors + i${v};
        preview4[at] = advance(at, value${v}, guided(eps${v}, value${v}, k), noise[${v}u * SIZE + lane], now, k, q.clip);
    }
    #end
}

@compute @workgroup_size(192)
fn magnitudes(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let vectors = r.length / 4u;
    let now = current_step(r.steps);
    let k = rule_of(n, r.rows, step_index(r.steps));
    #unroll v in 0..2
    let i${v} = wid.x * TILE + ${v}u * SIZE + lane;
    let from${v} = n * vectors + min(i${v}, vectors - 1u);
    let value${v} = z4[from${v}];
    let eps${v} = both(n, min(i${v}, vectors - 1u), r);
    let size${v} = abs((value${v} - now.sigma * guided(eps${v}, value${v}, k)) * now.inverse_alpha);
    #end
    #unroll v in 0..2
    if (i${v} < vectors) {
        magnitude4[n * vectors + i${v}] = size${v};
    }
    #end
}
