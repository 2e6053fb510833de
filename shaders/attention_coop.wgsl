#import attention_coop_parts
#import attention_sequence
#import eights
enable wgpu_cooperative_matrix;
// Attention forward on cooperative matrices; formulas as in attention.wgsl.
// q and kv as attention_params.wgsl says and y [N, T, H, d] in f16, lse [N, H, T] in f32. A subgroup makes 16 queries'
// rows of y, a workgroup those of 16·SUBGROUPS of one head; keys come by 16. Weights are rounded to f16, sums are f32 in
// the order of keys. A picture whose sequence is not there reads the last, and gets zeros.
//
// The softmax is taken relative to a reference that follows a row's maximum only when this outgrows it by HEADROOM
// octaves: till then weights stay below 2^HEADROOM, and the sums in matrices need not be rescaled. The first keys set it.
// Each row decides for itself, whatever other rows of its workgroup do.
//
// In bounds, for the compiler adds no checks here: rows of q and kv are of tokens up to the last, eights of them below d/8;
// `rows` is read for pictures that are there; rows of y and lse are tested to be of such tokens; `tile` holds 16 keys,
// 16 values and 16 rows of 3 eights a subgroup, `stage` 16 rows of 5 fours a subgroup, `grown` a flag for each of up to 8 subgroups.

const NONE = -1e30;   // below any score
const HEADROOM = 8.0; // in powers of two; of f16's range 2^16 this leaves what sums of weights need

@group(0) @binding(0) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> kv: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;          // [N], or unread
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>; // [N, T, H·d/8]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;     // [N, H, T]
@group(0) @binding(5) var<uniform> p: Params;

// Matrices of values that are loaded before the weights are sure: of small heads.
override EARLY_DEPTH: u32 = select(0u, DEPTH, DEPTH <= 3u);
override VALUES: u32 = BLOCK_SIZE;       // where they start in `tile`: after the keys
override WEIGHTS: u32 = 2u * BLOCK_SIZE; // [subgroup][row][3 eights], the third unused
override TILE_SIZE: u32 = 2u * (WEIGHTS + 48u * SUBGROUPS);
override STAGE_SIZE: u32 = 80u * SUBGROUPS;
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>; // [subgroup][row][5 fours], the fifth unused
var<workgroup> grown: array<vec4<u32>, 2>;          // by subgroup: 1 if a first reference was set, 2 if one was raised

// Half a row's weights into workgroup memory; what they sum up to.
fn weigh(at: u32, scores: mat2x4<f32>, factor: f32, reference: f32) -> f32 {
    let w0 = exp2(scores[0] * factor - reference);
    let w1 = exp2(scores[1] * factor - reference);
    tile[2u * at] = vec4<f16>(w0);
    tile[2u * at + 1u] = vec4<f16>(w1);
    return dot(w0 + w1, vec4<f32>(1.0));
}

fn flags() -> vec4<u32> {
    if (SUBGROUPS <= 4u) {
        return grown[0];
    }
    return max(grown[0], grown[1]);
}

@compute @workgroup_size(THREADS)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let down = 16u * SUBGROUPS;
    let blocks = (p.tokens + down - 1u) / down;
    let group = wid.y * groups.x + wid.x;
    let nh = group / blocks;
    if (nh >= p.batch * p.heads) {
        return;
    }
    let h = nh % p.heads;
    let n = nh / p.heads;
    let sequence = sequence_of(n, p.sequences);
    let there = sequence < p.sequences;
    let last_query = p.tokens - 1u;
    let last = p.keys - 1u;
    let head_at = h * p.head_stride;
    let step = p.kv_step * EIGHTS;
    let keys = (min(sequence, p.sequences - 1u) * p.keys * p.kv_step + head_at + p.k_at) * EIGHTS;
    let part = (p.v_at - p.k_at) * EIGHTS;
    // Two lanes share a row, a half each.
    let row = group % blocks * down + subgroup * 16u + lane % 16u;
    let half = lane / 16u;

    // The subgroup's queries, by 16 channels through the room of its weights.
    let weights_at = WEIGHTS + subgroup * 48u;
    let my_weights = weights_at + lane % 16u * 3u + half;
    let query = ((n * p.tokens + min(row, last_query)) * p.q_step + head_at) * EIGHTS + half;
#unroll j in 0..10
    var part${j} = vec4<u32>();
    if (DEPTH > ${j}u && 2u * ${j}u + half < EIGHTS) {
        part${j} = q[query + 2u * ${j}u];
    }
#end

    // What this invocation brings: up to four eights of 16 keys, and the same of their values.
#unroll i in 0..4
    let at${i} = thread + ${i}u * THREADS;
    let token${i} = at${i} / EIGHTS;
    let from${i} = keys + at${i} % EIGHTS;
    let to${i} = token${i} * STRIDE + at${i} % EIGHTS;
    var k${i} = vec4<u32>();
    var v${i} = vec4<u32>();
    if (at${i} < BLOCK) {
        put(to${i}, kv[from${i} + min(token${i}, last) * step]);
        k${i} = kv[from${i} + min(16u + token${i}, last) * step];
        v${i} = kv[from${i} + part + min(token${i}, last) * step];
    }
