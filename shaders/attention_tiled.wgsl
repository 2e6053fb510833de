#import index
// Self-attention, forward and backward, in tiles of 64 rows by 32 columns; formulas as in attention.wgsl.
// qkv [N, T, 3, H, d] or [N, T, H, 3, d], y [N, T, H, d], lse and delta [N, H, T]; d must divide by 4.
// Forward and for dq rows are queries and columns keys; for dk and dv the other way round. A workgroup of 128 makes
// 64 rows of the output and up to 64 channels of them: larger heads make their scores again for every 64.
// Workgroup memory: exactly WebGPU's 16 KiB.

struct Params {
    batch: u32,
    tokens: u32,
    heads: u32,
    head: u32,         // d
    part_stride: u32,  // from q to k to v of one head, in heads
    head_stride: u32,  // from a head's q to that of the next, in heads
    accumulate: u32,
    scale: f32,        // d^-½
}

override PART: u32 = 0u; // whose gradient: 0 q, 1 k, 2 v

const SPAN = 16u;        // quads of the output that a workgroup makes
const NONE = -1e30;      // below any score

@group(0) @binding(0) var<storage, read> qkv4: array<vec4<elem>>;        // [N, T, 3·H·d/4]
@group(0) @binding(1) var<storage, read> dy4: array<vec4<elem>>;         // [N, T, H·d/4]; forward: unread
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<elem>>;    // [N, T, H·d/4]
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;          // [N, H, T]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(2) var<storage, read> known_lse: array<f32>;          // [N, H, T]
@group(0) @binding(3) var<storage, read> known_delta: array<f32>;        // [N, H, T]
@group(0) @binding(4) var<storage, read_write> dqkv4: array<vec4<elem>>; // [N, T, 3·H·d/4]
@group(0) @binding(5) var<uniform> q: Params;

var<workgroup> stage: array<vec4<f32>, 512>;
var<workgroup> weights: array<vec4<f32>, 512>; // [column][ty]: rows ty, ty + 16, ty + 32, ty + 48

// A tile's rows of q, k, v or dy.
struct Rows {
    of_dy: bool,
    at: u32,     // the first row, in quads
    step: u32,   // from row to row
    last: u32,   // the last row there is, counted from the first; those beyond read this one
    quads: u32,  // of a row; those beyond read the last
}

fn load(rows: Rows, row: u32, quad: u32) -> vec4<f32> {
    let at = rows.at + min(row, rows.last) * rows.step + min(quad, rows.quads - 1u);
    if (rows.of_dy) {
        return vec4<f32>(dy4[at]);
    }
    return vec4<f32>(qkv4[at]);
}

// Products of 64 rows and 32 columns: result[r][j] is that of row ty + 16r and column tx + 8j.
fn products(rows: Rows, columns: Rows, lane: u32) -> mat4x4<f32> {
    let tx = lane % 8u;
    let ty = lane / 8u;
    var t = mat4x4<f32>();
    for (var slice = 0u; slice < rows.quads; slice += 4u) {
        // [quad][row] with rows of 66 and 34, so that neither the writes nor the reads meet in a bank.
        let quad = lane % 4u;
        let row = lane / 4u;
        workgroupBarrier();
        let inside = slice + quad < rows.quads;
        stage[quad * 66u + row] = select(vec4<f32>(), load(rows, row, slice + quad), inside);
        stage[quad * 66u + row + 32u] = select(vec4<f32>(), load(rows, row + 32u, slice + quad), inside);
        stage[264u + quad * 34u + row] = load(columns, row, slice + quad);
        workgroupBarrier();
        for (var j = 0u; j < 4u; j++) {
            let a = j * 66u + ty;
            let b = 264u + j * 34u + tx;
            let r0 = stage[a];
            let r1 = stage[a + 16u];
            let r2 = stage[a + 32u];
            let r3 = stage[a + 48u];
            let c0 = stage[b];
            let c1 = stage[b + 8u];
            let c2 = stage[b + 16u];
            let c3 = stage[b + 24u];
            t[0] += vec4<f32>(dot(r0, c0), dot(r0, c1), dot(r0, c2), dot(r0, c3));
            t[1] += vec4<f32>(dot(r1, c0), dot(r1, c1), dot(r1, c2), dot(r1, c3));
            t[2] += vec4<f32>(dot(r2, c0), dot(r2, c1), dot(r2, c2), dot(r2, c3));
            t[3] += vec4<f32>(dot(r3, c0), dot(r3, c1), dot(r3, c2), dot(r3, c3));
        }
    }
    return t;
}

