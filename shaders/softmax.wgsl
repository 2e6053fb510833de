#import index
// Softmax over the last axis.  y = exp(x - max x) / Σ exp(x - max x),  dx = y·(dy - Σ dy·y).
// x, y, dy, dx [rows, width]; one row an invocation, or with forward_wide a workgroup.

struct Params {
    rows: u32,
    width: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;        // [rows, width]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;  // [rows, width]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> known: array<elem>;    // y [rows, width]
@group(0) @binding(1) var<storage, read> dy: array<elem>;       // [rows, width]
@group(0) @binding(2) var<storage, read_write> dx: array<elem>; // [rows, width]
@group(0) @binding(3) var<uniform> q: Params;

@compute @workgroup_size(16)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_index(wid, groups, 16u, lane);
    if (row >= p.rows) {
        return;
    }
    let first = row * p.width;
    var most = f32(x[first]);
    for (var i = 1u; i < p.width; i++) {
        most = max(most, f32(x[first + i]));
    }
    var total = 0.0;
    for (var i = 0u; i < p.width; i++) {
        total += exp(f32(x[first + i]) - most);
    }
    for (var i = 0u; i < p.width; i++) {
        y[first + i] = elem(exp(f32(x[first + i]) - most) / total);
    }
}

var<workgroup> parts: array<f32, 256>;

@compute @workgroup_size(256)
fn forward_wide(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Rows past the last are the last again, and are not stored: all invocations meet the barriers.
    let row = linear_group(wid, groups);
    let first = min(row, p.rows - 1u) * p.width;
    var most = f32(x[first + min(lane, p.width - 1u)]);
    for (var i = lane; i < p.width; i += 256u) {
        most = max(most, f32(x[first + i]));
    }
    parts[lane] = most;
    for (var apart = 128u; apart > 0u; apart /= 2u) {
        workgroupBarrier();
        if (lane < apart) {
            parts[lane] = max(parts[lane], parts[lane + apart]);
        }
    }
    workgroupBarrier();
    most = parts[0];
    var total = 0.0;
    for (var i = lane; i < p.width; i += 256u) {
        total += exp(f32(x[first + i]) - most);
    }
    workgroupBarrier();
    parts[lane] = total;
    for (var apart = 128u; apart > 0u; apart /= 2u) {
        workgroupBarrier();
        if (lane < apart) {
            parts[lane] += parts[lane + apart];
        }
    }
    workgroupBarrier();
    total = parts[0];
    for (var i = lane; i < p.width; i += 256u) {
        if (row < p.rows) {
            y[first + i] = elem(exp(f32(x[first + i]) - most) / total);
        }
    }
}

@compute @workgroup_size(16)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_index(wid, groups, 16u, lane);
    if (row >= q.rows) {
        return;
    }
    let first = row * q.width;
    var mean = 0.0;
    for (var i = 0u; i < q.width; i++) {
        mean += f32(dy[first + i]) * f32(known[first + i]);
    }
    for (var i = 0u; i < q.width; i++) {
        var g = f32(known[first + i]) * (f32(dy[first + i]) - mean);
        if (q.accumulate != 0u) {
            g += f32(dx[first + i]);
        }
        dx[first + i] = elem(g);
    }
}
