#import attention_sequence
#import index
// Attention, forward and backward, one element an invocation and any d; no workgroup memory.
//   S[t, s] = q[t]·k[s]·d^-½,  P = softmax over s,  o[t] = Σ_s P[t, s]·v[s],  lse[t] = log Σ_s exp S[t, s]
//   delta[t] = do[t]·o[t],  dS[t, s] = P[t, s]·(do[t]·v[s] - delta[t])
//   dq[t] = d^-½·Σ_s dS[t, s]·k[s],  dk[s] = d^-½·Σ_t dS[t, s]·q[t],  dv[s] = Σ_t P[t, s]·do[t]
// q and kv as attention_params.wgsl says, y [N, T, H, d], lse and delta [N, H, T]. S and P are never stored.
// A picture whose sequence is not there gets zeros.

override PART: u32 = 0u; // whose gradient: 0 q, 1 k, 2 v

const NONE = -1e30;      // below any score

@group(0) @binding(0) var<storage, read> q: array<elem>;
@group(0) @binding(1) var<storage, read> kv: array<elem>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;         // [N], or unread
@group(0) @binding(3) var<storage, read_write> y: array<elem>;     // [N, T, H·d]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;    // [N, H, T]
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> o: array<elem>;           // [N, T, H·d]
@group(0) @binding(1) var<storage, read> dy_of_o: array<elem>;     // [N, T, H·d]
@group(0) @binding(2) var<storage, read_write> delta: array<f32>;  // [N, H, T]
@group(0) @binding(3) var<uniform> of_o: Params;

@group(0) @binding(3) var<storage, read> dy: array<elem>;          // [N, T, H·d]
@group(0) @binding(4) var<storage, read> known_lse: array<f32>;    // [N, H, T]
@group(0) @binding(5) var<storage, read> known_delta: array<f32>;  // [N, H, T]
@group(0) @binding(6) var<storage, read_write> dx: array<elem>;    // dq as q, dk and dv as kv
@group(0) @binding(7) var<uniform> b: Params;

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
    let sequence = sequence_of(n, p.sequences);
    var end = p.keys;
    if (CAUSAL) {
        end = token % p.tokens + 1u;
    }
    if (sequence == p.sequences) {
        end = 0u;
    }
    let q_at = (token * p.q_step + h * p.head_stride) * p.head;
    var most = NONE;
    var total = 0.0;
    var sum = 0.0;
    for (var s = 0u; s < end; s++) {
        let slot = (sequence * p.keys + s) * p.kv_step + h * p.head_stride;
        let k_at = (slot + p.k_at) * p.head;
        var score = 0.0;
        for (var j = 0u; j < p.head; j++) {
            score += f32(q[q_at + j]) * f32(kv[k_at + j]);
        }
        score *= p.scale;
        let higher = max(most, score);
        let fade = exp(most - higher);
        let weight = exp(score - higher);
        most = higher;
        total = total * fade + weight;
        sum = sum * fade + weight * f32(kv[(slot + p.v_at) * p.head + c]);
    }
    y[i] = elem(select(0.0, sum / total, end > 0u));
    if (c == 0u) {
        lse[(n * p.heads + h) * p.tokens + token % p.tokens] = select(0.0, most + log(total), end > 0u);
    }
}

@compute @workgroup_size(64)
fn row_products(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= of_o.batch * of_o.tokens * of_o.heads) {
        return;
    }
    let token = i / of_o.heads;
    var sum = 0.0;
    for (var j = 0u; j < of_o.head; j++) {
        sum += f32(o[i * of_o.head + j]) * f32(dy_of_o[i * of_o.head + j]);
    }
    delta[(token / of_o.tokens * of_o.heads + i % of_o.heads) * of_o.tokens + token % of_o.tokens] = sum;
}

// One element of dq, dk or dv an invocation.
@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let of_query = PART == 0u;
    let length = select(b.keys, b.tokens, of_query);
    if (i >= b.batch * length * b.heads * b.head) {
        return;
    }
    let c = i % b.head;
    let h = i / b.head % b.heads;
    let row = i / (b.head * b.heads);
    let n = row / length;
    let mine = row % length;
    let sequence = sequence_of(n, b.sequences);
    var first = 0u;
    var end = select(b.tokens, b.keys, of_query);
    if (CAUSAL) {
        first = select(mine, 0u, of_query);
        end = select(end, mine + 1u, of_query);
    }
    if (sequence == b.sequences) {
        end = first;
    }
    let head_at = h * b.head_stride;
    let stats = (n * b.heads + h) * b.tokens;
    var sum = 0.0;
    for (var other = first; other < end; other++) {
        let query = select(other, mine, of_query);
        let key = select(mine, other, of_query);
        let q_at = ((n * b.tokens + query) * b.q_step + head_at) * b.head;
        let slot = (sequence * b.keys + key) * b.kv_step + head_at;
        let k_at = (slot + b.k_at) * b.head;
        let v_at = (slot + b.v_at) * b.head;
        let dy_at = ((n * b.tokens + query) * b.heads + h) * b.head;
        var score = 0.0;
        var product = 0.0;
        for (var j = 0u; j < b.head; j++) {
            score += f32(q[q_at + j]) * f32(kv[k_at + j]);
            product += f32(dy[dy_at + j]) * f32(kv[v_at + j]);
        }
        let weight = exp(score * b.scale - known_lse[stats + query]);
        if (PART == 2u) {
            sum += weight * f32(dy[dy_at + c]);
        } else {
            let slope = b.scale * weight * (product - known_delta[stats + query]);
            if (of_query) {
                sum += slope * f32(kv[k_at + c]);
            } else {
                sum += slope * f32(q[q_at + c]);
            }
        }
    }
    var to = row * b.q_step + head_at;
    if (PART != 0u) {
        to = row * b.kv_step + head_at + select(b.v_at, b.k_at, PART == 1u);
    }
    to = to * b.head + c;
    if (b.accumulate != 0u) {
        sum += f32(dx[to]);
    }
    dx[to] = elem(sum);
}
