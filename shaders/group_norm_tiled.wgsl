#import pack
#import norm_affine
#import norm_tile
// Group norm, forward, for GPUs: what group_norm.wgsl computes, in two passes over x.
// statistics: mean and Σ(x - mean)² of every group in blocks of pixels. Differences from the block's first pixel are summed,
//   so a large mean costs no digits; how sums are split depends on P and C, never on N.
// apply: every workgroup puts the blocks' numbers of its groups together, then y = act((x - mean)·gain + bias) with
//   gain = rstd·gamma·(1 + scale), bias = beta·(1 + scale) + shift. The first of an image keeps its coefficients.
// Needs whole packs of channels; see norm_tile.wgsl. At most 256 groups a slab.
//
// In bounds, for the compiler adds no checks here: a workgroup's first pixel is below P, so its count is 1 at the least and
// pixels are tested to be below it or are its last; a lane's pack is of its slab, so channels are below C; groups are below slab_groups;
// rows times packs is at most SIZE, packs at most PACKS; blocks are clamped to those there are.

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;                 // [N, P, C]
@group(0) @binding(1) var<storage, read_write> partial: array<vec2<f32>>;     // [N, G, blocks]: mean, Σ(x - mean)²
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> known: array<vec2<f32>>;             // [N, G, blocks]
@group(0) @binding(2) var<storage, read> gamma4: array<vec4<f32>>;            // [C]
@group(0) @binding(3) var<storage, read> beta4: array<vec4<f32>>;             // [C]
@group(0) @binding(4) var<storage, read> scale_shift: array<vec2<u32>>;       // [N, 2, C] in f32 or f16
@group(0) @binding(5) var<storage, read_write> coefficients4: array<vec4<f32>>; // [N, 4, C]: mean, rstd, gain, bias
@group(0) @binding(6) var<storage, read_write> y_pack: array<pack>;           // [N, P, C]
@group(0) @binding(7) var<uniform> q: Params;

const STRIDE: u32 = SIZE + 1u; // an odd one spreads columns over the banks of the memory
var<workgroup> columns: array<vec2<f32>, LANES * STRIDE>; // [channel of the pack, lane]: Σd, Σd²; then mean, Σ(x - mean)²
var<workgroup> origins: array<f32, LANES * PACKS>;        // [channel of the pack, pack]

@compute @workgroup_size(192)
fn statistics(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = share(wid, lane, p.block, p);
    // Eight loads under way at once, the first of them before the origin is there; past the end it is the first pixel
    // again, whose differences are zero.
    let first = x_pack[s.base];
    #unroll j in 0..8
    let at${j} = s.row + ${j}u * p.rows;
    var x${j} = x_pack[s.base + select(0u, at${j}, at${j} < s.count) * s.stride];
    #end
    #unroll v in 0..${vectors}
    let origin${v} = part${v}(first);
    var sum${v} = vec4<f32>();
    var squares${v} = vec4<f32>();
    #end
    for (var pixel = s.row; pixel < s.count; pixel += 8u * p.rows) {
        #unroll j in 0..8
        #unroll v in 0..${vectors}
        let d${j}_${v} = part${v}(x${j}) - origin${v};
        sum${v} += d${j}_${v};
        squares${v} += d${j}_${v} * d${j}_${v};
        #end
        if (pixel + 8u * p.rows < s.count) {
            let next${j} = pixel + (8u + ${j}u) * p.rows;
            x${j} = x_pack[s.base + select(0u, next${j}, next${j} < s.count) * s.stride];
        }
        #end
    }
    #unroll v in 0..${vectors}
    #unroll k in 0..4
    columns[(4u * ${v}u + ${k}u) * STRIDE + lane] = vec2<f32>(sum${v}[${k}], squares${v}[${k}]);
    if (lane < p.packs) {
        origins[(4u * ${v}u + ${k}u) * PACKS + lane] = origin${v}[${k}];
    }
    #end
    #end
    workgroupBarrier();

    // The rows of a channel together, in the place of its first row.
    let count = f32(s.count);
    for (var c = lane; c < p.packs * LANES; c += SIZE) {
        let column = (c % LANES) * STRIDE + c / LANES;
        var total = vec2<f32>();
        for (var row = 0u; row < p.rows; row++) {
            total += columns[column + row * p.packs];
        }
        let shift = total.x / count;
        columns[column] = vec2<f32>(origins[(c % LANES) * PACKS + c / LANES] + shift, max(total.y - total.x * shift, 0.0));
    }
    workgroupBarrier();

    // The channels of a group together.
    for (var g = lane; g < p.slab_groups; g += SIZE) {
        let c0 = g * p.width;
        let origin = columns[(c0 % LANES) * STRIDE + c0 / LANES].x;
        var sum = 0.0;
        var squares = 0.0;
        for (var c = c0; c < c0 + p.width; c++) {
            let of_channel = columns[(c % LANES) * STRIDE + c / LANES];
            let d = of_channel.x - origin;
            sum += d;
            squares += of_channel.y + count * d * d;
        }
        let shift = sum / f32(p.width);
        let group = wid.z * p.groups + wid.y * p.slab_groups + g;
        partial[group * p.blocks + wid.x] = vec2<f32>(origin + shift, max(squares - count * sum * shift, 0.0));
    }
}

