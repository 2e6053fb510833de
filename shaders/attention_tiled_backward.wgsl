#import attention_tile
#import index
// The gradients of attention in tiles: dq, dk or dv; see attention_tile.wgsl. With ROWS dq alone.
//
// In bounds: a workgroup's number is tested, so its first row is a token; rows and columns past the last token have the numbers of
// the last, and neither they nor quads past the last are written.

override PART: u32 = 0u; // whose gradient: 0 q, 1 k, 2 v

@group(0) @binding(4) var<storage, read> known_lse: array<f32>;        // [N, H, T]
@group(0) @binding(5) var<storage, read> known_delta: array<f32>;      // [N, H, T]
@group(0) @binding(6) var<storage, read_write> dx4: array<vec4<elem>>; // dq as q, dk and dv as kv
@group(0) @binding(7) var<uniform> p: Params;

// What the scores of four columns are made into, with the log-sum-exps and deltas of their queries.
fn weights_of(scores: vec4<f32>, dp: vec4<f32>, of_lse: vec4<f32>, delta: vec4<f32>, inside: vec4<bool>) -> vec4<f32> {
    var logs = scores * p.scale - of_lse;
    if (CAUSAL) {
        logs = min(logs, vec4<f32>()); // of keys that are not seen they may be anything
    }
    var w = exp(logs);
    if (PART != 2u) {
        w *= p.scale * (dp - delta);
    }
    return select(vec4<f32>(), w, inside);
}

// Whether, under CAUSAL, the queries among these rows and columns see the keys.
fn sees(row: vec4<u32>, column: vec4<u32>) -> vec4<bool> {
    if (PART == 0u) {
        return column <= row;
    }
    return row <= column;
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
    if (p.accumulate != 0u) {
        g += vec4<f32>(dx4[at]);
    }
    dx4[at] = vec4<elem>(g);
}

@compute @workgroup_size(128)
fn backward_tiles(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(wid, groups);
    let quads = p.head / 4u;
    let of_query = PART == 0u;
    let length = select(p.keys, p.tokens, of_query);
    let row_tiles = (length + 63u) / 64u;
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
    let n = nh / p.heads;
    let sequence = sequence_of(n, p.sequences);
    let q_step = p.q_step * quads;
    let kv_step = p.kv_step * quads;
    let dy_step = p.heads * quads;
    let head_at = h * p.head_stride * quads;
    let q_at = n * p.tokens * q_step + head_at;
    let kv_at = min(sequence, p.sequences - 1u) * p.keys * kv_step + head_at;
    let k_at = kv_at + p.k_at * quads;
    let v_at = kv_at + p.v_at * quads;
    let dy_at = (n * p.tokens * p.heads + h) * quads;
    let last_row = length - 1u - first_row;
    var rows_here = Rows(IN_Q, q_at + first_row * q_step, q_step, last_row, quads);
    var dp_rows = Rows(IN_DY, dy_at + first_row * dy_step, dy_step, last_row, quads);
    if (!of_query) {
        rows_here = Rows(IN_KV, k_at + first_row * kv_step, kv_step, last_row, quads);
        dp_rows = Rows(IN_KV, v_at + first_row * kv_step, kv_step, last_row, quads);
    }
    let stat = nh * p.tokens;
    let lane_row = vec4<u32>(ty, ty + 16u, ty + 32u, ty + 48u);
    // Those of keys are not used.
    let of_row = stat + min(first_row + min(lane_row, vec4<u32>(last_row)), vec4<u32>(p.tokens - 1u));
    let lse_of_rows = lse4(of_row);
    let delta_of_rows = delta4(of_row);
    let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);

    var sums: Sums;
    let others = select(p.tokens, p.keys, of_query);
    var start = 0u;
    var end = select(0u, others, sequence < p.sequences);
    if (CAUSAL) {
        start = select(first_row, 0u, of_query);
        end = select(end, min(end, first_row + 64u), of_query);
    }
    for (var first = start; first < end; first += 64u) {
        let last = others - 1u - first;
        let queries = Rows(IN_Q, q_at + first * q_step, q_step, last, quads);
        let keys = Rows(IN_KV, k_at + first * kv_step, kv_step, last, quads);
        let values = Rows(IN_KV, v_at + first * kv_step, kv_step, last, quads);
        let dy = Rows(IN_DY, dy_at + first * dy_step, dy_step, last, quads);
        var w: Scores;
        var dp: Scores;
        if (PART == 0u) {
            w = products(rows_here, keys, lane);
            dp = products(dp_rows, values, lane);
        } else {
            w = products(rows_here, queries, lane);
        }
        if (PART == 1u) {
            dp = products(dp_rows, dy, lane);
        }
        #unroll half in 0..2
        let column${half} = column + 32u * ${half}u;
        let inside${half} = column${half} <= vec4<u32>(last);
        let query${half} = stat + min(first + min(column${half}, vec4<u32>(last)), vec4<u32>(p.tokens - 1u));
        let lse${half} = lse4(query${half});
        let delta${half} = delta4(query${half});
        #end
        #unroll r in 0..4
        let lse_near${r} = select(lse0, vec4<f32>(lse_of_rows[${r}]), of_query);
        let lse_far${r} = select(lse1, vec4<f32>(lse_of_rows[${r}]), of_query);
        let delta_near${r} = select(delta0, vec4<f32>(delta_of_rows[${r}]), of_query);
        let delta_far${r} = select(delta1, vec4<f32>(delta_of_rows[${r}]), of_query);
        w.near${r} = weights_of(w.near${r}, dp.near${r}, lse_near${r}, delta_near${r}, inside0);
        w.far${r} = weights_of(w.far${r}, dp.far${r}, lse_far${r}, delta_far${r}, inside1);
        if (CAUSAL) {
            let my_row${r} = vec4<u32>(first_row + ty + 16u * ${r}u);
            w.near${r} = select(vec4<f32>(), w.near${r}, sees(my_row${r}, first + column0));
            w.far${r} = select(vec4<f32>(), w.far${r}, sees(my_row${r}, first + column1));
        }
        #end
        if (PART == 0u) {
            add_all(&sums, w, keys, span, lane);
        } else if (PART == 1u) {
            add_all(&sums, w, queries, span, lane);
        } else {
            add_all(&sums, w, dy, span, lane);
        }
    }
    let quad = span * SPAN + tx;
    var to = q_at;
    var step = q_step;
    if (PART != 0u) {
        to = select(v_at, k_at, PART == 1u);
        step = kv_step;
    }
    #unroll r in 0..4
    if (ty + 16u * ${r}u <= last_row) {
        let at = to + (first_row + ty + 16u * ${r}u) * step + quad;
        if (quad < quads) {
            put(at, sums.low${r});
        }
        if (quad + 8u < quads) {
            put(at + 8u, sums.high${r});
        }
    }
    #end
}
