#import index
// The losses of a diffusion model (IDDPM, arXiv 2102.09672, sections 2 and 3), per sample and with importance weights.
//   target = tx x + tz z + te eps,  r = target - out,  d = true mean - model's mean = k r, or c1 (x - clip(x_z z + x_out out)),
//   mse = mean r^2,  bits = mean over elements of KL(q, p)/ln 2, or of the discretised decoder's -log2 p(x) where `decoder` is set,
//   total = w_mse mse + w_bits bits,  loss = scale · Σ_n weight_n total_n.
// x, z, eps [N, L], L = H·W·C; out [N, H, W, E], E = C or 2C: the first C channels of a pixel, then the variances'. rows [N, 16].
// blocks: partial[n, b] over 4096 elements of a sample; totals: by one workgroup; gradient: dout (+)= dloss·…
// Always f32; sums in an order that depends on L alone, and for the loss on N.

const BLOCK: u32 = 4096u;
const BITS: f32 = 1.4426950408889634; // 1/ln 2
const FLOOR: f32 = 1e-12;             // the smallest probability of a bin

struct Params {
    samples: u32,
    length: u32,      // L
    blocks: u32,      // ceil(L / 4096)
    channels: u32,    // C
    out_channels: u32, // E
    variance: u32,    // 0: fixed (log_small), 1: range, 2: its log
    clip: u32,        // whether x̂ is clipped to [-1, 1]
    frozen: u32,      // gradient: the mean is left out of the bits' gradient
    accumulate: u32,
    count: u32,       // gradient: N·H·W·E
    w_mse: f32,
    w_bits: f32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> out: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> eps: array<f32>;
// [N, 4]: tx, tz, te, k | log true variance, log_small, log_large, decoder (0 or 1) | weight, x_z, x_out, c1 | is_mean, 3 unused.
@group(0) @binding(4) var<storage, read> rows: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> partial: array<vec4<f32>>; // [N, blocks]: sums of r^2, bits, (x - x̂)^2
@group(0) @binding(6) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> partials: array<vec4<f32>>;      // [N, blocks]
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;       // rows
@group(0) @binding(2) var<storage, read_write> totals_out: array<f32>;    // [N]
@group(0) @binding(3) var<storage, read_write> terms: array<vec4<f32>>;   // [N]: total, mse, bits, mean (x - x̂)^2
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;          // [1]
@group(0) @binding(5) var<uniform> t: Params;

@group(0) @binding(5) var<storage, read> dloss: array<f32>;               // [1]
@group(0) @binding(6) var<storage, read_write> dout: array<f32>;          // [N, H, W, E]
@group(0) @binding(7) var<uniform> g: Params;

var<workgroup> sums: array<vec4<f32>, 64>;

// The sum of all lanes' values, in lane 0.
fn workgroup_sum(lane: u32, value: vec4<f32>) -> vec4<f32> {
    sums[lane] = value;
    for (var width = 32u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            sums[lane] += sums[lane + width];
        }
    }
    return sums[0];
}

// Φ(u) by its tanh approximation, written as a sigmoid so that small values keep their digits, and its slope.
fn normal_cdf(u: f32) -> f32 {
    let s = 1.5957691216057308 * (u + 0.044715 * u * u * u);
    let e = exp(-abs(s));
    return select(e, 1.0, s >= 0.0) / (1.0 + e);
}

fn normal_slope(u: f32) -> f32 {
    return 1.5957691216057308 * (1.0 + 0.134145 * u * u) * normal_cdf(u) * normal_cdf(-u);
}

struct Element {
    r: f32,        // target - out
    d: f32,        // the means' difference
    log_p: f32,    // the model's log variance
    away: f32,     // x - x̂
    d_out: f32,    // ∂d/∂out
}

// Element l of sample n.
fn element(n: u32, l: u32, m: Params) -> Element {
    let i = n * m.length + l;
    let o = (n * (m.length / m.channels) + l / m.channels) * m.out_channels + l % m.channels;
    let a = rows[n * 4u];
    let b = rows[n * 4u + 1u];
    let c = rows[n * 4u + 2u];
    let is_mean = rows[n * 4u + 3u].x != 0.0;
    let r = a.x * x[i] + a.y * z[i] + a.z * eps[i] - out[o];
    let free = c.y * z[i] + c.z * out[o];
    var away = x[i] - free;
    var d = a.w * r;
    var d_out = -a.w;
    if (m.clip != 0u) {
        away = x[i] - clamp(free, -1.0, 1.0);
        if (!is_mean) {
            d = c.w * away;
            d_out = select(0.0, -c.w * c.z, abs(free) <= 1.0);
        }
    }
    var log_p = b.y;
    if (m.variance != 0u) {
        let v = out[o + m.channels];
        let f = 0.5 * v + 0.5;
        log_p = select(v, f * b.z + (1.0 - f) * b.y, m.variance == 1u);
    }
    return Element(r, d, log_p, away, d_out);
}

