#import index
// Self-attention, forward and backward, without workgroup memory.
//   S[t, s] = q[t]·k[s]·d^-½,  P = softmax over s,  o[t] = Σ_s P[t, s]·v[s],  lse[t] = log Σ_s exp S[t, s]
//   delta[t] = do[t]·o[t],  dS[t, s] = P[t, s]·(do[t]·v[s] - delta[t])
//   dq[t] = d^-½·Σ_s dS[t, s]·k[s],  dk[s] = d^-½·Σ_t dS[t, s]·q[t],  dv[s] = Σ_t P[t, s]·do[t]
// qkv [N, T, 3, H, d] or [N, T, H, 3, d], y [N, T, H, d], lse and delta [N, H, T]. S and P are never stored.
// The entries ending in _rows take four rows against four columns at a time in registers: d must divide by 4.
// The others take one element an invocation and any d.

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

const SPAN = 8u;         // quads of the output that an invocation holds
const NONE = -1e30;      // below any score

@group(0) @binding(0) var<storage, read> qkv: array<elem>;               // [N, T, 3·H·d]
@group(0) @binding(0) var<storage, read> qkv4: array<vec4<elem>>;        // [N, T, 3·H·d/4]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;           // [N, T, H·d]
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<elem>>;    // [N, T, H·d/4]
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;          // [N, H, T]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> o: array<elem>;                 // [N, T, H·d]
@group(0) @binding(2) var<storage, read_write> delta: array<f32>;        // [N, H, T]

@group(0) @binding(1) var<storage, read> dy: array<elem>;                // [N, T, H·d]
@group(0) @binding(1) var<storage, read> dy4: array<vec4<elem>>;         // [N, T, H·d/4]
@group(0) @binding(2) var<storage, read> known_lse: array<f32>;          // [N, H, T]
@group(0) @binding(3) var<storage, read> known_delta: array<f32>;        // [N, H, T]
@group(0) @binding(4) var<storage, read_write> dqkv: array<elem>;        // [N, T, 3·H·d]
@group(0) @binding(4) var<storage, read_write> dqkv4: array<vec4<elem>>; // [N, T, 3·H·d/4]
@group(0) @binding(5) var<uniform> q: Params;

// One element of the output an invocation, with the running maximum.
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.batch * p.tokens * p.heads * p.head) {
        return;
    }
    let c = i % p.head;
    let h = i / p.head % p.heads;
    let token = i / (p.head * p.heads);
    let n = token / p.tokens;
    let row = 3u * p.heads * p.head;
    let q_at = token * row + h * p.head_stride * p.head;
    var most = NONE;
    var total = 0.0;
    var sum = 0.0;
    for (var s = 0u; s < p.tokens; s++) {
        let k_at = (n * p.tokens + s) * row + (h * p.head_stride + p.part_stride) * p.head;
        var score = 0.0;
        for (var j = 0u; j < p.head; j++) {
            score += f32(qkv[q_at + j]) * f32(qkv[k_at + j]);
        }
        score *= p.scale;
        let higher = max(most, score);
        let fade = exp(most - higher);
        let weight = exp(score - higher);
        most = higher;
        total = total * fade + weight;
        sum = sum * fade + weight * f32(qkv[k_at + p.part_stride * p.head + c]);
    }
    y[i] = elem(sum / total);
    if (c == 0u) {
        lse[(n * p.heads + h) * p.tokens + token % p.tokens] = most + log(total);
    }
}

@compute @workgroup_size(64)
fn row_products(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.batch * p.tokens * p.heads) {
        return;
    }
    let token = i / p.heads;
    var sum = 0.0;
    for (var j = 0u; j < p.head; j++) {
        sum += f32(o[i * p.head + j]) * f32(dy[i * p.head + j]);
    }
    delta[(token / p.tokens * p.heads + i % p.heads) * p.tokens + token % p.tokens] = sum;
}

