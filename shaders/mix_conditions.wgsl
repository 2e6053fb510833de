#import index
// Several conditions' predictions as one.  y[i] = sum over k of weight[k] x[k·first + i] for i < first; what lies behind
// the K blocks is copied: y[first + i] = x[K·first + i].  Sums in f32, K in order.

struct Params {
    first: u32,   // elements of one condition's block
    mixed: u32,   // K
    count: u32,   // elements of y
}

@group(0) @binding(0) var<storage, read> x: array<elem>;      // [K·first + (count - first)]
@group(0) @binding(1) var<storage, read> weight: array<f32>;  // [K]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [count]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    if (i >= p.first) {
        y[i] = f32(x[(p.mixed - 1u) * p.first + i]);
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < p.mixed; k++) {
        sum += weight[k] * f32(x[k * p.first + i]);
    }
    y[i] = sum;
}
