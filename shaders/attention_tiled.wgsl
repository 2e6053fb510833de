#import index
// Self-attention, forward and backward, in tiles of 64 rows by 64 columns; formulas as in attention.wgsl.
// qkv [N, T, 3, H, d] or [N, T, H, 3, d], y [N, T, H, d], lse and delta [N, H, T]; d must divide by 4.
// Forward and for dq rows are queries and columns keys; for dk and dv the other way round. A workgroup of 128 makes
// 64 rows of the output and up to 64 channels of them: larger heads make their scores again for every 64.
// Of the scores a lane has rows ty + 16r and columns tx + 8j, of the output the same rows and quads tx and tx + 8 of the span.
// Workgroup memory: exactly WebGPU's 16 KiB.
//
// In bounds, for the compiler adds no checks here: a workgroup's number is tested, so its first row is a token; rows and columns
// past the last token are read as the last, quads past a row's end as its last, and neither is written. Indices of `memory`
// are below 528 where products are made, 1024 where weights and values are shared.

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

var<workgroup> memory: array<vec4<f32>, 1024>;
const COLUMNS = 264u; // where products have their columns: 4 quads of 66 rows come before
const VALUES = 512u;  // where the values begin: 32 weights of 16 fours of rows come before

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

// A lane's four rows of a tile, each at columns tx + 8j: j = 0..3 in `near`, 4..7 in `far`.
struct Scores {
    #unroll r in 0..4
    near${r}: vec4<f32>,
    far${r}: vec4<f32>,
    #end
}

// Products of 64 rows and 64 columns, over all their quads.
fn products(rows: Rows, columns: Rows, lane: u32) -> Scores {
    let tx = lane % 8u;
    let ty = lane / 8u;
    // [quad][row] with rows of 66, so that neither the writes nor the reads meet in a bank.
    let quad = lane % 4u;
    let row = lane / 4u;
    let cell = quad * 66u + row;
    var s: Scores;
    var a0 = load(rows, row, quad);
    var a1 = load(rows, row + 32u, quad);
    var b0 = load(columns, row, quad);
    var b1 = load(columns, row + 32u, quad);
    for (var slice = 0u; slice < rows.quads; slice += 4u) {
        let inside = slice + quad < rows.quads;
        workgroupBarrier();
        memory[cell] = select(vec4<f32>(), a0, inside);
        memory[cell + 32u] = select(vec4<f32>(), a1, inside);
        memory[COLUMNS + cell] = b0;
        memory[COLUMNS + cell + 32u] = b1;
        workgroupBarrier();
        // The next slice is under way while this one is worked on.
        if (slice + 4u < rows.quads) {
            a0 = load(rows, row, slice + 4u + quad);
            a1 = load(rows, row + 32u, slice + 4u + quad);
            b0 = load(columns, row, slice + 4u + quad);
            b1 = load(columns, row + 32u, slice + 4u + quad);
        }
        for (var i = 0u; i < 4u; i++) {
            let a = i * 66u + ty;
            let b = COLUMNS + i * 66u + tx;
            let near = transpose(mat4x4<f32>(memory[b], memory[b + 8u], memory[b + 16u], memory[b + 24u]));
            let far = transpose(mat4x4<f32>(memory[b + 32u], memory[b + 40u], memory[b + 48u], memory[b + 56u]));
            #unroll r in 0..4
            let row${r} = memory[a + 16u * ${r}u];
            #unroll k in 0..4
            s.near${r} += row${r}[${k}] * near[${k}];
            s.far${r} += row${r}[${k}] * far[${k}];
            #end
            #end
        }
    }
    return s;
}

// A lane's part of 32 rows of the values' span: rows lane / 16 + 8j.
fn fetch(values: Rows, first: u32, span: u32, lane: u32) -> mat4x4<f32> {
    let row = first + lane / 16u;
    let quad = span * SPAN + lane % 16u;
    return mat4x4<f32>(
        load(values, row, quad),
        load(values, row + 8u, quad),
        load(values, row + 16u, quad),
        load(values, row + 24u, quad),
    );
}

