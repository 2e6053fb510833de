#import index
#import sum_of_lanes
// What guiders do between the network and the step (diffusion/guiders): factors of each sample, then combinations.
//   rows:     (a, b, 1, 0)[n] with eps~ = a eps_c + b eps_u:  zero-star, rescale, low temperature.
//   momentum: m <- d + beta m,  d = -(sigma/alpha)(eps_c - eps_u); in the first guided step m <- d.
//   apg_rows: (g, (1-g)/sigma, -w (alpha/sigma) limit, 0)[n] from <m, m>, <m, x_c>, <x_c, x_c>.
//   combine:  eps~ of pairs, of APG (g eps_c + .. z + .. m), of several conditions; renoise: z <- z + coefficient·eps_u.
// eps [K·N, H, W, E], E >= C: conditional, then unconditional, then further conditions; z, m, eps~ [N, H, W, C] f32.
// Law: a workgroup of 256 sums a sample in an order that depends on H·W·C alone.

struct Params {
    count: u32,        // N·length
    length: u32,       // H·W·C
    channels: u32,     // C
    eps_channels: u32, // E
    samples: u32,      // N
    steps: u32,        // T
    zero_star: u32,
    more: u32,         // further conditions
    phi: f32,          // of rescale
    parallel: f32,     // eta
    beta: f32,
    radius: f32,       // 0 for no limit
    strengths: array<vec4<f32>, 2>,
}

@group(0) @binding(0) var<storage, read> eps: array<elem>;
@group(0) @binding(1) var<storage, read> table: array<vec4<f32>>; // [T, 2]: w, alpha, sigma, log_snr; progress, eps factor, renoise, first
@group(0) @binding(2) var<storage, read> counter: array<u32>;     // [1]
@group(0) @binding(3) var<storage, read_write> rows_out: array<vec4<f32>>; // [N]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(3) var<storage, read_write> changed: array<f32>; // momentum: m; combine_many: eps~; renoise: z

@group(0) @binding(3) var<storage, read> z: array<f32>;
@group(0) @binding(4) var<storage, read> m: array<f32>;
@group(0) @binding(5) var<storage, read_write> apg_out: array<vec4<f32>>; // [N]
@group(0) @binding(6) var<uniform> q: Params;

@group(0) @binding(1) var<storage, read> rows_in: array<vec4<f32>>; // [N]
@group(0) @binding(2) var<storage, read_write> pair_out: array<f32>;
@group(0) @binding(3) var<uniform> r: Params;

@group(0) @binding(2) var<storage, read_write> apg_eps: array<f32>;
@group(0) @binding(5) var<uniform> s: Params;

// Element l of sample n, of evaluation k.
fn eps_at(k: u32, n: u32, l: u32, o: Params) -> f32 {
    let pixel = l / o.channels;
    let whole = o.length / o.channels * o.eps_channels;
    return f32(eps[(k * o.samples + n) * whole + pixel * o.eps_channels + l % o.channels]);
}

fn now(steps: u32) -> u32 {
    return min(counter[0], steps - 1u) * 2u;
}

@compute @workgroup_size(256)
fn rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = min(group, p.samples - 1u);
    let w = table[now(p.steps)].x;
    let factor = table[now(p.steps) + 1u].y;
    var mine = vec4<f32>(0.0);
    for (var l = lane; l < p.length; l += LANES) {
        let c = eps_at(0u, n, l, p);
        let u = eps_at(1u, n, l, p);
        mine += vec4<f32>(c, u, c * u, u * u);
    }
    let all = summed(lane, mine);
    var a = 1.0 + w;
    var b = -w;
    if (p.zero_star != 0u) {
        b *= all.z / (all.w + 1e-8);
    }
    let mean = all.xy / f32(p.length);
    mine = vec4<f32>(0.0);
    for (var l = lane; l < p.length; l += LANES) {
        let c = eps_at(0u, n, l, p) - mean.x;
        let g = a * c + b * (eps_at(1u, n, l, p) - mean.y);
        mine += vec4<f32>(c * c, g * g, 0.0, 0.0);
    }
    let spread = summed(lane, mine);
    var ratio = 1.0;
    if (spread.y > 0.0) {
        ratio = sqrt(spread.x / spread.y);
    }
    let k = factor * (p.phi * ratio + (1.0 - p.phi));
    if (lane == 0u && group < p.samples) {
        rows_out[n] = vec4<f32>(a * k, b * k, 1.0, 0.0);
    }
}

@compute @workgroup_size(64)
fn momentum(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let step = table[now(p.steps)];
    let c = eps_at(0u, i / p.length, i % p.length, p);
    let u = eps_at(1u, i / p.length, i % p.length, p);
    var d = -(step.z / step.y) * (c - u);
    if (table[now(p.steps) + 1u].w == 0.0) {
        d += p.beta * changed[i];
    }
    changed[i] = d;
}

@compute @workgroup_size(256)
fn apg_rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = min(group, q.samples - 1u);
    let step = table[now(q.steps)];
    let factor = table[now(q.steps) + 1u].y;
    var mine = vec4<f32>(0.0);
    for (var l = lane; l < q.length; l += LANES) {
        let x = (z[n * q.length + l] - step.z * eps_at(0u, n, l, q)) / step.y;
        let d = m[n * q.length + l];
        mine += vec4<f32>(d * d, d * x, x * x, 0.0);
    }
    let all = summed(lane, mine);
    var limit = 1.0;
    if (q.radius > 0.0 && all.x > q.radius * q.radius) {
        limit = q.radius / sqrt(all.x);
    }
    var along = 0.0;
    if (all.z > 0.0) {
        along = limit * all.y / all.z;
    }
    // 1 - g, kept by itself: g is close to 1.
    let lost = step.x * (1.0 - q.parallel) * along;
    if (lane == 0u && group < q.samples) {
        apg_out[n] = factor * vec4<f32>(1.0 - lost, lost / step.z, -step.x * (step.y / step.z) * limit, 0.0);
    }
}

@compute @workgroup_size(64)
fn combine_pair(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= r.count) {
        return;
    }
    let n = i / r.length;
    let k = rows_in[n];
    pair_out[i] = k.x * eps_at(0u, n, i % r.length, r) + k.y * eps_at(1u, n, i % r.length, r);
}

@compute @workgroup_size(64)
fn combine_apg(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= s.count) {
        return;
    }
    let n = i / s.length;
    let k = rows_in[n];
    apg_eps[i] = k.x * eps_at(0u, n, i % s.length, s) + k.y * z[i] + k.z * m[i];
}

@compute @workgroup_size(64)
fn combine_many(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let n = i / p.length;
    let l = i % p.length;
    let w = table[now(p.steps)].x;
    let u = eps_at(1u, n, l, p);
    var sum = (1.0 + w) * eps_at(0u, n, l, p) - w * u;
    for (var k = 0u; k < p.more; k++) {
        sum += p.strengths[k / 4u][k % 4u] * (eps_at(2u + k, n, l, p) - u);
    }
    changed[i] = table[now(p.steps) + 1u].y * sum;
}

@compute @workgroup_size(64)
fn renoise(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    changed[i] += table[now(p.steps) + 1u].z * eps_at(1u, i / p.length, i % p.length, p);
}
