#import attention_coop_parts
#import eights
enable wgpu_cooperative_matrix;
// Self-attention forward on cooperative matrices; formulas as in attention.wgsl.
// qkv [N, T, 3, H, d] or [N, T, H, 3, d] and y [N, T, H, d] in f16, lse [N, H, T] in f32. A subgroup makes 32 queries'
// rows of y, a workgroup those of 32·SUBGROUPS of one head; keys come by 16. Weights are rounded to f16, sums are f32 in
// the order of keys.
//
// The softmax is taken relative to a reference that follows a row's maximum only when this outgrows it by HEADROOM
// octaves: till then weights stay below 2^HEADROOM, and the sums in matrices need not be rescaled. The first keys set it.
// Each row decides for itself, whatever other rows of its workgroup do.
//
// In bounds, for the compiler adds no checks here: rows of qkv are of tokens up to the last of the image, eights of them
// below d/8; rows of y and lse are tested to be of such tokens; `tile` holds 16 keys, 16 values and 32 rows of 3 eights
// a subgroup, `stage` 32 rows of 5 fours a subgroup, `grown` two flags for each of up to eight subgroups.

const NONE = -1e30;   // below any score
const HEADROOM = 8.0; // in powers of two; of f16's range 2^16 this leaves what sums of weights need

@group(0) @binding(0) var<storage, read> qkv: array<vec4<u32>>;     // [N, T, 3·H·d/8]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>; // [N, T, H·d/8]
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;     // [N, H, T]
@group(0) @binding(3) var<uniform> p: Params;

override VALUES: u32 = BLOCK_SIZE;       // where they start in `tile`: after the keys
override WEIGHTS: u32 = 2u * BLOCK_SIZE; // [subgroup][row][3 eights], the third unused
override TILE_SIZE: u32 = 2u * (WEIGHTS + 96u * SUBGROUPS);
override STAGE_SIZE: u32 = 160u * SUBGROUPS;
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>; // [subgroup][row][5 fours], the fifth unused
var<workgroup> grown: array<vec4<u32>, 2>;          // by subgroup: 1 if a first reference was set, 2 if one was raised

// A row's weights into workgroup memory; what they sum up to.
fn weigh(at: u32, scores: mat4x4<f32>, factor: f32, reference: f32) -> f32 {
    let w0 = exp2(scores[0] * factor - reference);
    let w1 = exp2(scores[1] * factor - reference);
    let w2 = exp2(scores[2] * factor - reference);
    let w3 = exp2(scores[3] * factor - reference);
    tile[2u * at] = vec4<f16>(w0);
    tile[2u * at + 1u] = vec4<f16>(w1);
    tile[2u * at + 2u] = vec4<f16>(w2);
    tile[2u * at + 3u] = vec4<f16>(w3);
    return dot((w0 + w1) + (w2 + w3), vec4<f32>(1.0));
}

@compute @workgroup_size(THREADS)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let blocks = (p.tokens + THREADS - 1u) / THREADS;
    let group = wid.y * groups.x + wid.x;
    let nh = group / blocks;
    if (nh >= p.batch * p.heads) {
        return;
    }
    let h = nh % p.heads;
    let image = nh / p.heads * p.tokens;
    let last = p.tokens - 1u;
    let step = 3u * p.heads * EIGHTS;
    let part = p.part_stride * EIGHTS;
    let queries = image * step + h * p.head_stride * EIGHTS;
    let row = group % blocks * THREADS + subgroup * 32u + lane;

    // The subgroup's queries, by 16 channels through the room of its weights.
    let weights_at = WEIGHTS + subgroup * 96u;
    let my_weights = weights_at + lane * 3u;
    let query = queries + min(row, last) * step;
#unroll j in 0..8
    var low${j} = vec4<u32>();
    var high${j} = vec4<u32>();
    if (DEPTH > ${j}u) {
        low${j} = qkv[query + 2u * ${j}u];
        high${j} = qkv[query + 2u * ${j}u + 1u];
    }
#end
#unroll j in 0..8
    var q0_${j} = coop_mat16x16<f16, B>();
    var q1_${j} = coop_mat16x16<f16, B>();
    if (DEPTH > ${j}u) {
        put(my_weights, low${j});
        put(my_weights + 1u, high${j});
        workgroupBarrier();
        q0_${j} = coopLoad<coop_mat16x16<f16, B>>(&tile[2u * weights_at], 6u);
        q1_${j} = coopLoad<coop_mat16x16<f16, B>>(&tile[2u * weights_at + 96u], 6u);
        workgroupBarrier();
    }
#end

    // What this invocation brings: up to four eights of 16 keys, and the same of their values.
#unroll i in 0..4
    let at${i} = thread + ${i}u * THREADS;
    let token${i} = at${i} / EIGHTS;
    let from${i} = queries + part + at${i} % EIGHTS;
    let to${i} = token${i} * STRIDE + at${i} % EIGHTS;
    var k${i} = vec4<u32>();
    var v${i} = vec4<u32>();
    if (at${i} < BLOCK) {
        put(to${i}, qkv[from${i} + min(token${i}, last) * step]);
        k${i} = qkv[from${i} + min(16u + token${i}, last) * step];
        v${i} = qkv[from${i} + part + min(token${i}, last) * step];
    }
