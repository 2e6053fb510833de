// Dynamic thresholds.  rows[n] = (1 + w, -w, max(1, quantile of m[n, :]), 0).
// m [N, L] f32, none negative, so that their bits are ordered as they are (a NaN is the largest).
// The quantile as torch.quantile has it: with v_0 <= v_1 <= .. the sorted values, v_k + (v_{k+1} - v_k)·fraction.
// Law: v_k is found two bits a pass from the top, by counting: exact, and the same in any order.
// threshold: a workgroup a sample; serial: an invocation a sample, for software adapters, whose barriers are slow.

struct Params {
    samples: u32,
    length: u32,   // L
    rank: u32,     // k, below L
    fraction: f32, // 0 where k is L - 1
}

@group(0) @binding(0) var<storage, read> m: array<u32>;             // [N, L], the bits of f32
@group(0) @binding(1) var<storage, read> guidance: array<f32>;      // [1..]: w
@group(0) @binding(2) var<storage, read_write> rows: array<vec4<f32>>; // [N]
@group(0) @binding(3) var<uniform> p: Params;

const LANES: u32 = 256u;
var<workgroup> counts: array<vec3<u32>, LANES>;
var<workgroup> least: array<u32, LANES>;

fn summed(lane: u32, mine: vec3<u32>) -> vec3<u32> {
    workgroupBarrier(); // nobody still reads the sum before
    counts[lane] = mine;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            counts[lane] += counts[lane + width];
        }
    }
    workgroupBarrier();
    return counts[0];
}

fn smallest(lane: u32, mine: u32) -> u32 {
    least[lane] = mine;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            least[lane] = min(least[lane], least[lane + width]);
        }
    }
    workgroupBarrier();
    return least[0];
}

// Whether v has the prefix and goes on with 0, 1 or 2.
fn counted(v: u32, mask: u32, prefix: u32, shift: u32) -> vec3<u32> {
    let digit = select(3u, (v >> shift) & 3u, (v & mask) == prefix);
    return vec3<u32>(vec3<u32>(digit) == vec3<u32>(0u, 1u, 2u));
}

// The next two bits of the value of this rank among those with the prefix; the rank becomes that among those with it too.
fn digit_of(rank: ptr<function, u32>, count: vec3<u32>) -> u32 {
    var digit = 0u;
    for (var d = 0u; d < 3u; d++) {
        if (digit == d && *rank >= count[d]) {
            *rank -= count[d];
            digit = d + 1u;
        }
    }
    return digit;
}

// The row for v_k, its rank among its equals, how many they are, and the least value above it.
fn row_of(value: u32, rank: u32, equal: u32, next: u32) -> vec4<f32> {
    let lower = bitcast<f32>(value);
    var quantile = lower;
    if (rank + 1u >= equal && p.fraction > 0.0) {
        quantile = lower + (bitcast<f32>(next) - lower) * p.fraction;
    }
    return vec4<f32>(1.0 + guidance[0], -guidance[0], max(1.0, quantile), 0.0);
}

@compute @workgroup_size(256)
fn threshold(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = wid.x;
    let first = n * p.length;
    var rank = p.rank;
    var mask = 0u;
    var prefix = 0u;
    for (var pass_ = 0u; pass_ < 16u; pass_++) {
        let shift = 30u - 2u * pass_;
        var mine = vec3<u32>(0u);
        for (var l = lane; l < p.length; l += LANES) {
            mine += counted(m[first + l], mask, prefix, shift);
        }
        let count = summed(lane, mine);
        let digit = digit_of(&rank, count);
        prefix |= digit << shift;
        mask |= 3u << shift;
    }
    // `prefix` is v_k, and `rank` says which of its equals; v_{k+1} is the next of them, or the least above.
    var equals = 0u;
    var above = 0xffffffffu;
    for (var l = lane; l < p.length; l += LANES) {
        let v = m[first + l];
        equals += u32(v == prefix);
        if (v > prefix) {
            above = min(above, v);
        }
    }
    let equal = summed(lane, vec3<u32>(equals, 0u, 0u)).x;
    let next = smallest(lane, above);
    if (lane == 0u) {
        rows[n] = row_of(prefix, rank, equal, next);
    }
}

@compute @workgroup_size(8)
fn serial(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.x * 8u + lane;
    if (n >= p.samples) {
        return;
    }
    let first = n * p.length;
    var rank = p.rank;
    var mask = 0u;
    var prefix = 0u;
    for (var pass_ = 0u; pass_ < 16u; pass_++) {
        let shift = 30u - 2u * pass_;
        var count = vec3<u32>(0u);
        for (var l = 0u; l < p.length; l++) {
            count += counted(m[first + l], mask, prefix, shift);
        }
        prefix |= digit_of(&rank, count) << shift;
        mask |= 3u << shift;
    }
    var equals = 0u;
    var above = 0xffffffffu;
    for (var l = 0u; l < p.length; l++) {
        let v = m[first + l];
        equals += u32(v == prefix);
        above = min(above, select(0xffffffffu, v, v > prefix));
    }
    rows[n] = row_of(prefix, rank, equals, above);
}
