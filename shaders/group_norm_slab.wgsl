#import pack
#import norm_affine
#import norm_slab
// Group norm, forward, for GPUs: what group_norm.wgsl computes, in one workgroup an image's slab of channels. It reads its
// slab twice, the second time from the caches: nothing waits for another workgroup, and a small tensor is one dispatch.
// Differences from a group's first number are summed, so a large mean costs no digits. How sums are split depends on P and
// C, never on N. Needs whole packs of channels, each of at most two groups; see norm_slab.wgsl.
//
// In bounds, for the compiler adds no checks here: a lane's pack is of its slab, its pixel below P, so x_pack and y_pack are
// read and written inside of the image, gamma4, beta4, scale_shift and coefficients4 at its channels; a group is below
// slab_groups, which is at most GROUPS. norm_slab.wgsl says the same of `of_lanes`.

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;                   // [N, P, C]
@group(0) @binding(1) var<storage, read> gamma4: array<vec4<f32>>;              // [C]
@group(0) @binding(2) var<storage, read> beta4: array<vec4<f32>>;               // [C]
@group(0) @binding(3) var<storage, read> scale_shift: array<vec2<u32>>;         // [N, 2, C] in f32 or f16
@group(0) @binding(4) var<storage, read_write> coefficients4: array<vec4<f32>>; // [N, 4, C]: mean, rstd, gain, bias
@group(0) @binding(5) var<storage, read_write> y_pack: array<pack>;             // [N, P, C]
@group(0) @binding(6) var<uniform> p: Params;

var<workgroup> origins: array<f32, GROUPS>;        // a number of every group
var<workgroup> of_groups: array<vec2<f32>, GROUPS>; // mean, rstd

@compute @workgroup_size(SIZE)
fn slab(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = wid.y;
    let s = share(wid, lane, p);
    let quads = p.channels / 4u;
    let pixels = p.pixels;

    // The first pixel's numbers are the origins that sums are taken from: those of a group's first channel.
    if (lane < p.packs) {
        let first = x_pack[s.base];
        #unroll v in 0..${vectors}
        let part_of${v} = part${v}(first);
        #unroll k in 0..4
        let at${v}_${k} = s.first + 4u * ${v}u + ${k}u;
        if (at${v}_${k} % p.width == 0u) {
            origins[at${v}_${k} / p.width] = part_of${v}[${k}];
        }
        #end
        #end
    }
    workgroupBarrier();
    let low = s.first / p.width;
    let high = min(low + 1u, p.slab_groups - 1u);
    let left = (low + 1u) * p.width - s.first; // channels of the pack that are of the lower group
    #unroll v in 0..${vectors}
    let is_low${v} = 4u * ${v}u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left);
    let origin${v} = select(vec4<f32>(origins[high]), vec4<f32>(origins[low]), is_low${v});
    var sum${v} = vec4<f32>();
    var squares${v} = vec4<f32>();
    #end
    var pixel = s.row;
    for (; pixel + 3u * p.rows < pixels; pixel += 4u * p.rows) {
        // Four loads under way at once.
        #unroll j in 0..4
        let x${j} = x_pack[s.base + (pixel + ${j}u * p.rows) * s.stride];
        #end
        #unroll j in 0..4
        #unroll v in 0..${vectors}
        let d${j}_${v} = part${v}(x${j}) - origin${v};
        sum${v} += d${j}_${v};
        squares${v} += d${j}_${v} * d${j}_${v};
        #end
        #end
    }
    for (; pixel < pixels; pixel += p.rows) {
        let x = x_pack[s.base + pixel * s.stride];
        #unroll v in 0..${vectors}
        let d${v} = part${v}(x) - origin${v};
        sum${v} += d${v};
        squares${v} += d${v} * d${v};
        #end
    }
    var sums = vec4<f32>();
    #unroll v in 0..${vectors}
    let low${v} = select(vec4<f32>(), vec4<f32>(1.0), is_low${v});
    sums += vec4<f32>(dot(sum${v}, low${v}), dot(squares${v}, low${v}), dot(sum${v}, 1.0 - low${v}), dot(squares${v}, 1.0 - low${v}));
    #end
    let total = sums_of_group(lane, sums, p);
    if (lane < p.slab_groups) {
        let count = f32(pixels * p.width);
        let shift = total.x / count;
        let variance = max(total.y - total.x * shift, 0.0) / count;
        of_groups[lane] = vec2<f32>(origins[lane] + shift, 1.0 / sqrt(variance + p.eps));
    }
    workgroupBarrier();

    #unroll v in 0..${vectors}
    let quad${v} = (s.slab_channel + s.first) / 4u + ${v}u;
    let mean${v} = select(vec4<f32>(of_groups[high].x), vec4<f32>(of_groups[low].x), is_low${v});
    let rstd${v} = select(vec4<f32>(of_groups[high].y), vec4<f32>(of_groups[low].y), is_low${v});
    var gain${v} = gamma4[quad${v}];
    var bias${v} = beta4[quad${v}];
    if (p.scale_shift != 0u) {
        let scale = 1.0 + modulation4(n * 2u * quads + quad${v}, p.scale_shift);
        gain${v} *= scale;
        bias${v} = bias${v} * scale + modulation4((n * 2u + 1u) * quads + quad${v}, p.scale_shift);
    }
    gain${v} *= rstd${v};
    if (lane < p.packs) {
        let at = n * 4u * quads + quad${v};
        coefficients4[at] = mean${v};
        coefficients4[at + quads] = rstd${v};
        coefficients4[at + 2u * quads] = gain${v};
        coefficients4[at + 3u * quads] = bias${v};
    }
    #end
    for (pixel = s.row; pixel < pixels; pixel += 2u * p.rows) {
        let second = pixel + p.rows;
        var a = x_pack[s.base + pixel * s.stride];
        var b = x_pack[s.base + min(second, pixels - 1u) * s.stride];
        #unroll v in 0..${vectors}
        put${v}(&a, activated((part${v}(a) - mean${v}) * gain${v} + bias${v}, p.silu));
        put${v}(&b, activated((part${v}(b) - mean${v}) * gain${v} + bias${v}, p.silu));
        #end
        y_pack[s.base + pixel * s.stride] = a;
        if (second < pixels) {
            y_pack[s.base + second * s.stride] = b;
        }
    }
}
