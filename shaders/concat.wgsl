#import index
#import pack
// Concatenation along channels.
// join: y[r, :] = [a[r, :], b[r, :]].   part: d[r, c] (+)= dy[r, first + c].
// a [R, A], b [R, B], y and dy [R, A + B], d [R, width]; R = N·H·W.
// The entries that end in _packed are for A and B of whole packs, and all counts are of packs.

struct Params {
    count: u32,      // elements, or packs, written
    a: u32,          // channels of a; for part, `first`
    b: u32,          // channels of b; for part, `width`
    accumulate: u32,
    whole: u32,      // channels of y
}

@group(0) @binding(0) var<storage, read> a: array<elem>;
@group(0) @binding(1) var<storage, read> b: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> a_pack: array<pack>;
@group(0) @binding(1) var<storage, read> b_pack: array<pack>;
@group(0) @binding(2) var<storage, read_write> y_pack: array<pack>;

@group(0) @binding(0) var<storage, read> dy: array<elem>;
@group(0) @binding(1) var<storage, read_write> d: array<elem>;
@group(0) @binding(2) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> dy_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> d_pack: array<pack>;

@compute @workgroup_size(64)
fn join(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let row = i / p.whole;
    let c = i % p.whole;
    if (c < p.a) {
        y[i] = a[row * p.a + c];
    } else {
        y[i] = b[row * p.b + c - p.a];
    }
}

@compute @workgroup_size(256)
fn join_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let row = i / p.whole;
    let c = i % p.whole;
    if (c < p.a) {
        y_pack[i] = a_pack[row * p.a + c];
    } else {
        y_pack[i] = b_pack[row * p.b + c - p.a];
    }
}

@compute @workgroup_size(64)
fn part(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var v = f32(dy[(i / q.b) * q.whole + q.a + i % q.b]);
    if (q.accumulate != 0u) {
        v += f32(d[i]);
    }
    d[i] = elem(v);
}

@compute @workgroup_size(256)
fn part_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= q.count) {
        return;
    }
    var result = dy_pack[(i / q.b) * q.whole + q.a + i % q.b];
    if (q.accumulate != 0u) {
        let before = d_pack[i];
        #unroll v in 0..${vectors}
        put${v}(&result, part${v}(result) + part${v}(before));
        #end
    }
    d_pack[i] = result;
}
