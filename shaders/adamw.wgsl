#import index
// The optimiser's step in three kernels.
// squares: partial[first + block] = Σ g² over 16384 elements.
// prepare: norm = sqrt(Σ partial)/scale, clip factor min(1, clip/norm), whether to skip, bias corrections, loss scale.
// update:  g' = g·clip/scale;  m <- β1 m + (1-β1) g';  v <- β2 v + (1-β2) g'²;
//          p <- p - lr·decay·p - lr·(m/bias1)/(sqrt(v/bias2) + eps);  ema_e <- ema_e + rest_e (p - ema_e);  g <- 0.
// rest_e = max(1 - rate_e, 9/(9 + t)) in the t-th good step, where the averages warm up; else 1 - rate_e.
// bias_i = 1 - β_i^t by the recurrence bias <- (1-β) + β·bias, which keeps its relative precision where t is small.
// params, grads, m, v [n], ema [E, n], all f32, n a multiple of 4, E at most 4.  Deterministic: sums in a fixed order.
// A skipped step (a norm that is inf or NaN) changes nothing but the gradients, which become zero, and the loss scale.

struct State {
    good_steps: u32,
    skipped_steps: u32,
    skip: u32,
    loss_scale: f32,
    bias1: f32,
    bias2: f32,
    log2_scale: f32,
    gradient_norm: f32,
    clip_factor: f32,
    gradient_factor: f32, // clip_factor/scale
    lr: f32,
    weight_decay: f32,
}

struct Params {
    count: u32,          // update: n/4; squares: n/4; prepare: how many partial sums
    first: u32,          // squares
    loss_scaling: u32,   // prepare
    rates: u32,          // update: E
    beta1: f32,
    rest1: f32,          // 1 - beta1, rounded once
    beta2: f32,
    rest2: f32,
    eps: f32,
    ema_warmup: f32,     // 9 where averages warm up, else 0
    ema_rest: vec4<f32>, // 1 - rate of each average
}

@group(0) @binding(0) var<storage, read> gradient: array<vec4<f32>>;   // [n/4]
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;    // [blocks of all arenas]
@group(0) @binding(2) var<uniform> s: Params;

@group(0) @binding(0) var<storage, read> partials: array<f32>;         // [count]
@group(0) @binding(1) var<storage, read> hyper: vec4<f32>;             // lr, weight decay, clip (0: none), unused
@group(0) @binding(2) var<storage, read_write> next: State;
@group(0) @binding(3) var<storage, read_write> scale: array<f32>;      // [1]: what the loss's gradient was multiplied by
@group(0) @binding(4) var<uniform> r: Params;

@group(0) @binding(0) var<storage, read_write> params: array<vec4<f32>>;  // [n/4]
@group(0) @binding(1) var<storage, read_write> grads: array<vec4<f32>>;   // [n/4]
@group(0) @binding(2) var<storage, read_write> moment1: array<vec4<f32>>; // [n/4]
@group(0) @binding(3) var<storage, read_write> moment2: array<vec4<f32>>; // [n/4]
@group(0) @binding(4) var<storage, read> state: State;
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(5) var<storage, read_write> ema: array<vec4<f32>>;     // [E, n/4]
@group(0) @binding(6) var<uniform> q: Params;

const LANES: u32 = 256u;
const VECTORS: u32 = 16u; // a lane of squares
var<workgroup> sums: array<f32, LANES>;

fn workgroup_sum(lane: u32, value: f32) -> f32 {
    sums[lane] = value;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            sums[lane] += sums[lane + width];
        }
    }
    return sums[0];
}

@compute @workgroup_size(256)
fn squares(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = linear_group(wid, groups);
    var sum = 0.0;
    for (var j = 0u; j < VECTORS; j++) {
        let i = (block * VECTORS + j) * LANES + lane;
        if (i < s.count) {
            let g = gradient[i];
            sum += dot(g, g);
        }
    }
    let total = workgroup_sum(lane, sum);
    if (lane == 0u && block * VECTORS * LANES < s.count) {
        partial[s.first + block] = total;
    }
}

@compute @workgroup_size(256)
fn prepare(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < r.count; i += LANES) {
        sum += partials[i];
    }
    let total = workgroup_sum(lane, sum);
    if (lane != 0u) {
        return;
    }
    let norm = sqrt(total) / scale[0];
    let clip = hyper.z;
    var factor = 1.0;
    if (clip > 0.0 && norm > clip) {
        factor = clip / norm;
    }
    // By its bits: compilers may assume that no float is inf or NaN.
    let skip = (bitcast<u32>(total) & 0x7f800000u) == 0x7f800000u;
    next.gradient_norm = norm;
    next.clip_factor = factor;
    next.gradient_factor = factor / scale[0];
    next.lr = hyper.x;
    next.weight_decay = hyper.y;
    next.skip = u32(skip);
    if (skip) {
        next.skipped_steps += 1u;
    } else {
        next.good_steps += 1u;
        next.bias1 = r.rest1 + r.beta1 * next.bias1;
        next.bias2 = r.rest2 + r.beta2 * next.bias2;
    }
    if (r.loss_scaling != 0u) {
        next.log2_scale += select(0.001, -1.0, skip);
        next.loss_scale = exp2(next.log2_scale);
        scale[0] = next.loss_scale;
    }
}

// The new parameters; moments are changed on the way.
fn updated(i: u32, m: Params) -> vec4<f32> {
    let g = grads[i] * state.gradient_factor;
    let first = m.beta1 * moment1[i] + m.rest1 * g;
    let second = m.beta2 * moment2[i] + m.rest2 * g * g;
    moment1[i] = first;
    moment2[i] = second;
    let size = sqrt(second) / sqrt(state.bias2) + m.eps;
    let old = params[i];
    return old - state.lr * state.weight_decay * old - (state.lr / state.bias1) * first / size;
}

@compute @workgroup_size(64)
fn update(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    if (state.skip == 0u) {
        params[i] = updated(i, p);
    }
    grads[i] = vec4<f32>(0.0);
}

@compute @workgroup_size(64)
fn update_ema(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    if (state.skip == 0u) {
        let fresh = updated(i, q);
        params[i] = fresh;
        let least = q.ema_warmup / (q.ema_warmup + f32(state.good_steps));
        for (var e = 0u; e < q.rates; e++) {
            let at = e * q.count + i;
            ema[at] += max(q.ema_rest[e], least) * (fresh - ema[at]);
        }
    }
    grads[i] = vec4<f32>(0.0);
}
