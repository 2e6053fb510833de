#import index
// Transposition.  y[b, j, i] = x[b, i, j], or y += that.  x [batch, rows, columns], y [batch, columns, rows].
// elements: one an invocation.  squares: 32 by 32 a workgroup, by way of its memory, so that both sides are met in rows.

struct Params {
    count: u32, // elements
    rows: u32,
    columns: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

fn put(at: u32, value: f32) {
    var v = value;
    if (p.accumulate != 0u) {
        v += f32(y[at]);
    }
    y[at] = elem(v);
}

@compute @workgroup_size(64)
fn elements(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear_index(wid, groups, 64u, lane);
    if (at >= p.count) {
        return;
    }
    let plane = p.rows * p.columns;
    let i = at % p.rows;
    let j = at % plane / p.rows;
    put(at, f32(x[at / plane * plane + i * p.columns + j]));
}

// One column of padding against bank conflicts.
var<workgroup> square: array<f32, 1056>;

@compute @workgroup_size(32, 8)
fn squares(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let plane = wid.z * p.rows * p.columns;
#unroll k in 0..4
    let line${k} = at.y + ${k}u * 8u;
    let i${k} = wid.y * 32u + line${k};
    let j${k} = wid.x * 32u + at.x;
    if (i${k} < p.rows && j${k} < p.columns) {
        square[line${k} * 33u + at.x] = f32(x[plane + i${k} * p.columns + j${k}]);
    }
#end
    workgroupBarrier();
    let i = wid.y * 32u + at.x;
#unroll k in 0..4
    let to_j${k} = wid.x * 32u + line${k};
    if (i < p.rows && to_j${k} < p.columns) {
        put(plane + to_j${k} * p.rows + i, square[at.x * 33u + line${k}]);
    }
#end
}
