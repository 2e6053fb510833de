#import index
#import pack
// Mean squared error.  sample[n] = mean_l (x[n,l] - t[n,l])^2,  loss = weight·Σ_n sample[n].
// blocks: partial[n, b] over 4096 elements of a sample; fold: those of a sample together, where they are many;
// total: sample[n] and loss, by one workgroup.
// The entries that end in _packed are for L of whole packs.
// gradient: dx (+)= sign·dloss·weight·(2/L)·(x - t); sign is -1 for t.
// x, t [N, L] elem; all sums f32, in an order that depends on L alone, and for the loss on N.

const BLOCK: u32 = 4096u;

struct Params {
    samples: u32,
    length: u32,     // L
    blocks: u32,     // ceil(L / 4096)
    accumulate: u32,
    weight: f32,
    factor: f32,     // gradient: sign·weight·2/L
    count: u32,      // gradient: N·L, or packs of them
}

@group(0) @binding(0) var<storage, read> x: array<elem>;             // [N, L]
@group(0) @binding(1) var<storage, read> t: array<elem>;             // [N, L]
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;  // [N, blocks]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> partials: array<f32>;       // [N, blocks]
@group(0) @binding(1) var<storage, read_write> sample: array<f32>;   // [N]
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;     // [1]

@group(0) @binding(1) var<storage, read_write> folded: array<f32>;   // [N, 1]
@group(0) @binding(2) var<uniform> r: Params;

@group(0) @binding(2) var<storage, read> dloss: array<f32>;          // [1]
@group(0) @binding(3) var<storage, read_write> dx: array<elem>;      // [N, L]
@group(0) @binding(4) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;           // [N, L]
@group(0) @binding(1) var<storage, read> t_pack: array<pack>;           // [N, L]
@group(0) @binding(3) var<storage, read_write> dx_pack: array<pack>;    // [N, L]

var<workgroup> sums: array<f32, 64>;

// The sum of all lanes' values, in lane 0.
fn workgroup_sum(lane: u32, value: f32) -> f32 {
    sums[lane] = value;
    for (var width = 32u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            sums[lane] += sums[lane + width];
        }
    }
    return sums[0];
}

@compute @workgroup_size(64)
fn blocks(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = group / p.blocks;
    let first = (group % p.blocks) * BLOCK;
    var sum = 0.0;
    if (n < p.samples) {
        for (var l = first + lane; l < min(first + BLOCK, p.length); l += 64u) {
            let d = f32(x[n * p.length + l]) - f32(t[n * p.length + l]);
            sum += d * d;
        }
    }
    let total = workgroup_sum(lane, sum);
    if (lane == 0u && n < p.samples) {
        partial[group] = total;
    }
}

@compute @workgroup_size(64)
fn blocks_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let n = group / p.blocks;
    let first = (group % p.blocks) * (BLOCK / LANES);
    let length = p.length / LANES;
    var sum = vec4<f32>();
    if (n < p.samples) {
        let end = min(first + BLOCK / LANES, length);
        for (var l = first + lane; l < end; l += 256u) {
            // Eight loads under way at once; what lies past the end is read again and does not count.
            #unroll j in 0..4
            let has${j} = l + ${j}u * 64u < end;
            let at${j} = n * length + select(l, l + ${j}u * 64u, has${j});
            let a${j} = x_pack[at${j}];
            let b${j} = t_pack[at${j}];
            #end
            #unroll j in 0..4
            #unroll v in 0..${vectors}
            let d${j}_${v} = part${v}(a${j}) - part${v}(b${j});
            sum += select(vec4<f32>(), d${j}_${v} * d${j}_${v}, has${j});
            #end
            #end
        }
    }
    let total = workgroup_sum(lane, (sum.x + sum.y) + (sum.z + sum.w));
    if (lane == 0u && n < p.samples) {
        partial[group] = total;
    }
}

@compute @workgroup_size(64)
fn fold(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = linear_group(wid, groups);
    var sum = 0.0;
    if (n < r.samples) {
        for (var b = lane; b < r.blocks; b += 64u) {
            sum += partials[n * r.blocks + b];
        }
    }
    let total = workgroup_sum(lane, sum);
    if (lane == 0u && n < r.samples) {
        folded[n] = total;
    }
}

@compute @workgroup_size(64)
fn total(@builtin(local_invocation_index) lane: u32) {
    var all = 0.0;
    for (var n = lane; n < p.samples; n += 64u) {
        var sum = 0.0;
        for (var b = 0u; b < p.blocks; b++) {
            sum += partials[n * p.blocks + b];
        }
        let mean = sum / f32(p.length);
        sample[n] = mean;
        all += mean;
    }
    let result = workgroup_sum(lane, all);
    if (lane == 0u) {
        loss[0] = p.weight * result;
    }
}

@compute @workgroup_size(64)
fn gradient(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    var v = dloss[0] * q.factor * (f32(x[i]) - f32(t[i]));
    if (q.accumulate != 0u) {
        v += f32(dx[i]);
    }
    dx[i] = elem(v);
}

@compute @workgroup_size(256)
fn gradient_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= q.count) {
        return;
    }
    let factor = dloss[0] * q.factor;
    let a = x_pack[i];
    let b = t_pack[i];
    var before: pack; // zero
    if (q.accumulate != 0u) {
        before = dx_pack[i];
    }
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, factor * (part${v}(a) - part${v}(b)) + part${v}(before));
    #end
    dx_pack[i] = result;
}
