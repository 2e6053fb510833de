#import attention_tile
#import index
// Attention forward in tiles; see attention_tile.wgsl.
//
// In bounds: a workgroup's number is tested, so its first row is a token; rows past the last token and quads past the last are
// not written.

const NONE = -1e30; // below any score

@group(0) @binding(2) var<storage, read_write> y4: array<vec4<elem>>; // [N, T, H·d/4]
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;       // [N, H, T]
@group(0) @binding(4) var<uniform> p: Params;

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