// One element of dqkv an invocation.
@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = 3u * q.heads * q.head;
    if (i >= q.batch * q.tokens * row) {
        return;
    }
    let c = i % q.head;
    let slot = i / q.head % (3u * q.heads);
    var h = slot % q.heads;
    var part = slot / q.heads;
    if (q.part_stride == 1u) {
        h = slot / 3u;
        part = slot % 3u;
    }
    let token = i / row;
    let n = token / q.tokens;
    let q_part = h * q.head_stride * q.head;
    let step = q.part_stride * q.head;
    let stats = (n * q.heads + h) * q.tokens;
    var sum = 0.0;
    for (var other = n * q.tokens; other < (n + 1u) * q.tokens; other++) {
        let query = select(other, token, part == 0u);
        let key = select(token, other, part == 0u);
        let q_at = query * row + q_part;
        let k_at = key * row + q_part + step;
        let dy_at = (query * q.heads + h) * q.head;
        var score = 0.0;
        var product = 0.0;
        for (var j = 0u; j < q.head; j++) {
            score += f32(qkv[q_at + j]) * f32(qkv[k_at + j]);
            product += f32(dy[dy_at + j]) * f32(qkv[k_at + step + j]);
        }
        let stat = stats + query % q.tokens;
        let weight = exp(score * q.scale - known_lse[stat]);
        if (part == 2u) {
            sum += weight * f32(dy[dy_at + c]);
        } else {
            let at = select(q_at, k_at, part == 0u);
            sum += q.scale * weight * (product - known_delta[stat]) * f32(qkv[at + c]);
        }
    }
    if (q.accumulate != 0u) {
        sum += f32(dqkv[i]);
    }
    dqkv[i] = elem(sum);
}

// Products of the rows of qkv at `rows` with those at `columns`: result[r][c].
fn products(rows: vec4<u32>, columns: vec4<u32>, quads: u32) -> mat4x4<f32> {
    var t = mat4x4<f32>();
    for (var j = 0u; j < quads; j++) {
        let c0 = vec4<f32>(qkv4[columns.x + j]);
        let c1 = vec4<f32>(qkv4[columns.y + j]);
        let c2 = vec4<f32>(qkv4[columns.z + j]);
        let c3 = vec4<f32>(qkv4[columns.w + j]);
        let r0 = vec4<f32>(qkv4[rows.x + j]);
        let r1 = vec4<f32>(qkv4[rows.y + j]);
        let r2 = vec4<f32>(qkv4[rows.z + j]);
        let r3 = vec4<f32>(qkv4[rows.w + j]);
        t[0] += vec4<f32>(dot(r0, c0), dot(r0, c1), dot(r0, c2), dot(r0, c3));
        t[1] += vec4<f32>(dot(r1, c0), dot(r1, c1), dot(r1, c2), dot(r1, c3));
        t[2] += vec4<f32>(dot(r2, c0), dot(r2, c1), dot(r2, c2), dot(r2, c3));
        t[3] += vec4<f32>(dot(r3, c0), dot(r3, c1), dot(r3, c2), dot(r3, c3));
    }
    return t;
}

// The same of the rows of dy at `rows` with those of qkv at `columns`.
fn products_of_dy(rows: vec4<u32>, columns: vec4<u32>, quads: u32) -> mat4x4<f32> {
    var t = mat4x4<f32>();
    for (var j = 0u; j < quads; j++) {
        let c0 = vec4<f32>(qkv4[columns.x + j]);
        let c1 = vec4<f32>(qkv4[columns.y + j]);
        let c2 = vec4<f32>(qkv4[columns.z + j]);
        let c3 = vec4<f32>(qkv4[columns.w + j]);
        let r0 = vec4<f32>(dy4[rows.x + j]);
        let r1 = vec4<f32>(dy4[rows.y + j]);
        let r2 = vec4<f32>(dy4[rows.z + j]);
        let r3 = vec4<f32>(dy4[rows.w + j]);
        t[0] += vec4<f32>(dot(r0, c0), dot(r0, c1), dot(r0, c2), dot(r0, c3));
        t[1] += vec4<f32>(dot(r1, c0), dot(r1, c1), dot(r1, c2), dot(r1, c3));
        t[2] += vec4<f32>(dot(r2, c0), dot(r2, c1), dot(r2, c2), dot(r2, c3));
        t[3] += vec4<f32>(dot(r3, c0), dot(r3, c1), dot(r3, c2), dot(r3, c3));
    }
    return t;
}