// Puts the weights of 32 columns and their values where all lanes reach them. Between its barriers nothing else is read.
fn share(w: mat4x4<f32>, values: mat4x4<f32>, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let by_column = transpose(w);
    workgroupBarrier();
    #unroll j in 0..4
    memory[(tx + 8u * ${j}u) * 16u + (ty ^ tx)] = by_column[${j}];
    memory[VALUES + ${j}u * 128u + lane] = values[${j}];
    #end
    workgroupBarrier();
}

// What a lane has of the output.
struct Sums {
    #unroll r in 0..4
    low${r}: vec4<f32>,
    high${r}: vec4<f32>,
    #end
}

// Adds weights · values of the 32 columns that are shared.
fn add_products(sums: ptr<function, Sums>, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    var s = *sums;
    for (var column = 0u; column < 32u; column++) {
        let w = memory[column * 16u + (ty ^ (column % 8u))];
        let low = memory[VALUES + column * 16u + tx];
        let high = memory[VALUES + column * 16u + tx + 8u];
        #unroll r in 0..4
        s.low${r} += w[${r}] * low;
        s.high${r} += w[${r}] * high;
        #end
    }
    *sums = s;
}

// Adds weights · values of 64 columns, of which those past `last` are not there.
fn add_all(sums: ptr<function, Sums>, w: Scores, values: Rows, span: u32, lane: u32) {
    share(mat4x4<f32>(w.near0, w.near1, w.near2, w.near3), fetch(values, 0u, span, lane), lane);
    add_products(sums, lane);
    if (values.last >= 32u) {
        share(mat4x4<f32>(w.far0, w.far1, w.far2, w.far3), fetch(values, 32u, span, lane), lane);
        add_products(sums, lane);
    }
}

fn highest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn total_of(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
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
    let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);

    var most = vec4<f32>(NONE);
    var total = vec4<f32>(); // over this lane's columns alone until the end
    var sums: Sums;
    for (var first = 0u; first < p.tokens; first += 64u) {
        let last = p.tokens - 1u - first;
        let keys = Rows(false, (image + first) * step + q_part + part, step, last, quads);
        let values = Rows(false, keys.at + part, step, last, quads);
        var w = products(queries, keys, lane);
        let near = column <= vec4<u32>(last);
        let far = column + 32u <= vec4<u32>(last);
        #unroll r in 0..4
        w.near${r} = select(vec4<f32>(NONE), w.near${r} * p.scale, near);
        w.far${r} = select(vec4<f32>(NONE), w.far${r} * p.scale, far);
        let most${r} = highest(max(w.near${r}, w.far${r}));
        #end
        // The rows' maxima over the eight lanes that share them.
        workgroupBarrier();
        memory[tx * 16u + ty] = vec4<f32>(most0, most1, most2, most3);
        workgroupBarrier();
        var higher = most;
        #unroll j in 0..8
        higher = max(higher, memory[${j}u * 16u + ty]);
        #end
        let fade = exp(most - higher);
        most = higher;
        #unroll r in 0..4
        w.near${r} = exp(w.near${r} - higher[${r}]);
        w.far${r} = exp(w.far${r} - higher[${r}]);
        total[${r}] = total[${r}] * fade[${r}] + total_of(w.near${r} + w.far${r});
        sums.low${r} *= fade[${r}];
        sums.high${r} *= fade[${r}];
        #end
        add_all(&sums, w, values, span, lane);
    }
    workgroupBarrier();
    memory[tx * 16u + ty] = total;
    workgroupBarrier();
    total = vec4<f32>();
    for (var j = 0u; j < 8u; j++) {
        total += memory[j * 16u + ty];
    }
    #unroll r in 0..4
    let row${r} = first_row + ty + 16u * ${r}u;
    if (row${r} < p.tokens) {
        let at = ((image + row${r}) * p.heads + h) * quads + span * SPAN + tx;
        if (span * SPAN + tx < quads) {
            y4[at] = vec4<elem>(sums.low${r} / total[${r}]);
        }
        if (span * SPAN + tx + 8u < quads) {
            y4[at + 8u] = vec4<elem>(sums.high${r} / total[${r}]);
        }
        if (span == 0u && tx == 0u) {
            lse[nh * p.tokens + row${r}] = most[${r}] + log(total[${r}]);
        }
    }
    #end
}

