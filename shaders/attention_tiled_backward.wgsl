#import attention_tile
#import index
// The gradients of attention in tiles: dq, dk or dv; see attention_tile.wgsl.
//
// In bounds: a workgroup's number is tested, so its first row is a token; rows and columns past the last token have the numbers of
// the last, and neither they nor quads past the last are written.

override PART: u32 = 0u; // whose gradient: 0 q, 1 k, 2 v

@group(0) @binding(2) var<storage, read> known_lse: array<f32>;          // [N, H, T]
@group(0) @binding(3) var<storage, read> known_delta: array<f32>;        // [N, H, T]
@group(0) @binding(4) var<storage, read_write> dqkv4: array<vec4<elem>>; // [N, T, 3·H·d/4]
@group(0) @binding(5) var<uniform> p: Params;

// What the scores of four columns are made into, with the log-sum-exps and deltas of their queries.
fn weights_of(scores: vec4<f32>, dp: vec4<f32>, of_lse: vec4<f32>, delta: vec4<f32>, inside: vec4<bool>) -> vec4<f32> {
    var w = exp(scores * p.scale - of_lse);
    if (PART != 2u) {
        w *= p.scale * (dp - delta);
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
    if (p.accumulate != 0u) {
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
    let dy_step = p.heads * quads;
    let last_row = p.tokens - 1u - first_row;
    let row_at = (image + first_row) * step + q_part;
    let of_queries = PART == 0u;
    let rows = Rows(false, row_at + select(part, 0u, of_queries), step, last_row, quads);
    var dp_rows = Rows(false, row_at + 2u * part, step, last_row, quads);
    if (of_queries) {
        dp_rows = Rows(true, (image + first_row) * dy_step + h * quads, dy_step, last_row, quads);
    }
    let stat = nh * p.tokens;
    let row = min(vec4<u32>(ty, ty + 16u, ty + 32u, ty + 48u), vec4<u32>(last_row));
    let lse_of_rows = lse4(stat + first_row + row);
    let delta_of_rows = delta4(stat + first_row + row);
    let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);

    var sums: Sums;
    for (var first = 0u; first < p.tokens; first += 64u) {
        let last = p.tokens - 1u - first;
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
