#import index
#import sum_of_lanes
// The unconditional prediction from those of all classes (diffusion/class_posterior).
//   mix:     pair[n] = eps of the sample's own class, pair[N + n] = sum over k of p(k|z_n) eps_k; a label of K or more has
//            none of its own and takes the sum for both.
//   observe: with mu_k = mean_z z + mean_x clip((z - sigma eps_k)/alpha),  log p(k) <- log p(k) - |next - mu_k|^2/(2 V) + const.
// eps [K·N, H, W, E], E >= C, class by class; z (before the step), next and pair of C channels; all f32.
// posterior [N, 2, K]: logarithms, then probabilities.   Law: 256 lanes sum a sample in an order of H·W·C alone.

struct Params {
    count: u32,        // N·length
    length: u32,       // H·W·C
    channels: u32,     // C
    eps_channels: u32, // E
    samples: u32,      // N
    classes: u32,      // K
    steps: u32,        // T
    clip: u32,         // 0: none, 1: to [-1, 1]
}

@group(0) @binding(0) var<storage, read> eps: array<f32>;
@group(0) @binding(1) var<storage, read> known: array<f32>;       // [N, 2, K]
@group(0) @binding(2) var<storage, read> labels: array<u32>;      // [N]
@group(0) @binding(3) var<storage, read_write> pair: array<f32>;  // [2N, H, W, C]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read_write> posterior: array<f32>; // [N, 2, K]
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> next: array<f32>;
@group(0) @binding(4) var<storage, read> steps: array<vec4<u32>>;     // [T, 3], of the guided step
@group(0) @binding(5) var<storage, read> counter: array<u32>;         // [1]
@group(0) @binding(6) var<storage, read> variance: array<f32>;        // [T]: V; 0 where nothing is to be learnt
@group(0) @binding(7) var<uniform> q: Params;

fn eps_at(k: u32, n: u32, l: u32, o: Params) -> f32 {
    let whole = o.length / o.channels * o.eps_channels;
    return eps[(k * o.samples + n) * whole + l / o.channels * o.eps_channels + l % o.channels];
}

@compute @workgroup_size(64)
fn mix(
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
    var sum = 0.0;
    for (var k = 0u; k < p.classes; k++) {
        sum += known[(2u * n + 1u) * p.classes + k] * eps_at(k, n, l, p);
    }
    var own = sum;
    if (labels[n] < p.classes) {
        own = eps_at(labels[n], n, l, p);
    }
    pair[i] = own;
    pair[p.count + i] = sum;
}

@compute @workgroup_size(256)
fn observe(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = min(group, q.samples - 1u);
    let t = min(counter[0], q.steps - 1u);
    let a = bitcast<vec4<f32>>(steps[t * 3u]);      // alpha, sigma, 1/alpha, mean_z
    let mean_x = bitcast<f32>(steps[t * 3u + 1u].x);
    let v = variance[t];
    for (var k = 0u; k < q.classes; k++) {
        var mine = 0.0;
        for (var l = lane; l < q.length; l += LANES) {
            let at = n * q.length + l;
            var x = (z[at] - a.y * eps_at(k, n, l, q)) * a.z;
            if (q.clip != 0u) {
                x = clamp(x, -1.0, 1.0);
            }
            let off = next[at] - a.w * z[at] - mean_x * x;
            mine += off * off;
        }
        let sum = summed(lane, vec4<f32>(mine)).x;
        if (lane == 0u && group < q.samples && v > 0.0) {
            posterior[2u * n * q.classes + k] -= sum / (2.0 * v);
        }
    }
    if (lane == 0u && group < q.samples) {
        let first = 2u * n * q.classes;
        var largest = posterior[first];
        for (var k = 1u; k < q.classes; k++) {
            largest = max(largest, posterior[first + k]);
        }
        var total = 0.0;
        for (var k = 0u; k < q.classes; k++) {
            total += exp(posterior[first + k] - largest);
        }
        for (var k = 0u; k < q.classes; k++) {
            let value = posterior[first + k] - largest - log(total);
            posterior[first + k] = value;
            posterior[first + q.classes + k] = exp(value);
        }
    }
}
