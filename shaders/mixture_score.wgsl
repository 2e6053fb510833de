#import index
// The exact noise prediction of a diffused mixture of K isotropic Gaussians of equal weight, all of standard deviation s:
//   z given k ~ N(alpha mean_k, v I), v = alpha² s² + sigma²;   eps = -sigma grad log p = sigma (z - alpha m)/v,
//   m = mean_c given the class c, or sum_k p(k|z) mean_k for a label c >= K.
// One invocation a sample; posteriors are relative to the largest. alpha and sigma are those of step `counter`.
// Always f32. N·D below 2^32.

struct Params {
    samples: u32,  // N
    width: u32,    // D
    classes: u32,  // K
    steps: u32,    // T
    variance: f32, // s²
}

@group(0) @binding(0) var<storage, read> z: array<f32>;           // [N, D]
@group(0) @binding(1) var<storage, read> labels: array<u32>;      // [N]
@group(0) @binding(2) var<storage, read> means: array<f32>;       // [K, D]
@group(0) @binding(3) var<storage, read> steps: array<vec4<u32>>; // [T, 3]: alpha, sigma, ...
@group(0) @binding(4) var<storage, read> counter: array<u32>;     // [1]
@group(0) @binding(5) var<storage, read_write> eps: array<f32>;   // [N, D]
@group(0) @binding(6) var<uniform> p: Params;

// log p(z|k) of sample n, up to what all classes share.
fn exponent(n: u32, k: u32, alpha: f32, v: f32) -> f32 {
    var square = 0.0;
    for (var d = 0u; d < p.width; d++) {
        let difference = z[n * p.width + d] - alpha * means[k * p.width + d];
        square += difference * difference;
    }
    return -0.5 * square / v;
}

@compute @workgroup_size(64)
fn score(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = linear_index(wid, groups, 64u, lane);
    if (n >= p.samples) {
        return;
    }
    // A plan that is run too often stays at the last step.
    let level = bitcast<vec4<f32>>(steps[min(counter[0], p.steps - 1u) * 3u]);
    let alpha = level.x;
    let sigma = level.y;
    let v = alpha * alpha * p.variance + sigma * sigma;
    let label = labels[n];
    var largest = 0.0;
    var total = 1.0;
    if (label >= p.classes) {
        largest = exponent(n, 0u, alpha, v);
        for (var k = 1u; k < p.classes; k++) {
            largest = max(largest, exponent(n, k, alpha, v));
        }
        total = 0.0;
        for (var k = 0u; k < p.classes; k++) {
            total += exp(exponent(n, k, alpha, v) - largest);
        }
    }
    for (var d = 0u; d < p.width; d++) {
        var mean = 0.0;
        if (label < p.classes) {
            mean = means[label * p.width + d];
        } else {
            for (var k = 0u; k < p.classes; k++) {
                mean += exp(exponent(n, k, alpha, v) - largest) * means[k * p.width + d];
            }
            mean /= total;
        }
        let at = n * p.width + d;
        eps[at] = sigma * (z[at] - alpha * mean) / v;
    }
}
