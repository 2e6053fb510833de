// Dynamic thresholds.  rows[n] = (1 + w, -w, max(1, quantile of m[n, :]), 0).
// m [N, L] f32, none negative, so that their bits are ordered as they are (a NaN is the largest).
// The quantile as torch.quantile has it: with v_0 <= v_1 <= .. the sorted values, v_k + (v_{k+1} - v_k)·fraction.
// Law: v_k is found two bits a pass from the top, by counting: exact, and the same in any order.
// An invocation a sample: for software adapters, whose barriers are slow. Its twin for GPUs is quantile_counts.wgsl.

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