// Puts the weights and the span of the values where all lanes reach them. Between its barriers nothing else is read.
fn share(w: mat4x4<f32>, values: Rows, span: u32, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let by_column = transpose(w);
    for (var j = 0u; j < 4u; j++) {
        weights[(tx + 8u * j) * 16u + (ty ^ tx)] = by_column[j];
    }
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) {
        let column = lane / 16u + j * 8u;
        stage[column * 16u + lane % 16u] = load(values, column, span * SPAN + lane % 16u);
    }
    workgroupBarrier();
}

// What a lane has of the output: rows ty + 16r, quads tx and tx + 8 of the span.
struct Sums {
    low: mat4x4<f32>,
    high: mat4x4<f32>,
}

// Adds weights · values of all 32 columns.
fn add_products(sums: ptr<function, Sums>, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    var low = (*sums).low;
    var high = (*sums).high;
    for (var column = 0u; column < 32u; column++) {
        let w = weights[column * 16u + (ty ^ (column % 8u))];
        let v0 = stage[column * 16u + tx];
        let v1 = stage[column * 16u + tx + 8u];
        low[0] += w.x * v0;
        low[1] += w.y * v0;
        low[2] += w.z * v0;
        low[3] += w.w * v0;
        high[0] += w.x * v1;
        high[1] += w.y * v1;
        high[2] += w.z * v1;
        high[3] += w.w * v1;
    }
    (*sums).low = low;
    (*sums).high = high;
}

fn highest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

@compute @workgroup_size(128)
fn forward_tiles(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(wid, groups);
    let quads = p.head / 4u;
    let row_tiles = (p.tokens + 63u) / 64u;
    let spans = (quads + SPAN - 1u) / SPAN;
    if (i >= p.batch * p.heads * spans * row_tiles) {
        return;
    }
    let tx = lane % 8u;
    let ty = lane / 8u;
    let first_row = i % row_tiles * 64u;
    let span = i / row_tiles % spans;
    let nh = i / (row_tiles * spans);
    let h = nh % p.heads;
    let image = nh / p.heads * p.tokens;
    let step = 3u * p.heads * quads;
    let part = p.part_stride * quads;
    let q_part = h * p.head_stride * quads;
    let queries = Rows(false, (image + first_row) * step + q_part, step, p.tokens - 1u - first_row, quads);

    var most = vec4<f32>(NONE);
    var total = vec4<f32>(); // over this lane's columns alone until the end
    var sums: Sums;
    for (var first = 0u; first < p.tokens; first += 32u) {
        let last = p.tokens - 1u - first;
        let keys = Rows(false, (image + first) * step + q_part + part, step, last, quads);
        let values = Rows(false, keys.at + part, step, last, quads);
        var w = products(queries, keys, lane) * p.scale;
        let inside = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u) <= vec4<u32>(last);
        for (var r = 0u; r < 4u; r++) {
            w[r] = select(vec4<f32>(NONE), w[r], inside);
        }
        // The rows' maxima over the eight lanes that share them.
        workgroupBarrier();
        stage[tx * 16u + ty] = vec4<f32>(highest(w[0]), highest(w[1]), highest(w[2]), highest(w[3]));
        workgroupBarrier();
        var higher = most;
        for (var j = 0u; j < 8u; j++) {
            higher = max(higher, stage[j * 16u + ty]);
        }
        let fade = exp(most - higher);
        most = higher;
        for (var r = 0u; r < 4u; r++) {
            w[r] = exp(w[r] - higher[r]);
            sums.low[r] *= fade[r];
            sums.high[r] *= fade[r];
        }
        total = total * fade + transpose(w) * vec4<f32>(1.0);
        share(w, values, span, lane);
        add_products(&sums, lane);
    }
    workgroupBarrier();
    stage[tx * 16u + ty] = total;
    workgroupBarrier();
    total = vec4<f32>();
    for (var j = 0u; j < 8u; j++) {
        total += stage[j * 16u + ty];
    }
    for (var r = 0u; r < 4u; r++) {
        let row = first_row + ty + 16u * r;
        if (row < p.tokens) {
            let at = ((image + row) * p.heads + h) * quads + span * SPAN + tx;
            if (span * SPAN + tx < quads) {
                y4[at] = vec4<elem>(sums.low[r] / total[r]);
            }
            if (span * SPAN + tx + 8u < quads) {
                y4[at + 8u] = vec4<elem>(sums.high[r] / total[r]);
            }
            if (span == 0u && tx == 0u) {
                lse[nh * p.tokens + row] = most[r] + log(total[r]);
            }
        }
    }
}

