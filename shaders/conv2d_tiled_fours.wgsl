#import conv2d_gather
// The tiled convolution for channels that 4 divides: y is written by fours.

@group(0) @binding(5) var<storage, read_write> y: array<vec4<elem>>; // [N, out_h, out_w, out_c/4]

fn store(split: u32, at: Pixel, k: u32, sum: vec4<f32>) {
    if (!at.valid || k >= p.out_c) {
        return;
    }
    var v = sum;
    if (p.has_bias != 0u) {
        v += vec4(bias[k], bias[k + 1u], bias[k + 2u], bias[k + 3u]);
    }
    let i = (((at.n * p.out_h + at.oy) * p.out_w + at.ox) * p.out_c + k) / 4u;
    if (p.accumulate != 0u) {
        v += vec4<f32>(y[i]);
    }
    y[i] = vec4<elem>(v);
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    gather_tile(wid, groups, lane);
}