#end
    if (thread < 2u) {
        grown[thread] = vec4<u32>();
    }
    workgroupBarrier();

#unroll j in 0..8
    var y0_${j} = coop_mat16x16<f32, C>();
    var y1_${j} = coop_mat16x16<f32, C>();
#end
    let factor = p.scale * LOG2_E;
    let stage_at = subgroup * 160u;
    let below_at = stage_at + 80u; // the second 16 rows
    let my_stage = stage_at + lane * 5u;
    var reference = NONE;
    var total = 0.0;
    for (var first = 0u; first < p.tokens; first += 16u) {
        var s0 = coop_mat16x16<f32, C>();
        var s1 = coop_mat16x16<f32, C>();
#unroll j in 0..8
        if (DEPTH > ${j}u) {
            let k = coopLoadT<coop_mat16x16<f16, A>>(&tile[4u * ${j}u], 2u * STRIDE);
            s0 = coopMultiplyAdd(k, q0_${j}, s0);
            s1 = coopMultiplyAdd(k, q1_${j}, s1);
        }
#end
        let five = 5u;
        coopStore(s0, &stage[stage_at], five);
        coopStore(s1, &stage[below_at], five);
        workgroupBarrier();

        // These values, read after the next barrier, and the next keys, read after the one thereafter.
#unroll i in 0..4
        if (${i}u * THREADS < BLOCK) {
            if (${i}u * THREADS + THREADS <= BLOCK || at${i} < BLOCK) {
                put(to${i}, k${i});
                put(VALUES + to${i}, v${i});
                k${i} = qkv[from${i} + min(first + 32u + token${i}, last) * step];
                v${i} = qkv[from${i} + part + min(first + 16u + token${i}, last) * step];
            }
        }
#end
        var scores = mat4x4<f32>(
            stage[my_stage], stage[my_stage + 1u], stage[my_stage + 2u], stage[my_stage + 3u],
        );
        if (TAIL) {
            let key = first + vec4<u32>(0u, 1u, 2u, 3u);
            scores[0] = select(vec4<f32>(NONE), scores[0], key <= vec4<u32>(last));
            scores[1] = select(vec4<f32>(NONE), scores[1], key + 4u <= vec4<u32>(last));
            scores[2] = select(vec4<f32>(NONE), scores[2], key + 8u <= vec4<u32>(last));
            scores[3] = select(vec4<f32>(NONE), scores[3], key + 12u <= vec4<u32>(last));
        }
        let highest4 = max(max(scores[0], scores[1]), max(scores[2], scores[3]));
        let highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w)) * factor;
        let grows = highest > reference + HEADROOM;
        let some = subgroupAny(grows);
        if (lane == 0u) {
            grown[subgroup / 4u][subgroup % 4u] = select(0u, select(2u, 1u, first == 0u), some);
        }
        var sum = weigh(my_weights, scores, factor, reference);
        workgroupBarrier();

        var fade = 1.0;
        if (any((grown[0] | grown[1]) != vec4<u32>())) {
            let raised = select(reference, highest, grows);
            fade = exp2(reference - raised);
            reference = raised;
            sum = weigh(my_weights, scores, factor, reference);
            workgroupBarrier();
            if (any((grown[0] | grown[1]) > vec4<u32>(1u))) {
#unroll j in 0..8
                if (DEPTH > ${j}u) {
                    coopStoreT(y0_${j}, &stage[stage_at], five);
                    coopStoreT(y1_${j}, &stage[below_at], five);
                    workgroupBarrier();
                    stage[my_stage] *= fade;
                    stage[my_stage + 1u] *= fade;
                    stage[my_stage + 2u] *= fade;
                    stage[my_stage + 3u] *= fade;
                    workgroupBarrier();
                    y0_${j} = coopLoadT<coop_mat16x16<f32, C>>(&stage[stage_at], five);
                    y1_${j} = coopLoadT<coop_mat16x16<f32, C>>(&stage[below_at], five);
                    workgroupBarrier();
                }
#end
            }
        }
        total = total * fade + sum;

        let w0 = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * weights_at], 6u);
        let w1 = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * weights_at + 96u], 6u);
#unroll j in 0..8
        if (DEPTH > ${j}u) {
            let v = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * VALUES + 4u * ${j}u], 2u * STRIDE);
            y0_${j} = coopMultiplyAdd(w0, v, y0_${j});
            y1_${j} = coopMultiplyAdd(w1, v, y1_${j});
        }
#end
    }

    let inverse = 1.0 / total;
    let out = ((image + row) * p.heads + h) * EIGHTS;
    let stride = 5u;
#unroll j in 0..8
    if (DEPTH > ${j}u) {
        coopStoreT(y0_${j}, &stage[stage_at], stride);
        coopStoreT(y1_${j}, &stage[below_at], stride);
        workgroupBarrier();
        if (row <= last) {
            y[out + ${j}u * 2u] = pack(stage[my_stage] * inverse, stage[my_stage + 1u] * inverse);
            y[out + ${j}u * 2u + 1u] = pack(stage[my_stage + 2u] * inverse, stage[my_stage + 3u] * inverse);
        }
        workgroupBarrier();
    }
#end
    if (row <= last) {
        lse[nh * p.tokens + row] = (reference + log2(total)) / LOG2_E;
    }
}
