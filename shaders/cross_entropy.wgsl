#import index
// Cross-entropy of logits x [N, K] and labels [N]:  l_n = log Σ_k e^x[n,k] - x[n, label],  loss = weight·Σ_n l_n.
// rows: terms [N] = (l_n, 1 where the largest logit is the label's, log Σ e^x, 0), one invocation a sample; total: loss, by one
// workgroup; gradient: dx (+)= dloss·weight·(softmax(x) - [k = label]). A label of K or more leaves its sample out.
// Always f32; a sample's sum depends on K alone.

struct Params {
    samples: u32,
    classes: u32,    // K
    accumulate: u32,
    weight: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> terms: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> rows_done: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sample: array<f32>;   // [N]
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;     // [1]

@group(0) @binding(2) var<storage, read> row: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dloss: array<f32>;          // [1]
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<uniform> q: Params;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = linear_index(wid, groups, 64u, lane);
    if (n >= p.samples) {
        return;
    }
    let first = n * p.classes;
    var best = 0u;
    for (var k = 1u; k < p.classes; k++) {
        if (x[first + k] > x[first + best]) {
            best = k;
        }
    }
    let largest = x[first + best];
    var sum = 0.0;
    for (var k = 0u; k < p.classes; k++) {
        sum += exp(x[first + k] - largest);
    }
    let label = labels[n];
    let total = largest + log(sum);
    if (label >= p.classes) {
        terms[n] = vec4<f32>(0.0, 0.0, total, 0.0);
    } else {
        // Not total - x: between close numbers the small sum would be lost.
        let l = log(sum) + (largest - x[first + label]);
        terms[n] = vec4<f32>(l, select(0.0, 1.0, best == label), total, 0.0);
    }
}

@compute @workgroup_size(64)
fn total(@builtin(local_invocation_index) lane: u32) {
    var all = 0.0;
    for (var n = lane; n < p.samples; n += 64u) {
        sample[n] = rows_done[n].x;
        all += rows_done[n].x;
    }
    sums[lane] = all;
    for (var width = 32u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            sums[lane] += sums[lane + width];
        }
    }
    if (lane == 0u) {
        loss[0] = p.weight * sums[0];
    }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.samples * q.classes) {
        return;
    }
    let n = i / q.classes;
    let label = labels[n];
    var slope = 0.0;
    if (label < q.classes) {
        slope = exp(x[i] - row[n].z) - select(0.0, 1.0, i % q.classes == label);
    }
    var v = dloss[0] * q.weight * slope;
    if (q.accumulate != 0u) {
        v += dx[i];
    }
    dx[i] = v;
}