@compute @workgroup_size(128)
fn backward_tiles(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(wid, groups);
    let quads = q.head / 4u;
    let row_tiles = (q.tokens + 63u) / 64u;
    let spans = (quads + SPAN - 1u) / SPAN;
    if (i >= q.batch * q.heads * spans * row_tiles) {
        return;
    }
    let tx = lane % 8u;
    let ty = lane / 8u;
    let first_row = i % row_tiles * 64u;
    let span = i / row_tiles % spans;
    let nh = i / (row_tiles * spans);
    let h = nh % q.heads;
    let image = nh / q.heads * q.tokens;
    let step = 3u * q.heads * quads;
    let part = q.part_stride * quads;
    let q_part = h * q.head_stride * quads;
    let dy_step = q.heads * quads;
    let last_row = q.tokens - 1u - first_row;
    let row_at = (image + first_row) * step + q_part;
    let of_queries = PART == 0u;
    let rows = Rows(false, row_at + select(part, 0u, of_queries), step, last_row, quads);
    var dp_rows = Rows(false, row_at + 2u * part, step, last_row, quads);
    if (of_queries) {
        dp_rows = Rows(true, (image + first_row) * dy_step + h * quads, dy_step, last_row, quads);
    }
    let stat = nh * q.tokens;

    var sums: Sums;
    for (var first = 0u; first < q.tokens; first += 32u) {
        let last = q.tokens - 1u - first;
        let at = (image + first) * step + q_part;
        let columns = Rows(false, at + select(0u, part, of_queries), step, last, quads);
        let dy = Rows(true, (image + first) * dy_step + h * quads, dy_step, last, quads);
        var w = products(rows, columns, lane) * q.scale;
        var dp = mat4x4<f32>();
        if (PART == 0u) {
            dp = products(dp_rows, Rows(false, at + 2u * part, step, last, quads), lane);
        } else if (PART == 1u) {
            dp = products(dp_rows, dy, lane);
        }
        let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);
        let inside = column <= vec4<u32>(last);
        for (var r = 0u; r < 4u; r++) {
            for (var j = 0u; j < 4u; j++) {
                let row = min(ty + 16u * r, last_row);
                let query = stat + select(first + min(column[j], last), first_row + row, of_queries);
                w[r][j] = exp(w[r][j] - known_lse[query]);
                if (PART != 2u) {
                    w[r][j] *= q.scale * (dp[r][j] - known_delta[query]);
                }
            }
            w[r] = select(vec4<f32>(), w[r], inside);
        }
        if (PART == 2u) {
            share(w, dy, span, lane);
        } else {
            share(w, columns, span, lane);
        }
        add_products(&sums, lane);
    }
    for (var r = 0u; r < 4u; r++) {
        let row = ty + 16u * r;
        for (var half = 0u; half < 2u; half++) {
            let quad = span * SPAN + tx + 8u * half;
            if (row <= last_row && quad < quads) {
                let at = row_at + row * step + PART * part + quad;
                var g = sums.low[r];
                if (half == 1u) {
                    g = sums.high[r];
                }
                if (q.accumulate != 0u) {
                    g += vec4<f32>(dqkv4[at]);
                }
                dqkv4[at] = vec4<elem>(g);
            }
        }
    }
}
