#import pack
#import silu_curve
#import norm_tile
// Group norm, backward, for GPUs: the formulas of group_norm_backward.wgsl, in two passes over x and dy.
// tile_sums: A and D of every channel in blocks of pixels.  totals: those of an image, and K1 and K2 of its groups.
// input_gradient: dx.  affine_gradient: dgamma or dbeta.
// Needs whole packs of channels; see norm_tile.wgsl.

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;                // [N, P, C]
@group(0) @binding(1) var<storage, read> dy_pack: array<pack>;               // [N, P, C]
@group(0) @binding(2) var<storage, read> coefficients4: array<vec4<f32>>;    // [N, 4, C]: mean, rstd, gain, bias
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;          // [N, blocks, 2, C]: A, D of a block
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> of_blocks: array<f32>;              // [N, blocks, 2, C]
@group(0) @binding(1) var<storage, read> known: array<f32>;                  // coefficients [N, 4, C]
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;             // [N, 2, C]: A, D
@group(0) @binding(3) var<storage, read_write> totals: array<vec2<f32>>;     // [N, G]: K1, K2

@group(0) @binding(3) var<storage, read> of_groups: array<vec2<f32>>;        // [N, G]
@group(0) @binding(4) var<storage, read_write> dx_pack: array<pack>;         // [N, P, C]
@group(0) @binding(5) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> of_images: array<f32>;              // [N, 2, C]: A, D
@group(0) @binding(2) var<storage, read> scale_shift: array<u32>;            // [N, 2, C] in f32 or f16
@group(0) @binding(3) var<storage, read_write> affine: array<f32>;           // [C]: dgamma or dbeta

const STRIDE: u32 = SIZE + 1u; // an odd one spreads columns over the banks of the memory
var<workgroup> columns: array<vec2<f32>, LANES * STRIDE>; // [channel of the pack, lane]: A, D

// du, the gradient before the activation, where d = x - mean.
fn before_activation(dy: vec4<f32>, d: vec4<f32>, gain: vec4<f32>, bias: vec4<f32>, silu: u32) -> vec4<f32> {
    if (silu != 0u) {
        return dy * silu_slope4(d * gain + bias);
    }
    return dy;
}

@compute @workgroup_size(192)
fn tile_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = share(wid, lane, p.block, p);
    let quads = p.channels / 4u;
    #unroll v in 0..${vectors}
    let quad${v} = wid.z * 4u * quads + s.channel / 4u + ${v}u;
    let mean${v} = coefficients4[quad${v}];
    let gain${v} = coefficients4[quad${v} + 2u * quads];
    let bias${v} = coefficients4[quad${v} + 3u * quads];
    var a${v} = vec4<f32>();
    var d${v} = vec4<f32>();
    #end
    for (var pixel = s.row; pixel < s.count; pixel += 2u * p.rows) {
        #unroll j in 0..2
        let has${j} = pixel + ${j}u * p.rows < s.count;
        let at${j} = s.base + select(pixel, pixel + ${j}u * p.rows, has${j}) * s.stride;
        let x${j} = x_pack[at${j}];
        let dy${j} = dy_pack[at${j}];
        #end
        #unroll j in 0..2
        #unroll v in 0..${vectors}
        let d${j}_${v} = part${v}(x${j}) - mean${v};
        let du${j}_${v} = before_activation(part${v}(dy${j}), d${j}_${v}, gain${v}, bias${v}, p.silu);
        a${v} += select(vec4<f32>(), du${j}_${v}, has${j});
        d${v} += select(vec4<f32>(), du${j}_${v} * d${j}_${v}, has${j});
        #end
        #end
    }
    #unroll v in 0..${vectors}
    #unroll k in 0..4
    columns[(4u * ${v}u + ${k}u) * STRIDE + lane] = vec2<f32>(a${v}[${k}], d${v}[${k}]);
    #end
    #end
    workgroupBarrier();
    let first = (wid.z * p.blocks + wid.x) * 2u * p.channels + wid.y * p.packs * LANES;
    for (var c = lane; c < p.packs * LANES; c += SIZE) {
        let column = (c % LANES) * STRIDE + c / LANES;
        var total = vec2<f32>();
        for (var row = 0u; row < p.rows; row++) {
            total += columns[column + row * p.packs];
        }
        partial[first + c] = total.x;
        partial[first + p.channels + c] = total.y;
    }
}

const CHANNELS: u32 = 16u; // side by side
const PARTS: u32 = 8u;     // of the blocks of each
var<workgroup> shared_: array<vec2<f32>, 256>;

