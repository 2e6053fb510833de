#import attention_coop_parts
#import index
// What the backward pass on cooperative matrices has to know of every query:
//   lse[t]·log2 e - log2 range, so that exp2 of a score less this is a weight times the range, and delta[t] = dy[t]·y[t]
// stats [N, H, 2, tokens rounded up to 16]; queries that are not there get what makes their weights zero.
// A workgroup takes 16 queries, four invocations each.

@group(0) @binding(0) var<storage, read> y: array<vec4<u32>>;          // [N, T, H·d/8] f16
@group(0) @binding(1) var<storage, read> dy: array<vec4<u32>>;         // [N, T, H·d/8] f16
@group(0) @binding(2) var<storage, read> lse: array<f32>;              // [N, H, T]
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;      // [N, H, 2, T rounded up]
@group(0) @binding(4) var<uniform> p: Params;

const NO_WEIGHT = 1e30;

var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn row_stats(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (p.tokens + 15u) / 16u;
    let group = linear_group(wid, groups);
    let nh = group / blocks;
    if (nh >= p.batch * p.heads) {
        return;
    }
    let eights = p.head / 8u;
    let mine = group % blocks * 16u + lane / 4u;
    let token = nh / p.heads * p.tokens + min(mine, p.tokens - 1u);
    let at = (token * p.heads + nh % p.heads) * eights;
    var sum = 0.0;
    for (var i = lane % 4u; i < eights; i += 4u) {
        let a = y[at + i];
        let b = dy[at + i];
        sum += dot(unpack2x16float(a.x), unpack2x16float(b.x));
        sum += dot(unpack2x16float(a.y), unpack2x16float(b.y));
        sum += dot(unpack2x16float(a.z), unpack2x16float(b.z));
        sum += dot(unpack2x16float(a.w), unpack2x16float(b.w));
    }
    parts[lane] = sum;
    workgroupBarrier();
    if (lane < 16u) {
        let query = group % blocks * 16u + lane;
        let to = nh * 32u * blocks + query;
        let first = lane * 4u;
        let delta = parts[first] + parts[first + 1u] + parts[first + 2u] + parts[first + 3u];
        let there = query < p.tokens;
        let known = lse[nh * p.tokens + min(query, p.tokens - 1u)];
        stats[to] = select(NO_WEIGHT, known * LOG2_E - log2(weight_range(p.tokens)), there);
        stats[to + 16u * blocks] = select(0.0, delta, there);
    }
}
