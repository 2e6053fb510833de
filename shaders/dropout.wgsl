#import index
#import pack
#import philox
// Dropout.  y = x·mask/(1 - rate): mask is 0 with probability `rate`. Its own gradient, with x and y the gradients.
// x, y [N, L], L = H·W·C elements in memory order (H, W, C); block b of a sample is its elements 4b .. 4b+3, one word each.
// Law: word j of Philox(key = seed, counter = (b, image index low, high, 5 | layer << 8)) keeps element 4b + j where
//   word >> 8 >= threshold = rate·2^24.
// The entry that ends in _packed is for L of whole packs; its workgroups (x, n) are of sample n and its `count` is of the
// packs of a sample.
// Trusted, dropout_packed: a pack below `count` of sample n below N lies within x and y, which are of one shape.

struct Params {
    count: u32,      // N·blocks, or packs of a sample
    blocks: u32,     // of a sample: ceil(L / 4)
    length: u32,     // L
    threshold: u32,  // rate·2^32: the law's two sides 8 bits further up
    seed_low: u32,
    seed_high: u32,
    stream: u32,
    scale: f32,      // 1/(1 - rate)
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;              // [N, L]
@group(0) @binding(1) var<storage, read> image_index: array<vec2<u32>>; // [N] (low, high)
@group(0) @binding(2) var<storage, read_write> y: array<elem>;        // [N, L]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;         // [N, L]
@group(0) @binding(2) var<storage, read_write> y_pack: array<pack>;   // [N, L]

// The four factors of block b of the sample of an image.
fn factors(b: u32, image: vec2<u32>) -> vec4<f32> {
    let words = philox4x32_10(vec4<u32>(b, image, p.stream), vec2<u32>(p.seed_low, p.seed_high));
    return select(vec4<f32>(0.0), vec4<f32>(p.scale), words >= vec4<u32>(p.threshold));
}

@compute @workgroup_size(64)
fn dropout(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let n = i / p.blocks;
    let block = i % p.blocks;
    let f = factors(block, image_index[n]);
    let first = block * 4u;
    let base = n * p.length + first;
    for (var j = 0u; j < min(4u, p.length - first); j++) {
        var v = f[j] * f32(x[base + j]);
        if (p.accumulate != 0u) {
            v += f32(y[base + j]);
        }
        y[base + j] = elem(v);
    }
}

@compute @workgroup_size(256)
fn dropout_packed(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = wid.x * 256u + lane;
    if (i >= p.count) {
        return;
    }
    let at = wid.y * p.count + i;
    let value = x_pack[at];
    let image = image_index[wid.y];
    var before: pack; // zero
    if (p.accumulate != 0u) {
        before = y_pack[at];
    }
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, factors(i * ${vectors}u + ${v}u, image) * part${v}(value) + part${v}(before));
    #end
    y_pack[at] = result;
}
