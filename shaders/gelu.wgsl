#import index
#import pack
#import gelu_curve
// GELU.  y = x·Φ(x), or one of its two approximations; dx = dy·y'(x).
// Any shape; `count` elements, or packs of them in the entries that end in _packed.

override CURVE: u32 = 0u; // 0 by the error function, 1 by tanh, 2 quick

struct Params {
    count: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;        // [count]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;  // [count]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> dy: array<elem>;       // [count]
@group(0) @binding(2) var<storage, read_write> dx: array<elem>; // [count]
@group(0) @binding(3) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> y_pack: array<pack>;
@group(0) @binding(1) var<storage, read> dy_pack: array<pack>;
@group(0) @binding(2) var<storage, read_write> dx_pack: array<pack>;

fn curve4(v: vec4<f32>) -> vec4<f32> {
    if (CURVE == 0u) {
        return gelu_erf4(v);
    }
    if (CURVE == 1u) {
        return gelu_tanh4(v);
    }
    return gelu_quick4(v);
}

fn slope4(v: vec4<f32>) -> vec4<f32> {
    if (CURVE == 0u) {
        return gelu_erf_slope4(v);
    }
    if (CURVE == 1u) {
        return gelu_tanh_slope4(v);
    }
    return gelu_quick_slope4(v);
}

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
    y[i] = elem(curve4(vec4<f32>(f32(x[i]))).x);
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var g = f32(dy[i]) * slope4(vec4<f32>(f32(x[i]))).x;
    if (q.accumulate != 0u) {
        g += f32(dx[i]);
    }
    dx[i] = elem(g);
}

@compute @workgroup_size(256)
fn forward_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let value = x_pack[i];
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, curve4(part${v}(value)));
    #end
    y_pack[i] = result;
}

@compute @workgroup_size(256)
fn backward_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= q.count) {
        return;
    }
    let value = x_pack[i];
    let upstream = dy_pack[i];
    var before: pack; // zero
    if (q.accumulate != 0u) {
        before = dx_pack[i];
    }
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, part${v}(upstream) * slope4(part${v}(value)) + part${v}(before));
    #end
    dx_pack[i] = result;
}