fn highest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// Four queries and SPAN quads of their output an invocation; keys four at a time.
@compute @workgroup_size(16)
fn forward_rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    let quads = p.head / 4u;
    let row_blocks = (p.tokens + 3u) / 4u;
    let spans = (quads + SPAN - 1u) / SPAN;
    if (i >= p.batch * p.heads * spans * row_blocks) {
        return;
    }
    let t = i % row_blocks * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    let span = i / row_blocks % spans;
    let nh = i / (row_blocks * spans);
    let h = nh % p.heads;
    let first = nh / p.heads * p.tokens;
    let row = 3u * p.heads * quads;
    let last = vec4<u32>(p.tokens - 1u);
    let q_at = (first + min(t, last)) * row + h * p.head_stride * quads;
    var most = vec4<f32>(NONE);
    var total = vec4<f32>();
    var a0: array<vec4<f32>, SPAN>;
    var a1: array<vec4<f32>, SPAN>;
    var a2: array<vec4<f32>, SPAN>;
    var a3: array<vec4<f32>, SPAN>;
    for (var block = 0u; block < p.tokens; block += 4u) {
        let s = block + vec4<u32>(0u, 1u, 2u, 3u);
        let k_at = (first + min(s, last)) * row + (h * p.head_stride + p.part_stride) * quads;
        var w = products(q_at, k_at, quads) * p.scale;
        let inside = s <= last;
        for (var r = 0u; r < 4u; r++) {
            w[r] = select(vec4<f32>(NONE), w[r], inside);
        }
        let higher = max(most, vec4<f32>(highest(w[0]), highest(w[1]), highest(w[2]), highest(w[3])));
        let fade = exp(most - higher);
        most = higher;
        for (var r = 0u; r < 4u; r++) {
            w[r] = exp(w[r] - higher[r]);
        }
        total = total * fade + transpose(w) * vec4<f32>(1.0);
        let v_at = k_at + p.part_stride * quads;
        for (var j = 0u; j < SPAN; j++) {
            let quad = min(span * SPAN + j, quads - 1u);
            let v0 = vec4<f32>(qkv4[v_at.x + quad]);
            let v1 = vec4<f32>(qkv4[v_at.y + quad]);
            let v2 = vec4<f32>(qkv4[v_at.z + quad]);
            let v3 = vec4<f32>(qkv4[v_at.w + quad]);
            a0[j] = a0[j] * fade.x + w[0].x * v0 + w[0].y * v1 + w[0].z * v2 + w[0].w * v3;
            a1[j] = a1[j] * fade.y + w[1].x * v0 + w[1].y * v1 + w[1].z * v2 + w[1].w * v3;
            a2[j] = a2[j] * fade.z + w[2].x * v0 + w[2].y * v1 + w[2].z * v2 + w[2].w * v3;
            a3[j] = a3[j] * fade.w + w[3].x * v0 + w[3].y * v1 + w[3].z * v2 + w[3].w * v3;
        }
    }
    let y_at = ((first + t) * p.heads + h) * quads + span * SPAN;
    for (var j = 0u; j < SPAN; j++) {
        if (span * SPAN + j < quads) {
            y4[y_at.x + j] = vec4<elem>(a0[j] / total.x);
            if (t.y <= last.x) {
                y4[y_at.y + j] = vec4<elem>(a1[j] / total.y);
            }
            if (t.z <= last.x) {
                y4[y_at.z + j] = vec4<elem>(a2[j] / total.z);
            }
            if (t.w <= last.x) {
                y4[y_at.w + j] = vec4<elem>(a3[j] / total.w);
            }
        }
    }
    if (span == 0u) {
        for (var r = 0u; r < 4u; r++) {
            if (t[r] <= last.x) {
                lse[nh * p.tokens + t[r]] = most[r] + log(total[r]);
            }
        }
    }
}