// The bits of an element, its slope in d and its slope in the log variance.
fn bits(n: u32, l: u32, e: Element, m: Params) -> vec3<f32> {
    let b = rows[n * 4u + 1u];
    if (b.w == 0.0) {
        let ratio = exp(b.x - e.log_p);
        let scaled = e.d * exp(-e.log_p);
        let kl = 0.5 * (e.log_p - b.x - 1.0 + ratio + e.d * scaled);
        return BITS * vec3<f32>(kl, scaled, 0.5 * (1.0 - ratio - e.d * scaled));
    }
    let inverse = exp(-0.5 * e.log_p);
    let high = inverse * (e.d + 1.0 / 255.0);
    let low = inverse * (e.d - 1.0 / 255.0);
    let value = x[n * m.length + l];
    // The probability of the bin, and how much of each edge's slope it has.
    var q: f32;
    var edges = vec2<f32>(1.0, 1.0);
    if (value < -0.999) {
        q = normal_cdf(high);
        edges.y = 0.0;
    } else if (value > 0.999) {
        q = normal_cdf(-low);
        edges.x = 0.0;
    } else if (e.d > 0.0) {
        q = normal_cdf(-low) - normal_cdf(-high);
    } else {
        q = normal_cdf(high) - normal_cdf(low);
    }
    if (q < FLOOR) {
        return vec3<f32>(-BITS * log(FLOOR), 0.0, 0.0);
    }
    let slopes = edges * vec2<f32>(normal_slope(high), normal_slope(low)) / q;
    return BITS * vec3<f32>(-log(q), -inverse * (slopes.x - slopes.y), 0.5 * (slopes.x * high - slopes.y * low));
}

@compute @workgroup_size(64)
fn blocks(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = group / p.blocks;
    let first = (group % p.blocks) * BLOCK;
    var sum = vec4<f32>();
    if (n < p.samples) {
        for (var l = first + lane; l < min(first + BLOCK, p.length); l += 64u) {
            let e = element(n, l, p);
            sum += vec4<f32>(e.r * e.r, bits(n, l, e, p).x, e.away * e.away, 0.0);
        }
    }
    let total = workgroup_sum(lane, sum);
    if (lane == 0u && n < p.samples) {
        partial[group] = total;
    }
}

@compute @workgroup_size(64)
fn totals(@builtin(local_invocation_index) lane: u32) {
    var all = 0.0;
    for (var n = lane; n < t.samples; n += 64u) {
        var sum = vec4<f32>();
        for (var b = 0u; b < t.blocks; b++) {
            sum += partials[n * t.blocks + b];
        }
        let mean = sum / f32(t.length);
        var total = t.w_mse * mean.x;
        // Not 0·bits: bits may be infinite where nobody asked for them.
        if (t.w_bits != 0.0) {
            total += t.w_bits * mean.y;
        }
        totals_out[n] = total;
        terms[n] = vec4<f32>(total, mean.x, mean.y, mean.z);
        all += weights[n * 4u + 2u].x * total;
    }
    let result = workgroup_sum(lane, vec4<f32>(all));
    if (lane == 0u) {
        loss[0] = t.scale * result.x;
    }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= g.count) {
        return;
    }
    let channel = i % g.out_channels;
    let pixels = g.length / g.channels;
    let n = i / g.out_channels / pixels;
    let l = (i / g.out_channels % pixels) * g.channels + channel % g.channels;
    let e = element(n, l, g);
    var slope = 0.0;
    if (channel < g.channels) {
        slope = -2.0 * g.w_mse * e.r;
        if (g.frozen == 0u && g.w_bits != 0.0) {
            slope += g.w_bits * e.d_out * bits(n, l, e, g).y;
        }
    } else if (g.variance != 0u && g.w_bits != 0.0) {
        let b = rows[n * 4u + 1u];
        slope = g.w_bits * bits(n, l, e, g).z * select(1.0, 0.5 * (b.z - b.y), g.variance == 1u);
    }
    var v = dloss[0] * g.scale * rows[n * 4u + 2u].x * slope / f32(g.length);
    if (g.accumulate != 0u) {
        v += dout[i];
    }
    dout[i] = v;
}
