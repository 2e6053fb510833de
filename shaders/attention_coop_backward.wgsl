#import attention_coop_parts
#import eights
enable wgpu_cooperative_matrix;
// Self-attention backward on cooperative matrices; formulas as in attention.wgsl, S made again from its log-sum-exp.
// qkv and dqkv [N, T, 3, H, d] or [N, T, H, 3, d], dy [N, T, H, d] in f16; stats of attention_coop_stats.wgsl.
// With PART 0 rows are queries, columns keys, and dq is made; with PART 1 rows are keys, columns queries, and dk and dv
// are made. Two subgroups share 32 rows, columns come by 16:
//   the even one makes scores q·k, the odd one dy·v, then each weights and slopes of half of the columns;
//   PART 0: of dq = Σ slope·k the even one the upper 16 rows, the odd one the lower;
//   PART 1: the even one dv = Σ weight·dy, the odd one dk = Σ slope·q.
// Weights and slopes are rounded to f16, times a power of two that the sums are divided by again; sums are f32 in the
// order of columns.
//
// In bounds, for the compiler adds no checks here: rows of qkv and dy are of tokens up to the last of the image, eights
// of them below d/8; rows of dqkv are tested to be of such tokens; stats has room for tokens rounded up to 16; `tile`
// holds two times two blocks and 32 rows of 5 eights a pair of subgroups, `stage` 32 rows of 9 fours a pair.

override PART: u32 = 1u;         // whose gradient: 0 q, 1 k and v
override SUMS: u32 = 1u + PART;  // rows of matrices that a subgroup sums

@group(0) @binding(0) var<storage, read> qkv: array<vec4<u32>>;        // [N, T, 3·H·d/8]
@group(0) @binding(1) var<storage, read> dy: array<vec4<u32>>;         // [N, T, H·d/8]
@group(0) @binding(2) var<storage, read> stats: array<vec4<f32>>;      // [N, H, 2, T/4 rounded up to fours]
@group(0) @binding(3) var<storage, read_write> dqkv: array<vec4<u32>>; // [N, T, 3·H·d/8]
@group(0) @binding(4) var<uniform> p: Params;

override WEIGHTS: u32 = 4u * BLOCK_SIZE; // [pair][row][5 eights]: two of weights, two of slopes, one unused
override TILE_SIZE: u32 = 2u * (WEIGHTS + 80u * SUBGROUPS);
override STAGE_SIZE: u32 = 144u * SUBGROUPS;
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;   // [buffer][first, second block][token][STRIDE]
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>; // [pair][row][9 fours]: four of q·k, four of dy·v, one unused

fn load(of_dy: bool, at: u32) -> vec4<u32> {
    if (of_dy) {
        return dy[at];
    }
    return qkv[at];
}

fn unpack(v: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(v.x), unpack2x16float(v.y));
}

