#import index
// Concatenation along channels.
// join: y[r, :] = [a[r, :], b[r, :]].   part: d[r, c] (+)= dy[r, first + c].
// a [R, A], b [R, B], y and dy [R, A + B], d [R, width]; R = N·H·W.
// The _vec4 entries view vectors of four channels: A and B must be multiples of 4 and all counts are of vectors.

struct Params {
    count: u32,      // elements, or vectors, written
    a: u32,          // channels of a; for part, `first`
    b: u32,          // channels of b; for part, `width`
    accumulate: u32,
    whole: u32,      // channels of y
}

@group(0) @binding(0) var<storage, read> a: array<elem>;
@group(0) @binding(1) var<storage, read> b: array<elem>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> a4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<elem>>;

@group(0) @binding(0) var<storage, read> dy: array<elem>;
@group(0) @binding(1) var<storage, read_write> d: array<elem>;
@group(0) @binding(2) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> dy4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read_write> d4: array<vec4<elem>>;

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

@compute @workgroup_size(64)
fn join_vec4(
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
        y4[i] = a4[row * p.a + c];
    } else {
        y4[i] = b4[row * p.b + c - p.a];
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

@compute @workgroup_size(64)
fn part_vec4(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var v = vec4<f32>(dy4[(i / q.b) * q.whole + q.a + i % q.b]);
    if (q.accumulate != 0u) {
        v += vec4<f32>(d4[i]);
    }
    d4[i] = vec4<elem>(v);
}
