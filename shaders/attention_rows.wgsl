#import attention_sequence
#import index
// Attention of four rows against four columns at a time in registers, for software adapters; formulas as in attention.wgsl.
// d must divide by 4. An invocation makes four rows of the output and SPAN quads of them; rows are queries and columns keys
// forward and for dq, the other way round for dk and dv. Rows and columns past the last are read as the last.
// A picture whose sequence is not there gets zeros.

override PART: u32 = 0u; // whose gradient: 0 q, 1 k, 2 v

const SPAN = 8u;         // quads of the output that an invocation holds
const NONE = -1e30;      // below any score

@group(0) @binding(0) var<storage, read> q4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read> kv4: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;              // [N], or unread
@group(0) @binding(3) var<storage, read_write> y4: array<vec4<elem>>;   // [N, T, H·d/4]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;         // [N, H, T]
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(3) var<storage, read> dy4: array<vec4<elem>>;        // [N, T, H·d/4]
@group(0) @binding(4) var<storage, read> known_lse: array<f32>;         // [N, H, T]
@group(0) @binding(5) var<storage, read> known_delta: array<f32>;       // [N, H, T]
@group(0) @binding(6) var<storage, read_write> dx4: array<vec4<elem>>;  // dq as q, dk and dv as kv
@group(0) @binding(7) var<uniform> b: Params;

// Products of four rows with four columns: t[r] += those of row r.
fn add_products(t: ptr<function, mat4x4<f32>>, r: mat4x4<f32>, c: mat4x4<f32>) {
    #unroll r in 0..4
    (*t)[${r}] += vec4<f32>(dot(r[${r}], c[0]), dot(r[${r}], c[1]), dot(r[${r}], c[2]), dot(r[${r}], c[3]));
    #end
}

fn four_of_q(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(vec4<f32>(q4[at.x]), vec4<f32>(q4[at.y]), vec4<f32>(q4[at.z]), vec4<f32>(q4[at.w]));
}

fn four_of_kv(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(vec4<f32>(kv4[at.x]), vec4<f32>(kv4[at.y]), vec4<f32>(kv4[at.z]), vec4<f32>(kv4[at.w]));
}

fn four_of_dy(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(vec4<f32>(dy4[at.x]), vec4<f32>(dy4[at.y]), vec4<f32>(dy4[at.z]), vec4<f32>(dy4[at.w]));
}

// Products of the queries at `queries` with the keys at `keys`: result[query][key].
fn products(queries: vec4<u32>, keys: vec4<u32>, quads: u32) -> mat4x4<f32> {
    var t = mat4x4<f32>();
    for (var j = 0u; j < quads; j++) {
        add_products(&t, four_of_q(queries + j), four_of_kv(keys + j));
    }
    return t;
}

// The same of the rows of dy at `queries` with the values at `keys`.
fn products_of_dy(queries: vec4<u32>, keys: vec4<u32>, quads: u32) -> mat4x4<f32> {
    var t = mat4x4<f32>();
    for (var j = 0u; j < quads; j++) {
        add_products(&t, four_of_dy(queries + j), four_of_kv(keys + j));
    }
    return t;
}