@compute @workgroup_size(THREADS)
fn backward(
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
    let image = nh / p.heads * p.tokens;
    let last = p.tokens - 1u;
    let step = p.q_step * EIGHTS;
    let part = p.k_at * EIGHTS; // from q to k and from k to v
    let queries = image * step + h * p.head_stride * EIGHTS;
    let dy_step = p.heads * EIGHTS;
    let dys = image * dy_step + h * EIGHTS;
    let pair = subgroup / 2u;
    let odd = subgroup % 2u;
    let pair_row = group % blocks * down + pair * 32u;
    let row = pair_row + lane;

    // The subgroup's rows, by 16 channels through the room of its weights (even) or slopes (odd).
    let weights_at = WEIGHTS + pair * 160u;
    let my_weights = weights_at + lane * 5u + odd;
    let rows_at = weights_at + odd * 2u;
    let of_dy = PART == 0u && odd == 1u;
    var row_from = queries + min(row, last) * step + (odd + PART) * part;
    if (of_dy) {
        row_from = dys + min(row, last) * dy_step;
    }
#unroll j in 0..8
    var low${j} = vec4<u32>();
    var high${j} = vec4<u32>();
    if (DEPTH > ${j}u) {
        low${j} = load(of_dy, row_from + 2u * ${j}u);
        if (2u * ${j}u + 1u < EIGHTS) {
            high${j} = load(of_dy, row_from + 2u * ${j}u + 1u);
        }
    }
#end
#unroll j in 0..8
    var r0_${j} = coop_mat16x16<f16, B>();
    var r1_${j} = coop_mat16x16<f16, B>();
    if (DEPTH > ${j}u) {
        put(rows_at + lane * 5u, low${j});
        put(rows_at + lane * 5u + 1u, high${j});
        workgroupBarrier();
        r0_${j} = coopLoad<coop_mat16x16<f16, B>>(&tile[2u * rows_at], 10u);
        r1_${j} = coopLoad<coop_mat16x16<f16, B>>(&tile[2u * rows_at + 160u], 10u);
        workgroupBarrier();
    }
#end

    // What this invocation brings: up to four eights of 16 columns' keys (queries), and of their values (dy).
    let second_step = select(step, dy_step, PART == 1u);
    let second_from = select(queries + 2u * part, dys, PART == 1u);
#unroll i in 0..4
    let at${i} = thread + ${i}u * THREADS;
    let token${i} = at${i} / EIGHTS;
    let a_from${i} = queries + (1u - PART) * part + at${i} % EIGHTS;
    let b_from${i} = second_from + at${i} % EIGHTS;
    let to${i} = token${i} * STRIDE + at${i} % EIGHTS;
    var a${i} = vec4<u32>();
    var b${i} = vec4<u32>();
    if (at${i} < BLOCK) {
        put(to${i}, qkv[a_from${i} + min(token${i}, last) * step]);
        put(BLOCK_SIZE + to${i}, load(PART == 1u, b_from${i} + min(token${i}, last) * second_step));
        a${i} = qkv[a_from${i} + min(16u + token${i}, last) * step];
        b${i} = load(PART == 1u, b_from${i} + min(16u + token${i}, last) * second_step);
    }
#end
    if (EIGHTS % 2u == 1u && thread == 0u) {
        put(2u * BLOCK_SIZE, vec4<u32>()); // the last row reaches into it before there is a second buffer
    }
    workgroupBarrier();

#unroll i in 0..2
#unroll j in 0..8
    var sum${i}_${j} = coop_mat16x16<f32, C>();
#end
#end
    let factor = p.scale * LOG2_E;
    let stage_at = pair * 288u + odd * 4u;
    let below_at = stage_at + 144u; // the second 16 rows
    let my_stage = pair * 288u + lane * 9u + odd * 2u;
    let quads = (p.tokens + 15u) / 16u * 4u;
    let lse_at = nh * 2u * quads;
    // Weights and slopes, of these rows and of that block: slopes of the even, weights of the odd, and so on.
    let factors_at = weights_at + select(2u + odd * 80u, odd * 2u, PART == 1u);
    let block_at = select(0u, (1u - odd) * BLOCK_SIZE, PART == 1u);
    let known = min(row, last);
    let row_lse = stats[lse_at + known / 4u][known % 4u];
    let row_delta = stats[lse_at + quads + known / 4u][known % 4u];
    let nine = 9u;

    for (var first = 0u; first < p.tokens; first += 16u) {
        var lse0 = vec4<f32>(row_lse);
        var lse1 = lse0;
        var delta0 = vec4<f32>(row_delta);
        var delta1 = delta0;
        if (PART == 1u) {
            let at = lse_at + first / 4u + odd * 2u;
            lse0 = stats[at];
            lse1 = stats[at + 1u];
            delta0 = stats[at + quads];
            delta1 = stats[at + quads + 1u];
        }
        let buffer = first / 16u % 2u * (2u * BLOCK_SIZE);
        let left_at = 2u * (buffer + odd * BLOCK_SIZE);
        var s0 = coop_mat16x16<f32, C>();
        var s1 = coop_mat16x16<f32, C>();
#unroll j in 0..8
        if (DEPTH > ${j}u) {
            let c = coopLoadT<coop_mat16x16<f16, A>>(&tile[left_at + 4u * ${j}u], 2u * STRIDE);
            s0 = coopMultiplyAdd(c, r0_${j}, s0);
            s1 = coopMultiplyAdd(c, r1_${j}, s1);
        }
#end
        coopStore(s0, &stage[stage_at], nine);
        coopStore(s1, &stage[below_at], nine);
        workgroupBarrier();

        // The next columns, read after the next barrier.
        let other = 2u * BLOCK_SIZE - buffer;
#unroll i in 0..4
        if (${i}u * THREADS < BLOCK) {
            if (${i}u * THREADS + THREADS <= BLOCK || at${i} < BLOCK) {
                put(other + to${i}, a${i});
                put(other + BLOCK_SIZE + to${i}, b${i});
                let next = min(first + 32u + token${i}, last);
                a${i} = qkv[a_from${i} + next * step];
                b${i} = load(PART == 1u, b_from${i} + next * second_step);
            }
        }
#end
        var w0 = exp2(stage[my_stage] * factor - lse0);
        var w1 = exp2(stage[my_stage + 1u] * factor - lse1);
        if (TAIL && PART == 0u) {
            let key = first + odd * 8u + vec4<u32>(0u, 1u, 2u, 3u);
            w0 = select(vec4<f32>(), w0, key <= vec4<u32>(last));
            w1 = select(vec4<f32>(), w1, key + 4u <= vec4<u32>(last));
        }
        if (PART == 1u) {
            tile[2u * my_weights] = vec4<f16>(w0);
            tile[2u * my_weights + 1u] = vec4<f16>(w1);
        }
        tile[2u * my_weights + 4u] = vec4<f16>(w0 * (stage[my_stage + 4u] - delta0));
        tile[2u * my_weights + 5u] = vec4<f16>(w1 * (stage[my_stage + 5u] - delta1));
        workgroupBarrier();

        let f0 = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * factors_at], 10u);
        var f1 = coop_mat16x16<f16, A>();
        if (SUMS > 1u) {
            f1 = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * factors_at + 160u], 10u);
        }
        let right_at = 2u * (buffer + block_at);