const PARTS: u32 = 4u; // lanes that put a group's blocks together
var<workgroup> parts: array<vec2<f32>, SIZE>;
var<workgroup> of_groups: array<vec2<f32>, 256>; // mean, rstd

// Mean and rstd of the groups of a slab, which begin at `first_group` of all images' groups. Differences from the mean of the
// group's first block are summed.
fn combine(first_group: u32, lane: u32) {
    for (var first = 0u; first < q.slab_groups; first += SIZE / PARTS) {
        let g = first + lane / PARTS;
        let at = (first_group + min(g, q.slab_groups - 1u)) * q.blocks;
        let origin = known[at].x;
        var sums = vec2<f32>(); // Σd, Σ(x - origin)² over the channels of the group
        for (var b = lane % PARTS; b < q.blocks; b += 4u * PARTS) {
            // Four loads under way at once. A block that is not there counts for nothing.
            #unroll j in 0..4
            let b${j} = b + ${j}u * PARTS;
            let block${j} = known[at + min(b${j}, q.blocks - 1u)];
            #end
            #unroll j in 0..4
            if (b${j} < q.blocks) {
                let d${j} = block${j}.x - origin;
                let weighted${j} = f32(min(q.block, q.pixels - b${j} * q.block)) * d${j};
                sums += vec2<f32>(weighted${j}, block${j}.y + f32(q.width) * weighted${j} * d${j});
            }
            #end
        }
        workgroupBarrier();
        parts[lane] = sums;
        workgroupBarrier();
        if (lane % PARTS == 0u && g < q.slab_groups) {
            let total = (parts[lane] + parts[lane + 1u]) + (parts[lane + 2u] + parts[lane + 3u]);
            let shift = total.x / f32(q.pixels);
            let variance = max(total.y / f32(q.pixels * q.width) - shift * shift, 0.0);
            of_groups[g] = vec2<f32>(origin + shift, 1.0 / sqrt(variance + q.eps));
        }
    }
    workgroupBarrier();
}

override AHEAD: u32 = 2u; // pixels of a lane that are under way at once: at most 4

@compute @workgroup_size(192)
fn apply(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Last to first: of what the statistics read last most is still in the cache.
    let wid = ids - 1u - id;
    let n = wid.z;
    let s = share(wid, lane, q.tile, q);
    let quads = q.channels / 4u;
    // What does not need the statistics is under way before they are put together: parameters and the first pixels.
    #unroll v in 0..${vectors}
    let quad${v} = s.channel / 4u + ${v}u;
    var gain${v} = gamma4[quad${v}];
    var bias${v} = beta4[quad${v}];
    if (q.scale_shift != 0u) {
        let scale = 1.0 + modulation4(n * 2u * quads + quad${v}, q.scale_shift);
        gain${v} *= scale;
        bias${v} = bias${v} * scale + modulation4((n * 2u + 1u) * quads + quad${v}, q.scale_shift);
    }
    #end
    #unroll j in 0..4
    var x${j} = pack();
    if (AHEAD > ${j}u && s.row + ${j}u * q.rows < s.count) {
        x${j} = x_pack[s.base + (s.row + ${j}u * q.rows) * s.stride];
    }
    #end

    combine(n * q.groups + wid.y * q.slab_groups, lane);
    var group = s.channel / q.width;
    var left = (group + 1u) * q.width - s.channel; // channels up to the next group
    group -= wid.y * q.slab_groups;
    #unroll v in 0..${vectors}
    var mean${v}: vec4<f32>;
    var rstd${v}: vec4<f32>;
    #unroll k in 0..4
    mean${v}[${k}] = of_groups[group].x;
    rstd${v}[${k}] = of_groups[group].y;
    left -= 1u;
    if (left == 0u) {
        left = q.width;
        group += 1u;
    }
    #end
    gain${v} *= rstd${v};
    if (wid.x == 0u && lane < q.packs) {
        let at = n * 4u * quads + quad${v};
        coefficients4[at] = mean${v};
        coefficients4[at + quads] = rstd${v};
        coefficients4[at + 2u * quads] = gain${v};
        coefficients4[at + 3u * quads] = bias${v};
    }
    #end
    for (var pixel = s.row; pixel < s.count; pixel += AHEAD * q.rows) {
        #unroll j in 0..4
        if (AHEAD > ${j}u) {
            let at${j} = pixel + ${j}u * q.rows;
            let old${j} = x${j};
            let next${j} = at${j} + AHEAD * q.rows;
            if (next${j} < s.count) {
                x${j} = x_pack[s.base + next${j} * s.stride];
            }
            var y${j}: pack;
            #unroll v in 0..${vectors}
            put${v}(&y${j}, activated((part${v}(old${j}) - mean${v}) * gain${v} + bias${v}, q.silu));
            #end
            if (at${j} < s.count) {
                y_pack[s.base + at${j} * s.stride] = y${j};
            }
        }
        #end
    }
}
