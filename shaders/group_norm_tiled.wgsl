#import pack
#import silu_curve
#import norm_tile
// Group norm, forward, for GPUs: what group_norm.wgsl computes, in two passes over x.
// statistics: mean and Σ(x - mean)² of every group in blocks of pixels. Differences from the block's first pixel are summed,
//   so a large mean costs no digits; how sums are split depends on P and C, never on N.
// apply: every workgroup puts the blocks' numbers of its groups together, then y = act((x - mean)·gain + bias) with
//   gain = rstd·gamma·(1 + scale), bias = beta·(1 + scale) + shift. The first of an image keeps its coefficients.
// Needs whole packs of channels; see norm_tile.wgsl. At most 256 groups a slab.

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
    let s = share(wid, lane, p.block, p.blocks, p);
    let first = x_pack[s.base];
    #unroll v in 0..${vectors}
    let origin${v} = part${v}(first);
    var sum${v} = vec4<f32>();
    var squares${v} = vec4<f32>();
    #end
    for (var pixel = s.row; pixel < s.count; pixel += 4u * s.rows) {
        // Four loads under way at once; past the end it is the first pixel again, whose differences are zero.
        #unroll j in 0..4
        let at${j} = pixel + ${j}u * s.rows;
        let x${j} = x_pack[s.base + select(0u, at${j}, at${j} < s.count) * s.stride];
        #end
        #unroll j in 0..4
        #unroll v in 0..${vectors}
        let d${j}_${v} = part${v}(x${j}) - origin${v};
        sum${v} += d${j}_${v};
        squares${v} += d${j}_${v} * d${j}_${v};
        #end
        #end
    }
    #unroll v in 0..${vectors}
    #unroll k in 0..4
    columns[(4u * ${v}u + ${k}u) * STRIDE + lane] = vec2<f32>(sum${v}[${k}], squares${v}[${k}]);
    if (lane < s.packs) {
        origins[(4u * ${v}u + ${k}u) * PACKS + lane] = origin${v}[${k}];
    }
    #end
    #end
    workgroupBarrier();

    // The rows of a channel together, in the place of its first row.
    let count = f32(s.count);
    for (var c = lane; c < s.packs * LANES; c += SIZE) {
        let column = (c % LANES) * STRIDE + c / LANES;
        var total = vec2<f32>();
        for (var row = 0u; row < s.rows; row++) {
            total += columns[column + row * s.packs];
        }
        let shift = total.x / count;
        columns[column] = vec2<f32>(origins[(c % LANES) * PACKS + c / LANES] + shift, max(total.y - total.x * shift, 0.0));
    }
    workgroupBarrier();

    // The channels of a group together.
    let width = p.channels / p.groups;
    let groups = p.groups / p.slabs;
    for (var g = lane; g < groups; g += SIZE) {
        let c0 = g * width;
        let origin = columns[(c0 % LANES) * STRIDE + c0 / LANES].x;
        var sum = 0.0;
        for (var c = c0; c < c0 + width; c++) {
            sum += columns[(c % LANES) * STRIDE + c / LANES].x - origin;
        }
        let mean = origin + sum / f32(width);
        var squares = 0.0;
        for (var c = c0; c < c0 + width; c++) {
            let of_channel = columns[(c % LANES) * STRIDE + c / LANES];
            let d = of_channel.x - mean;
            squares += of_channel.y + count * d * d;
        }
        partial[(wid.y * p.groups + s.slab * groups + g) * p.blocks + s.block] = vec2<f32>(mean, squares);
    }
}

const PARTS: u32 = 4u; // lanes that put a group's blocks together
var<workgroup> parts: array<f32, SIZE>;
var<workgroup> of_groups: array<vec2<f32>, 256>; // mean, rstd

// The sum over the lanes of a group.
fn over_parts(lane: u32, value: f32) -> f32 {
    workgroupBarrier();
    parts[lane] = value;
    workgroupBarrier();
    let first = lane / PARTS * PARTS;
    return (parts[first] + parts[first + 1u]) + (parts[first + 2u] + parts[first + 3u]);
}

