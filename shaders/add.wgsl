#import index
#import pack
// Scaled sum.  sum: y = scale·(a + b).  into: y = scale·a, or y += scale·a.
// Any shape; `count` elements, or packs of them in the entries that end in _packed.

struct Params {
    count: u32,
    accumulate: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read> a: array<elem>;       // [count]
@group(0) @binding(1) var<storage, read> b: array<elem>;       // [count]
@group(0) @binding(2) var<storage, read_write> y: array<elem>; // [count]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read_write> target_: array<elem>; // [count]
@group(0) @binding(2) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> a_pack: array<pack>;
@group(0) @binding(1) var<storage, read> b_pack: array<pack>;
@group(0) @binding(2) var<storage, read_write> y_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> target_pack: array<pack>;

@compute @workgroup_size(64)
fn sum(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y[i] = elem(p.scale * (f32(a[i]) + f32(b[i])));
    }
}

@compute @workgroup_size(64)
fn into(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var v = q.scale * f32(a[i]);
    if (q.accumulate != 0u) {
        v += f32(target_[i]);
    }
    target_[i] = elem(v);
}

@compute @workgroup_size(256)
fn sum_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let left = a_pack[i];
    let right = b_pack[i];
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, p.scale * (part${v}(left) + part${v}(right)));
    #end
    y_pack[i] = result;
}

@compute @workgroup_size(256)
fn into_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= q.count) {
        return;
    }
    let value = a_pack[i];
    var before: pack; // zero
    if (q.accumulate != 0u) {
        before = target_pack[i];
    }
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, q.scale * part${v}(value) + part${v}(before));
    #end
    target_pack[i] = result;
}
