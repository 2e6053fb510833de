#import index
#import philox
#import normal
#import chw
// Noise.  initial: y = eps(own seed).   noised: x = u8/127.5 - 1,  z = alpha x + sigma eps.
// Images [N, H, W, C]; an invocation makes four elements in C, H, W order from one Philox block (see chw.wgsl):
//   initial: key = seeds[n], counter = (block, index, 0, stream); noised: key = the run's seed, counter = (block, image
//   index low, high, stream). eps has the same bits on every adapter.
// initial_fours: the same for H·W divisible by 4, workgroups (x, n): its `count` is of the blocks of a sample. Trusted: a block
//   below `count` of a sample below N lies within y, rows of the table are below 512.
// Always f32. N·H·W·C below 2^32.

struct Params {
    count: u32,      // N·blocks
    blocks: u32,     // of a sample: ceil(H·W·C / 4)
    length: u32,     // H·W·C
    channels: u32,
    pixels: u32,     // H·W
    index: u32,      // initial only
    stream: u32,
    seed_low: u32,   // noised only
    seed_high: u32,
}

@group(0) @binding(0) var<storage, read> table: array<vec2<u32>, 512>;
@group(0) @binding(1) var<storage, read> seeds: array<vec2<u32>>;   // [N] (low, high)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // [N, H, W, C]
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> images: array<u32>;          // bytes [N, H, W, C], four a word
@group(0) @binding(2) var<storage, read> scalars: array<vec4<f32>>;   // [N] (alpha, sigma, log_snr, time)
@group(0) @binding(3) var<storage, read> image_index: array<vec2<u32>>; // [N] (low, high)
@group(0) @binding(4) var<storage, read_write> z: array<f32>;         // [N, H, W, C]
@group(0) @binding(5) var<storage, read_write> eps: array<f32>;       // [N, H, W, C]
@group(0) @binding(6) var<uniform> q: Params;

@compute @workgroup_size(64)
fn initial(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let n = i / p.blocks;
    let block = chw_block(i % p.blocks, p.channels, p.pixels);
    let words = philox4x32_10(vec4<u32>(block, p.index, 0u, p.stream), seeds[n]);
    var place = chw_place(block, p.pixels);
    for (var j = 0u; j < min(4u, p.length - block * 4u); j++) {
        let at = n * p.length + place.x * p.channels + place.y;
        place = chw_next(place, p.pixels);
        y[at] = normal_from_word(words[j], table[normal_segment(words[j])]);
    }
}

// C, known when the kernel is compiled: division by it is multiplication.
override planes: u32 = 3u;

@compute @workgroup_size(256)
fn initial_fours(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = wid.x * 256u + lane;
    if (i >= p.count) {
        return;
    }
    // Neighbouring invocations are neighbouring channels, as in chw_block.
    let four = i / planes;
    let channel = i - four * planes;
    let words = philox4x32_10(vec4<u32>(channel * (p.pixels / 4u) + four, p.index, 0u, p.stream), seeds[wid.y]);
    let at = wid.y * p.length + four * planes * 4u + channel;
    #unroll j in 0..4
    let row${j} = table[normal_segment(words[${j}])];
    #end
    #unroll j in 0..4
    y[at + ${j}u * planes] = normal_from_word(words[${j}], row${j});
    #end
}

@compute @workgroup_size(64)
fn noised(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    let n = i / q.blocks;
    let block = chw_block(i % q.blocks, q.channels, q.pixels);
    let image = image_index[n];
    let counter = vec4<u32>(block, image.x, image.y, q.stream);
    let words = philox4x32_10(counter, vec2<u32>(q.seed_low, q.seed_high));
    let s = scalars[n];
    var place = chw_place(block, q.pixels);
    for (var j = 0u; j < min(4u, q.length - block * 4u); j++) {
        let at = n * q.length + place.x * q.channels + place.y;
        place = chw_next(place, q.pixels);
        let byte = (images[at / 4u] >> (8u * (at % 4u))) & 0xffu;
        // u8/127.5 - 1 with an exact numerator.
        let x = clamp((f32(byte) * 2.0 - 255.0) / 255.0, -1.0, 1.0);
        let noise = normal_from_word(words[j], table[normal_segment(words[j])]);
        z[at] = s.x * x + s.y * noise;
        eps[at] = noise;
    }
}