// Mean and rstd of the groups `first_group` .. + `groups` of image n.
fn combine(n: u32, first_group: u32, groups: u32, lane: u32) {
    let width = f32(q.channels / q.groups);
    for (var first = 0u; first < groups; first += SIZE / PARTS) {
        let g = first + lane / PARTS;
        let at = (n * q.groups + first_group + min(g, groups - 1u)) * q.blocks;
        let origin = known[at].x;
        var sum = 0.0;
        for (var b = lane % PARTS; b < q.blocks; b += PARTS) {
            sum += f32(min(q.block, q.pixels - b * q.block)) * (known[at + b].x - origin);
        }
        let mean = origin + over_parts(lane, sum) / f32(q.pixels);
        var squares = 0.0;
        for (var b = lane % PARTS; b < q.blocks; b += PARTS) {
            let d = known[at + b].x - mean;
            squares += known[at + b].y + f32(min(q.block, q.pixels - b * q.block)) * width * d * d;
        }
        let rstd = 1.0 / sqrt(over_parts(lane, squares) / (f32(q.pixels) * width) + q.eps);
        if (lane % PARTS == 0u && g < groups) {
            of_groups[g] = vec2<f32>(mean, rstd);
        }
    }
    workgroupBarrier();
}

// Four of scale and shift, from vector i on.
fn modulation4(i: u32) -> vec4<f32> {
    if (q.scale_shift == 2u) {
        return vec4<f32>(unpack2x16float(scale_shift[i].x), unpack2x16float(scale_shift[i].y));
    }
    return bitcast<vec4<f32>>(vec4<u32>(scale_shift[2u * i], scale_shift[2u * i + 1u]));
}

fn activated(u: vec4<f32>) -> vec4<f32> {
    if (q.silu != 0u) {
        return silu4(u);
    }
    return u;
}

@compute @workgroup_size(192)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let s = share(wid, lane, q.tile, q.tiles, q);
    let groups = q.groups / q.slabs;
    combine(n, s.slab * groups, groups, lane);

    let width = q.channels / q.groups;
    let quads = q.channels / 4u;
    #unroll v in 0..${vectors}
    let quad${v} = s.channel / 4u + ${v}u;
    var mean${v}: vec4<f32>;
    var rstd${v}: vec4<f32>;
    #unroll k in 0..4
    let group${v}_${k} = (quad${v} * 4u + ${k}u) / width - s.slab * groups;
    mean${v}[${k}] = of_groups[group${v}_${k}].x;
    rstd${v}[${k}] = of_groups[group${v}_${k}].y;
    #end
    var gain${v} = rstd${v} * gamma4[quad${v}];
    var bias${v} = beta4[quad${v}];
    if (q.scale_shift != 0u) {
        let scale = 1.0 + modulation4(n * 2u * quads + quad${v});
        gain${v} *= scale;
        bias${v} = bias${v} * scale + modulation4((n * 2u + 1u) * quads + quad${v});
    }
    if (s.block == 0u && lane < s.packs) {
        let at = n * 4u * quads + quad${v};
        coefficients4[at] = mean${v};
        coefficients4[at + quads] = rstd${v};
        coefficients4[at + 2u * quads] = gain${v};
        coefficients4[at + 3u * quads] = bias${v};
    }
    #end
    for (var pixel = s.row; pixel < s.count; pixel += 2u * s.rows) {
        let here = s.base + pixel * s.stride;
        let has_next = pixel + s.rows < s.count;
        let next = select(here, here + s.rows * s.stride, has_next);
        let a = x_pack[here];
        let b = x_pack[next];
        var result: pack;
        #unroll v in 0..${vectors}
        put${v}(&result, activated((part${v}(a) - mean${v}) * gain${v} + bias${v}));
        #end
        y_pack[here] = result;
        if (has_next) {
            #unroll v in 0..${vectors}
            put${v}(&result, activated((part${v}(b) - mean${v}) * gain${v} + bias${v}));
            #end
            y_pack[next] = result;
        }
    }
}
