#import conv2d_gather
// The tiled convolution for channels that 4 does not divide: y is written one by one.

@group(0) @binding(5) var<storage, read_write> y: array<elem>; // [N, out_h, out_w, out_c]

fn store(split: u32, at: Pixel, k: u32, sum: vec4<f32>) {
    if (!at.valid) {
        return;
    }
    let base = ((at.n * p.out_h + at.oy) * p.out_w + at.ox) * p.out_c;
    for (var j = k; j < min(k + 4u, p.out_c); j++) {
        var v = sum[j - k];
        if (p.has_bias != 0u) {
            v += bias[j];
        }
        if (p.accumulate != 0u) {
            v += f32(y[base + j]);
        }
        y[base + j] = elem(v);
    }
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    gather_tile(wid, groups, lane);
}
