#import index
#import pack
// Sections of tensors:  y[to + i] = x[source + i],  i < count.  The rest of y stays as it is.
// copy_packed is for counts and places of whole packs, and takes them so.

struct Params {
    count: u32,
    source: u32,
    to: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> y_pack: array<pack>;

@compute @workgroup_size(64)
fn copy(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < p.count) {
        y[p.to + i] = x[p.source + i];
    }
}

@compute @workgroup_size(256)
fn copy_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i < p.count) {
        y_pack[p.to + i] = x_pack[p.source + i];
    }
}
