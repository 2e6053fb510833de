#import index
// From v- to eps-prediction:  eps = sigma z + alpha v, with alpha and sigma of step `counter`.
// Any shape, always f32; `count` elements.

struct Params {
    count: u32,
    steps: u32, // T
}

@group(0) @binding(0) var<storage, read> z: array<f32>;           // [count]
@group(0) @binding(1) var<storage, read> v: array<f32>;           // [count]
@group(0) @binding(2) var<storage, read> steps: array<vec4<u32>>; // [T, 3]: alpha, sigma, ...
@group(0) @binding(3) var<storage, read> counter: array<u32>;     // [1]
@group(0) @binding(4) var<storage, read_write> eps: array<f32>;   // [count]
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(64)
fn convert(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    // A plan that is run too often stays at the last step.
    let level = bitcast<vec4<f32>>(steps[min(counter[0], p.steps - 1u) * 3u]);
    eps[i] = level.y * z[i] + level.x * v[i];
}
