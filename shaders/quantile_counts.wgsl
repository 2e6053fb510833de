// Dynamic thresholds by many workgroups: what dynamic_threshold.wgsl computes, the same bits.
// v_k is found in three passes, of 11, 10 and 10 bits from the top. A pass is two dispatches:
//   count: how many of the values that begin as v_k does go on with each digit, a workgroup a block of a sample;
//   choose: the digit of v_k and its rank among those that share it, a workgroup a sample.
// Law: only whole numbers are counted, so no order of the additions, atomic ones in workgroup memory, changes a result.

struct Params {
    samples: u32,
    length: u32,   // L
    blocks: u32,   // ceil(L / 16384)
    shift: u32,    // the lowest bit of this pass's digit
    digits: u32,   // values of the digit: 2048 or 1024
    rank: u32,     // k, below L
    fraction: f32, // 0 where k is L - 1
    first: u32,    // whether this is the first pass
    last: u32,     // whether it is the last one
}

@group(0) @binding(0) var<storage, read> m: array<u32>;                   // [N, L], the bits of f32
@group(0) @binding(1) var<storage, read> state: array<vec4<u32>>;         // [N]: the bits of v_k known, its rank there
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;        // [N, blocks, 2048]
@group(0) @binding(3) var<storage, read_write> above: array<u32>;         // [N, blocks]: the least value beyond
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> counted: array<u32>;             // [N, blocks, 2048]
@group(0) @binding(2) var<storage, read> beyond: array<u32>;              // [N, blocks]
@group(0) @binding(3) var<storage, read> guidance: array<f32>;            // [1..]: w
@group(0) @binding(4) var<storage, read_write> chosen: array<vec4<u32>>;  // [N]: the next state; at last the row, f32
@group(0) @binding(5) var<uniform> q: Params;

const BLOCK: u32 = 16384u;
const LANES: u32 = 256u;
const MOST: u32 = 2048u;
const EACH: u32 = MOST / LANES; // the eight that are written out below
const NONE: u32 = 0xffffffffu;

var<workgroup> bins: array<atomic<u32>, MOST>;
var<workgroup> least: atomic<u32>;

@compute @workgroup_size(256)
fn count(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    #unroll d in 0..8
    atomicStore(&bins[lane + ${d}u * LANES], 0u);
    #end
    if (lane == 0u) {
        atomicStore(&least, NONE);
    }
    workgroupBarrier();
    var prefix = 0u;
    var mask = 0u;
    if (p.first == 0u) {
        prefix = state[n].x;
        mask = ~(p.digits * (1u << p.shift) - 1u);
    }
    let first = n * p.length + wid.x * BLOCK;
    let end = n * p.length + min(p.length, (wid.x + 1u) * BLOCK);
    var larger = NONE;
    // Four loads under way at once. What lies past the end has all bits set: no value and no digit of one.
    for (var l = first + lane; l < end; l += 4u * LANES) {
        var v = vec4<u32>(NONE);
        #unroll j in 0..4
        if (l + ${j}u * LANES < end) {
            v[${j}] = m[l + ${j}u * LANES];
        }
        #end
        #unroll j in 0..4
        if (v[${j}] != NONE && (v[${j}] & mask) == prefix) {
            atomicAdd(&bins[(v[${j}] >> p.shift) & (p.digits - 1u)], 1u);
        } else if (v[${j}] > prefix) {
            larger = min(larger, v[${j}]);
        }
        #end
    }
    if (larger != NONE && p.last != 0u) {
        atomicMin(&least, larger);
    }
    workgroupBarrier();
    let block = n * p.blocks + wid.x;
    #unroll d in 0..8
    counts[block * MOST + lane + ${d}u * LANES] = atomicLoad(&bins[lane + ${d}u * LANES]);
    #end
    if (lane == 0u) {
        above[block] = atomicLoad(&least);
    }
}

var<workgroup> totals: array<u32, MOST>;
var<workgroup> sums: array<u32, LANES>;
var<workgroup> found: vec3<u32>; // the digit, the rank among its values, how many they are

@compute @workgroup_size(256)
fn choose(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.x;
    // What all the blocks counted, and the sum of EACH digits a lane.
    #unroll d in 0..8
    var total${d} = 0u;
    #end
    for (var b = 0u; b < q.blocks; b++) {
        let row = (n * q.blocks + b) * MOST + lane;
        #unroll d in 0..8
        total${d} += counted[row + ${d}u * LANES];
        #end
    }
    #unroll d in 0..8
    totals[lane + ${d}u * LANES] = total${d};
    #end
    if (lane == 0u) {
        atomicStore(&least, NONE);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var j = 0u; j < EACH; j++) {
        mine += totals[lane * EACH + j];
    }
    sums[lane] = mine;
    // Sums of all lanes up to each one.
    for (var width = 1u; width < LANES; width *= 2u) {
        workgroupBarrier();
        var left = 0u;
        if (lane >= width) {
            left = sums[lane - width];
        }
        workgroupBarrier();
        sums[lane] += left;
    }
    var prefix = 0u;
    var rank = q.rank;
    if (q.first == 0u) {
        prefix = state[n].x;
        rank = state[n].y;
    }
    var before = sums[lane] - mine;
    if (rank >= before && rank < before + mine) {
        for (var j = 0u; j < EACH; j++) {
            let total = totals[lane * EACH + j];
            if (rank >= before && rank < before + total) {
                found = vec3<u32>(lane * EACH + j, rank - before, total);
            }
            before += total;
        }
    }
    workgroupBarrier();
    let value = prefix | (found.x << q.shift);
    if (q.last == 0u) {
        if (lane == 0u) {
            chosen[n] = vec4<u32>(value, found.y, 0u, 0u);
        }
        return;
    }
    // The least value above v_k: the next digit that occurs, else the least of those that begin otherwise.
    for (var j = 0u; j < EACH; j++) {
        let digit = lane * EACH + j;
        if (digit > found.x && totals[digit] > 0u) {
            atomicMin(&least, prefix | digit);
        }
    }
    for (var b = lane; b < q.blocks; b += LANES) {
        atomicMin(&least, beyond[n * q.blocks + b]);
    }
    workgroupBarrier();
    if (lane == 0u) {
        let lower = bitcast<f32>(value);
        var quantile = lower;
        if (found.y + 1u >= found.z && q.fraction > 0.0) {
            quantile = lower + (bitcast<f32>(atomicLoad(&least)) - lower) * q.fraction;
        }
        chosen[n] = bitcast<vec4<u32>>(vec4<f32>(1.0 + guidance[0], -guidance[0], max(1.0, quantile), 0.0));
    }
}
