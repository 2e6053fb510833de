#import index
#import pack
#import silu_curve
// SiLU.  y = x·σ(x),  dx = dy·σ(x)·(1 + x·(1 - σ(x))).
// Any shape; `count` elements, or packs of them in the entries that end in _packed.

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
    let v = f32(x[i]);
    y[i] = elem(v / (1.0 + exp(-v)));
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
    let v = f32(x[i]);
    let s = 1.0 / (1.0 + exp(-v));
    var g = f32(dy[i]) * s * (1.0 + v * (1.0 - s));
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
    put${v}(&result, silu4(part${v}(value)));
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
    put${v}(&result, part${v}(upstream) * silu_slope4(part${v}(value)) + part${v}(before));
    #end
    dx_pack[i] = result;
}
