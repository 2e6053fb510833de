#import index
// Pixels as numbers: y = u8/127.5 - 1.  bytes [ceil(count / 4)], four a word in little-endian order; y [count].  Always f32.

struct Params {
    count: u32,
}

@group(0) @binding(0) var<storage, read> bytes: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn pixels(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        let byte = (bytes[i / 4u] >> (8u * (i % 4u))) & 0xffu;
        // With an exact numerator, as in noised.wgsl. Division may be off by some last places; the range may not.
        y[i] = clamp((f32(byte) * 2.0 - 255.0) / 255.0, -1.0, 1.0);
    }
}