fn highest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// Keys four at a time.
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
    let n = nh / p.heads;
    let sequence = sequence_of(n, p.sequences);
    let there = sequence < p.sequences;
    let last = vec4<u32>(p.tokens - 1u);
    let last_key = vec4<u32>(p.keys - 1u);
    let q_at = ((n * p.tokens + min(t, last)) * p.q_step + h * p.head_stride) * quads;
    var end = select(0u, p.keys, there);
    if (CAUSAL) {
        end = min(end, t.w + 1u);
    }
    var most = vec4<f32>(NONE);
    var total = vec4<f32>();
    #unroll r in 0..4
    var a${r}: array<vec4<f32>, SPAN>;
    #end
    for (var block = 0u; block < end; block += 4u) {
        let s = block + vec4<u32>(0u, 1u, 2u, 3u);
        let slots = (sequence * p.keys + min(s, last_key)) * p.kv_step + h * p.head_stride;
        var w = products(q_at, (slots + p.k_at) * quads, quads) * p.scale;
        let inside = s <= last_key;
        for (var r = 0u; r < 4u; r++) {
            w[r] = select(vec4<f32>(NONE), w[r], inside);
            if (CAUSAL) {
                w[r] = select(vec4<f32>(NONE), w[r], s <= vec4<u32>(t[r]));
            }
        }
        let higher = max(most, vec4<f32>(highest(w[0]), highest(w[1]), highest(w[2]), highest(w[3])));
        let fade = exp(most - higher);
        most = higher;
        for (var r = 0u; r < 4u; r++) {
            w[r] = exp(w[r] - higher[r]);
        }
        total = total * fade + transpose(w) * vec4<f32>(1.0);
        let v_at = (slots + p.v_at) * quads;
        for (var j = 0u; j < SPAN; j++) {
            let v = four_of_kv(v_at + min(span * SPAN + j, quads - 1u));
            #unroll r in 0..4
            a${r}[j] = a${r}[j] * fade[${r}] + w[${r}].x * v[0] + w[${r}].y * v[1] + w[${r}].z * v[2] + w[${r}].w * v[3];
            #end
        }
    }
    total = select(vec4<f32>(1.0), total, there);
    most = select(vec4<f32>(), most, there);
    let y_at = ((n * p.tokens + t) * p.heads + h) * quads + span * SPAN;
    for (var j = 0u; j < SPAN; j++) {
        if (span * SPAN + j < quads) {
            #unroll r in 0..4
            if (t[${r}] <= last.x) {
                y4[y_at[${r}] + j] = vec4<elem>(a${r}[j] / total[${r}]);
            }
            #end
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

// The other tokens four at a time.
@compute @workgroup_size(16)
fn backward_rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 16u, lane);
    let of_query = PART == 0u;
    let quads = b.head / 4u;
    let length = select(b.keys, b.tokens, of_query);
    let row_blocks = (length + 3u) / 4u;
    let spans = (quads + SPAN - 1u) / SPAN;
    if (i >= b.batch * b.heads * spans * row_blocks) {
        return;
    }
    let t = i % row_blocks * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    let span = i / row_blocks % spans;
    let nh = i / (row_blocks * spans);
    let h = nh % b.heads;
    let n = nh / b.heads;
    let sequence = sequence_of(n, b.sequences);
    let others = select(b.tokens, b.keys, of_query);
    let last = vec4<u32>(others - 1u);
    let head_at = h * b.head_stride;
    let my_rows = min(t, vec4<u32>(length - 1u));
    var start = 0u;
    var end = select(0u, others, sequence < b.sequences);
    if (CAUSAL) {
        start = select(t.x, 0u, of_query);
        end = select(end, min(end, t.w + 1u), of_query);
    }
    #unroll r in 0..4
    var a${r}: array<vec4<f32>, SPAN>;
    #end
    for (var block = start; block < end; block += 4u) {
        let s = block + vec4<u32>(0u, 1u, 2u, 3u);
        let columns = min(s, last);
        let queries = select(columns, my_rows, of_query);
        let keys = select(my_rows, columns, of_query);
        let q_at = ((n * b.tokens + queries) * b.q_step + head_at) * quads;
        let slots = (sequence * b.keys + keys) * b.kv_step + head_at;
        let k_at = (slots + b.k_at) * quads;
        let dy_at = ((n * b.tokens + queries) * b.heads + h) * quads;
        // Queries are rows until the last moment.
        var w = products(q_at, k_at, quads) * b.scale;
        var dp = mat4x4<f32>();
        if (PART != 2u) {
            dp = products_of_dy(dy_at, (slots + b.v_at) * quads, quads);
        }
        for (var r = 0u; r < 4u; r++) {
            let stat = nh * b.tokens + queries[r];
            w[r] -= known_lse[stat];
            if (CAUSAL) {
                w[r] = min(w[r], vec4<f32>()); // of keys that are not seen they may be anything
            }
            w[r] = exp(w[r]);
            if (PART != 2u) {
                w[r] *= b.scale * (dp[r] - known_delta[stat]);
            }
            if (CAUSAL) {
                w[r] = select(vec4<f32>(), w[r], keys <= vec4<u32>(queries[r]));
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
                v = four_of_dy(dy_at + quad);
            } else if (PART == 1u) {
                v = four_of_q(q_at + quad);
            } else {
                v = four_of_kv(k_at + quad);
            }
            #unroll r in 0..4
            a${r}[j] += v * w[${r}];
            #end
        }
    }
    let step = select(b.kv_step, b.q_step, of_query);
    let part = array<u32, 3>(0u, b.k_at, b.v_at)[PART];
    let at = ((n * length + t) * step + head_at + part) * quads + span * SPAN;
    for (var j = 0u; j < SPAN; j++) {
        if (span * SPAN + j < quads) {
            #unroll r in 0..4
            if (t[${r}] < length) {
                var g = a${r}[j];
                if (b.accumulate != 0u) {
                    g += vec4<f32>(dx4[at[${r}] + j]);
                }
                dx4[at[${r}] + j] = vec4<elem>(g);
            }
            #end
        }
    }
}
