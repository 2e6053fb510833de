#import conv2d_gather
// The tiled convolution for small images, of which there are too few tiles to fill a GPU: the sum over taps and channels is
// split among workgroups.
//   gather: split s sums its steps into partial sums, the first adds the bias;  finish: y = Σ_splits, or y += that.
// Channels come in fours. Laws: splits are added in their order, and how many there are does not depend on N.

@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>; // [splits, N, out_h, out_w, out_c/4]

fn store(split: u32, at: Pixel, k: u32, sum: vec4<f32>) {
    if (!at.valid || k >= p.out_c) {
        return;
    }
    var v = sum;
    if (p.has_bias != 0u && split == 0u) {
        v += vec4(bias[k], bias[k + 1u], bias[k + 2u], bias[k + 3u]);
    }
    let row = ((split * p.batch + at.n) * p.out_h + at.oy) * p.out_w + at.ox;
    parts[(row * p.out_c + k) / 4u] = v;
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    gather_tile(wid, groups, lane);
}

struct Finish {
    fours: u32, // of y
    splits: u32,
    accumulate: u32, // add to what is there
    unused: u32,
}

@group(0) @binding(0) var<storage, read> known: array<vec4<f32>>;    // [splits, fours]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<elem>>; // [fours]
@group(0) @binding(2) var<uniform> q: Finish;

@compute @workgroup_size(64)
fn finish(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_group(wid, groups) * 64u + lane;
    if (i >= q.fours) {
        return;
    }
    var sum = vec4<f32>();
    for (var split = 0u; split < q.splits; split++) {
        sum += known[split * q.fours + i];
    }
    if (q.accumulate != 0u) {
        sum += vec4<f32>(y[i]);
    }
    y[i] = vec4<elem>(sum);
}