#unroll j in 0..8
        if (DEPTH > ${j}u) {
            let c = coopLoadT<coop_mat16x16<f16, B>>(&tile[right_at + 4u * ${j}u], 2u * STRIDE);
            sum0_${j} = coopMultiplyAdd(f0, c, sum0_${j});
            if (SUMS > 1u) {
                sum1_${j} = coopMultiplyAdd(f1, c, sum1_${j});
            }
        }
#end
    }

    // Even: dq's upper rows or dv. Odd: dq's lower rows or dk.
    let out_row = pair_row + (1u - PART) * odd * 16u + lane / 2u;
    let out_part = PART * (2u - odd) * part;
    let scale = select(p.scale, 1.0, PART == 1u && odd == 0u) / weight_range(p.tokens);
#unroll i in 0..2
#unroll j in 0..8
    if (SUMS > ${i}u && DEPTH > ${j}u) {
        coopStoreT(sum${i}_${j}, &stage[stage_at], nine);
        workgroupBarrier();
        let token = out_row + ${i}u * 16u;
        if (token <= last && 2u * ${j}u + lane % 2u < EIGHTS) {
            let staged = stage_at + lane / 2u * 9u + lane % 2u * 2u;
            let to = queries + out_part + token * step + 2u * ${j}u + lane % 2u;
            var low = stage[staged] * scale;
            var high = stage[staged + 1u] * scale;
            if (p.accumulate != 0u) {
                let old = dqkv[to];
                low += unpack(old.xy);
                high += unpack(old.zw);
            }
            dqkv[to] = pack(low, high);
        }
        workgroupBarrier();
    }
#end
#end
}