// A workgroup an image and group.
@compute @workgroup_size(128)
fn totals_of_group(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let width = p.width;
    let c0 = wid.x * width;
    var of_group = vec2<f32>();
    for (var first = 0u; first < width; first += CHANNELS) {
        let c = c0 + min(first + lane % CHANNELS, width - 1u);
        var sum = vec2<f32>();
        for (var b = lane / CHANNELS; b < p.blocks; b += PARTS) {
            let at = (n * p.blocks + b) * 2u * p.channels + c;
            sum += vec2<f32>(of_blocks[at], of_blocks[at + p.channels]);
        }
        workgroupBarrier(); // nobody still reads those before
        shared_[lane] = sum;
        workgroupBarrier();
        if (lane < CHANNELS && first + lane < width) {
            for (var i = 1u; i < PARTS; i++) {
                sum += shared_[lane + i * CHANNELS];
            }
            sums[n * 2u * p.channels + c] = sum.x;
            sums[(n * 2u + 1u) * p.channels + c] = sum.y;
            of_group += known[(n * 4u + 2u) * p.channels + c] * sum;
        }
    }
    workgroupBarrier();
    shared_[lane] = of_group;
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < CHANNELS; i++) {
            of_group += shared_[i];
        }
        let rstd = known[(n * 4u + 1u) * p.channels + c0];
        let mean = of_group / f32(p.pixels * width);
        totals[n * p.groups + wid.x] = vec2<f32>(mean.x, rstd * rstd * mean.y);
    }
}

@compute @workgroup_size(192)
fn input_gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let s = share(wid, lane, q.tile, q);
    let quads = q.channels / 4u;
    var group = s.channel / q.width;
    var left = (group + 1u) * q.width - s.channel; // channels up to the next group
    #unroll v in 0..${vectors}
    let quad${v} = wid.z * 4u * quads + s.channel / 4u + ${v}u;
    let mean${v} = coefficients4[quad${v}];
    let gain${v} = coefficients4[quad${v} + 2u * quads];
    let bias${v} = coefficients4[quad${v} + 3u * quads];
    var k1_${v}: vec4<f32>;
    var k2_${v}: vec4<f32>;
    #unroll k in 0..4
    let pair${v}_${k} = of_groups[wid.z * q.groups + group];
    k1_${v}[${k}] = pair${v}_${k}.x;
    k2_${v}[${k}] = pair${v}_${k}.y;
    left -= 1u;
    if (left == 0u) {
        left = q.width;
        group = min(group + 1u, q.groups - 1u);
    }
    #end
    #end
    for (var pixel = s.row; pixel < s.count; pixel += 2u * q.rows) {
        #unroll j in 0..2
        let has${j} = pixel + ${j}u * q.rows < s.count;
        let at${j} = s.base + select(pixel, pixel + ${j}u * q.rows, has${j}) * s.stride;
        let x${j} = x_pack[at${j}];
        let dy${j} = dy_pack[at${j}];
        var before${j}: pack; // zero
        if (q.accumulate != 0u) {
            before${j} = dx_pack[at${j}];
        }
        #end
        #unroll j in 0..2
        if (has${j}) {
            var result: pack;
            #unroll v in 0..${vectors}
            let d${v} = part${v}(x${j}) - mean${v};
            let du${v} = before_activation(part${v}(dy${j}), d${v}, gain${v}, bias${v}, q.silu);
            put${v}(&result, du${v} * gain${v} - k1_${v} - d${v} * k2_${v} + part${v}(before${j}));
            #end
            dx_pack[at${j}] = result;
        }
        #end
    }
}

// What image n adds to dgamma or dbeta of channel c.
fn affine_term(n: u32, c: u32) -> f32 {
    let at = n * 2u * p.channels + c;
    let of_beta = of_images[at];
    let of_gamma = of_images[at + p.channels] * known[(n * 4u + 1u) * p.channels + c];
    let term = select(of_gamma, of_beta, p.of_beta != 0u);
    if (p.scale_shift == 1u) {
        return term * (1.0 + bitcast<f32>(scale_shift[at]));
    }
    if (p.scale_shift == 2u) {
        return term * (1.0 + unpack2x16float(scale_shift[at / 2u])[at % 2u]);
    }
    return term;
}

// dgamma or dbeta of sixteen channels; sixteen lanes share the images of a channel, and ask for two at once.
@compute @workgroup_size(256)
fn affine_gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = wid.x * 16u + lane % 16u;
    let c = min(channel, p.channels - 1u);
    var sum = 0.0;
    var n = lane / 16u;
    for (; n + 16u < p.batch; n += 32u) {
        let first = affine_term(n, c);
        let second = affine_term(n + 16u, c);
        sum += first;
        sum += second;
    }
    if (n < p.batch) {
        sum += affine_term(n, c);
    }
    shared_[lane].x = sum;
    workgroupBarrier();
    if (lane < 16u && channel < p.channels) {
        for (var i = 1u; i < 16u; i++) {
            sum += shared_[lane + i * 16u].x;
        }
        if (p.accumulate != 0u) {
            sum += affine[c];
        }
        affine[c] = sum;
    }
}
