#import index
// Rows of a table.  lookup: y[n, :] = table[index[n], :], or zeros where the index is outside of the table.
// gradient: dtable[r, d] (+)= Σ_n dy[n, d] over the n with index[n] = r, n ascending.
// table [R, D], index [N], y [N, D].  Always f32.

struct Params {
    rows: u32,       // R
    width: u32,      // D
    count: u32,      // N
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> table: array<f32>;  // [R, D]
@group(0) @binding(1) var<storage, read> index: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [N, D]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> dy: array<f32>;           // [N, D]
@group(0) @binding(2) var<storage, read_write> dtable: array<f32>; // [R, D]

@compute @workgroup_size(64)
fn lookup(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count * p.width) {
        return;
    }
    let row = index[i / p.width];
    var v = 0.0;
    if (row < p.rows) {
        v = table[row * p.width + i % p.width];
    }
    y[i] = v;
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.rows * p.width) {
        return;
    }
    let row = i / p.width;
    let d = i % p.width;
    var sum = 0.0;
    for (var n = 0u; n < p.count; n++) {
        if (index[n] == row) {
            sum += dy[n * p.width + d];
        }
    }
    if (p.accumulate != 0u) {
        sum += dtable[i];
    }
    dtable[i] = sum;
}
