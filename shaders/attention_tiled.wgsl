#import attention_tile
#import index
// Attention forward in tiles; see attention_tile.wgsl.
//
// In bounds: a workgroup's number is tested, so its first row is a token; rows past the last token and quads past the last are
// not written.

const NONE = -1e30; // below any score

@group(0) @binding(4) var<storage, read_write> y4: array<vec4<elem>>; // [N, T, H·d/4]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // [N, H, T]
@group(0) @binding(6) var<uniform> p: Params;

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
    let n = nh / p.heads;
    let sequence = sequence_of(n, p.sequences);
    let there = sequence < p.sequences;
    let last_row = p.tokens - 1u - first_row;
    let q_at = ((n * p.tokens + first_row) * p.q_step + h * p.head_stride) * quads;
    let queries = Rows(IN_Q, q_at, p.q_step * quads, last_row, quads);
    let step = p.kv_step * quads;
    let kv_at = min(sequence, p.sequences - 1u) * p.keys * step + h * p.head_stride * quads;
    var end = select(0u, p.keys, there);
    if (CAUSAL) {
        end = min(end, first_row + 64u);
    }
    let column = vec4<u32>(tx, tx + 8u, tx + 16u, tx + 24u);

    var most = vec4<f32>(NONE);
    var total = vec4<f32>(); // over this lane's columns alone until the end
    var sums: Sums;
    for (var first = 0u; first < end; first += 64u) {
        let last = p.keys - 1u - first;
        let keys = Rows(IN_KV, kv_at + first * step + p.k_at * quads, step, last, quads);
        let values = Rows(IN_KV, kv_at + first * step + p.v_at * quads, step, last, quads);
        var w = products(queries, keys, lane);
        let near = column <= vec4<u32>(last);
        let far = column + 32u <= vec4<u32>(last);
        #unroll r in 0..4
        w.near${r} = select(vec4<f32>(NONE), w.near${r} * p.scale, near);
        w.far${r} = select(vec4<f32>(NONE), w.far${r} * p.scale, far);
        if (CAUSAL) {
            let query${r} = vec4<u32>(first_row + ty + 16u * ${r}u);
            w.near${r} = select(vec4<f32>(NONE), w.near${r}, first + column <= query${r});
            w.far${r} = select(vec4<f32>(NONE), w.far${r}, first + column + 32u <= query${r});
        }
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
    total = select(vec4<f32>(1.0), total, there);
    most = select(vec4<f32>(), most, there);
    #unroll r in 0..4
    let row${r} = first_row + ty + 16u * ${r}u;
    if (row${r} < p.tokens) {
        let at = ((n * p.tokens + row${r}) * p.heads + h) * quads + span * SPAN + tx;
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