#end
#unroll j in 0..10
    var q${j} = coop_mat16x16<f16, B>();
    if (DEPTH > ${j}u) {
        put(my_weights, part${j});
        workgroupBarrier();
        q${j} = coopLoad<coop_mat16x16<f16, B>>(&tile[2u * weights_at], 6u);
        workgroupBarrier();
    }
#end
    if (thread < 2u) {
        grown[thread] = vec4<u32>();
    }
    if (EIGHTS % 2u == 1u && thread == 0u) {
        put(VALUES, vec4<u32>()); // the last key's row reaches into it before there are values
    }
    workgroupBarrier();

#unroll j in 0..10
    var y${j} = coop_mat16x16<f32, C>();
#end
    let factor = p.scale * LOG2_E;
    let stage_at = subgroup * 80u;
    let my_stage = stage_at + lane % 16u * 5u + half * 2u;
    var end = p.keys;
    if (CAUSAL) {
        end = min(end, (group % blocks + 1u) * down);
    }
    var reference = NONE;
    var total = 0.0;
    for (var first = 0u; first < end; first += 16u) {
        var s = coop_mat16x16<f32, C>();
#unroll j in 0..10
        if (DEPTH > ${j}u) {
            let k = coopLoadT<coop_mat16x16<f16, A>>(&tile[4u * ${j}u], 2u * STRIDE);
            s = coopMultiplyAdd(k, q${j}, s);
        }
#end
        let five = 5u;
        coopStore(s, &stage[stage_at], five);
        workgroupBarrier();

        // These values and the next keys, read after the next barrier.
#unroll i in 0..4
        if (${i}u * THREADS < BLOCK) {
            if (${i}u * THREADS + THREADS <= BLOCK || at${i} < BLOCK) {
                put(to${i}, k${i});
                put(VALUES + to${i}, v${i});
                k${i} = kv[from${i} + min(first + 32u + token${i}, last) * step];
                v${i} = kv[from${i} + part + min(first + 16u + token${i}, last) * step];
            }
        }
#end
        var scores = mat2x4<f32>(stage[my_stage], stage[my_stage + 1u]);
        if (TAIL || CAUSAL) {
            let key = first + 8u * half + vec4<u32>(0u, 1u, 2u, 3u);
            let last_seen = vec4<u32>(select(last, min(row, last), CAUSAL));
            scores[0] = select(vec4<f32>(NONE), scores[0], key <= last_seen);
            scores[1] = select(vec4<f32>(NONE), scores[1], key + 4u <= last_seen);
        }
        let fours = max(scores[0], scores[1]);
        let mine = max(max(fours.x, fours.y), max(fours.z, fours.w));
        let highest = max(mine, subgroupShuffleXor(mine, 16u)) * factor;
        let grows = highest > reference + HEADROOM;
        let some = subgroupAny(grows);
        if (lane == 0u) {
            grown[subgroup / 4u][subgroup % 4u] = select(0u, select(2u, 1u, first == 0u), some);
        }
        var sum = weigh(my_weights, scores, factor, reference);
        workgroupBarrier();

#unroll j in 0..3
        var value${j} = coop_mat16x16<f16, B>();
        if (EARLY_DEPTH > ${j}u) {
            value${j} = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * VALUES + 4u * ${j}u], 2u * STRIDE);
        }
#end
        var fade = 1.0;
        if (any(flags() > vec4<u32>(0u))) {
            let raised = select(reference, highest, grows);
            fade = exp2(reference - raised);
            reference = raised;
            sum = weigh(my_weights, scores, factor, reference);
            workgroupBarrier();
            if (any(flags() > vec4<u32>(1u))) {
#unroll j in 0..10
                if (DEPTH > ${j}u) {
                    coopStoreT(y${j}, &stage[stage_at], five);
                    workgroupBarrier();
                    stage[my_stage] *= fade;
                    stage[my_stage + 1u] *= fade;
                    workgroupBarrier();
                    y${j} = coopLoadT<coop_mat16x16<f32, C>>(&stage[stage_at], five);
                    workgroupBarrier();
                }
#end
            }
        }
        total = total * fade + sum;

        let w = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * weights_at], 6u);
        if (EARLY_DEPTH > 0u) {
#unroll j in 0..3
            if (DEPTH > ${j}u) {
                y${j} = coopMultiplyAdd(w, value${j}, y${j});
            }
#end
        } else {
#unroll j in 0..10
            if (DEPTH > ${j}u) {
                let v = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * VALUES + 4u * ${j}u], 2u * STRIDE);
                y${j} = coopMultiplyAdd(w, v, y${j});
            }
#end
        }
    }

    total += subgroupShuffleXor(total, 16u);
    let inverse = select(0.0, 1.0 / total, there);
    let out = ((n * p.tokens + row) * p.heads + h) * EIGHTS + half;
    let stride = 5u;
#unroll j in 0..10
    if (DEPTH > ${j}u) {
        coopStoreT(y${j}, &stage[stage_at], stride);
        workgroupBarrier();
        if (row <= last_query && 2u * ${j}u + half < EIGHTS) {
            y[out + ${j}u * 2u] = pack(stage[my_stage] * inverse, stage[my_stage + 1u] * inverse);
        }
        workgroupBarrier();
    }
#end
    if (row <= last_query && half == 0u) {
        lse[nh * p.tokens + row] = (reference + log2(total)) / LOG2_E;
    }
}
