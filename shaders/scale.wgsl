#import index
#import pack
// Scaling.  y = factor·x.
// Any shape; `count` elements, or packs of them in the entry that ends in _packed.

struct Params {
    count: u32,
    factor: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [count]
@group(0) @binding(1) var<storage, read_write> y: array<elem>; // [count]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> y_pack: array<pack>;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y[i] = elem(p.factor * f32(x[i]));
    }
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
    put${v}(&result, p.factor * part${v}(value));
    #end
    y_pack[i] = result;
}
