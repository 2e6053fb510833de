enable f16;
#import index
// Conversion between storage types, four elements an invocation.  narrow: f32 to f16.  widen: f16 to f32.
// Any shape. Buffers are padded to sixteen bytes; what lies past the last element counts as zero,
// so that padding of an arena of gradients stays what it is.
// Needs f16 in shaders.

struct Params {
    count: u32,      // elements
    accumulate: u32, // add to what is there: for gradients
}

@group(0) @binding(0) var<storage, read> wide: array<vec4<f32>>;           // [count/4]
@group(0) @binding(1) var<storage, read_write> to_narrow: array<vec4<f16>>; // [count/4]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> slim: array<vec4<f16>>;           // [count/4]
@group(0) @binding(1) var<storage, read_write> to_wide: array<vec4<f32>>;  // [count/4]

// The elements of vector i that are within the value; zeros for the others.
fn within(i: u32, v: vec4<f32>) -> vec4<f32> {
    let left = p.count - i * 4u;
    return select(vec4<f32>(0.0), v, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}

@compute @workgroup_size(256)
fn narrow(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i * 4u >= p.count) {
        return;
    }
    var v = within(i, wide[i]);
    if (p.accumulate != 0u) {
        v += vec4<f32>(to_narrow[i]);
    }
    to_narrow[i] = vec4<f16>(v);
}

@compute @workgroup_size(256)
fn widen(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i * 4u >= p.count) {
        return;
    }
    var v = within(i, vec4<f32>(slim[i]));
    if (p.accumulate != 0u) {
        v += to_wide[i];
    }
    to_wide[i] = v;
}