// What the scores of four columns are made into, with the log-sum-exps and deltas of their queries.
fn weights_of(scores: vec4<f32>, dp: vec4<f32>, of_lse: vec4<f32>, delta: vec4<f32>, inside: vec4<bool>) -> vec4<f32> {
    var w = exp(scores * q.scale - of_lse);
    if (PART != 2u) {
        w *= q.scale * (dp - delta);
    }
    return select(vec4<f32>(), w, inside);
}

// Of four queries, whose places in known_lse and known_delta these are.
fn lse4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(known_lse[at.x], known_lse[at.y], known_lse[at.z], known_lse[at.w]);
}

fn delta4(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(known_delta[at.x], known_delta[at.y], known_delta[at.z], known_delta[at.w]);
}

fn put(at: u32, gradient: vec4<f32>) {
    var g = gradient;
    if (q.accumulate != 0u) {
        g += vec4<f32>(dqkv4[at]);
    }
    dqkv4[at] = vec4<elem>(g);
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
    let row = min(vec4<u32>(ty, ty + 16u, ty + 32u, ty + 48u), vec4<u32>(last_row));
    let lse_of_rows = lse4(stat + first_row + row);
    let delta_of_rows = delta4(stat + first_row + row);
    let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);

    var sums: Sums;
    for (var first = 0u; first < q.tokens; first += 64u) {
        let last = q.tokens - 1u - first;
        let at = (image + first) * step + q_part;
        let columns = Rows(false, at + select(0u, part, of_queries), step, last, quads);
        let dy = Rows(true, (image + first) * dy_step + h * quads, dy_step, last, quads);
        var w = products(rows, columns, lane);
        var dp: Scores;
        if (PART == 0u) {
            dp = products(dp_rows, Rows(false, at + 2u * part, step, last, quads), lane);
        } else if (PART == 1u) {
            dp = products(dp_rows, dy, lane);
        }
        #unroll half in 0..2
        let column${half} = column + 32u * ${half}u;
        let inside${half} = column${half} <= vec4<u32>(last);
        let query${half} = stat + first + min(column${half}, vec4<u32>(last));
        let lse${half} = lse4(query${half});
        let delta${half} = delta4(query${half});
        #end
        #unroll r in 0..4
        let lse_near${r} = select(lse0, vec4<f32>(lse_of_rows[${r}]), of_queries);
        let lse_far${r} = select(lse1, vec4<f32>(lse_of_rows[${r}]), of_queries);
        let delta_near${r} = select(delta0, vec4<f32>(delta_of_rows[${r}]), of_queries);
        let delta_far${r} = select(delta1, vec4<f32>(delta_of_rows[${r}]), of_queries);
        w.near${r} = weights_of(w.near${r}, dp.near${r}, lse_near${r}, delta_near${r}, inside0);
        w.far${r} = weights_of(w.far${r}, dp.far${r}, lse_far${r}, delta_far${r}, inside1);
        #end
        if (PART == 2u) {
            add_all(&sums, w, dy, span, lane);
        } else {
            add_all(&sums, w, columns, span, lane);
        }
    }
    let quad = span * SPAN + tx;
    #unroll r in 0..4
    if (ty + 16u * ${r}u <= last_row) {
        let at = row_at + (ty + 16u * ${r}u) * step + PART * part + quad;
        if (quad < quads) {
            put(at, sums.low${r});
        }
        if (quad + 8u < quads) {
            put(at + 8u, sums.high${r});
        }
    }
    #end
}