// Four rows of dq, dk or dv and SPAN quads of them an invocation; the other tokens four at a time.
// Rows are queries and columns keys for dq, the other way round for dk and dv.
@compute @workgroup_size(16)
fn backward_rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    let quads = q.head / 4u;
    let row_blocks = (q.tokens + 3u) / 4u;
    let spans = (quads + SPAN - 1u) / SPAN;
    if (i >= q.batch * q.heads * spans * row_blocks) {
        return;
    }
    let t = i % row_blocks * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    let span = i / row_blocks % spans;
    let nh = i / (row_blocks * spans);
    let h = nh % q.heads;
    let first = nh / q.heads * q.tokens;
    let row = 3u * q.heads * quads;
    let last = vec4<u32>(q.tokens - 1u);
    let q_part = h * q.head_stride * quads;
    let step = q.part_stride * quads;
    let rows = min(t, last);
    var a0: array<vec4<f32>, SPAN>;
    var a1: array<vec4<f32>, SPAN>;
    var a2: array<vec4<f32>, SPAN>;
    var a3: array<vec4<f32>, SPAN>;
    for (var block = 0u; block < q.tokens; block += 4u) {
        let s = block + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = min(s, last);
        let queries = select(columns, rows, PART == 0u);
        let keys = select(rows, columns, PART == 0u);
        let q_at = (first + queries) * row + q_part;
        let k_at = (first + keys) * row + q_part + step;
        let dy_at = ((first + queries) * q.heads + h) * quads;
        // Queries are rows until the last moment.
        var w = products(q_at, k_at, quads) * q.scale;
        var dp = mat4x4<f32>();
        if (PART != 2u) {
            dp = products_of_dy(dy_at, k_at + step, quads);
        }
        for (var r = 0u; r < 4u; r++) {
            let stat = nh * q.tokens + queries[r];
            w[r] = exp(w[r] - known_lse[stat]);
            if (PART != 2u) {
                w[r] *= q.scale * (dp[r] - known_delta[stat]);
            }
        }
        if (PART != 0u) {
            w = transpose(w);
        }
        let inside = s <= last;
        for (var r = 0u; r < 4u; r++) {
            w[r] = select(vec4<f32>(), w[r], inside);
        }
        for (var j = 0u; j < SPAN; j++) {
            let quad = min(span * SPAN + j, quads - 1u);
            var v = mat4x4<f32>();
            if (PART == 2u) {
                v = mat4x4<f32>(
                    vec4<f32>(dy4[dy_at.x + quad]), vec4<f32>(dy4[dy_at.y + quad]),
                    vec4<f32>(dy4[dy_at.z + quad]), vec4<f32>(dy4[dy_at.w + quad]),
                );
            } else {
                let at = select(q_at, k_at, PART == 0u);
                v = mat4x4<f32>(
                    vec4<f32>(qkv4[at.x + quad]), vec4<f32>(qkv4[at.y + quad]),
                    vec4<f32>(qkv4[at.z + quad]), vec4<f32>(qkv4[at.w + quad]),
                );
            }
            a0[j] += v * w[0];
            a1[j] += v * w[1];
            a2[j] += v * w[2];
            a3[j] += v * w[3];
        }
    }
    let at = (first + t) * row + q_part + PART * step + span * SPAN;
    for (var j = 0u; j < SPAN; j++) {
        if (span * SPAN + j < quads) {
            let sums = array<vec4<f32>, 4>(a0[j], a1[j], a2[j], a3[j]);
            for (var r = 0u; r < 4u; r++) {
                if (t[r] <= last.x) {
                    var g = sums[r];
                    if (q.accumulate != 0u) {
                        g += vec4<f32>(dqkv4[at[r] + j]);
                    }
                    dqkv4[at[r] + j] = vec4<elem>(g);
                }
            }
        }
    }
}
