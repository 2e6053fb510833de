#import index
// The pixels that each place of a convolution reads, side by side:  y[n, oy, ox, (ky, kx, c)] = x[n, oy·stride+ky-pad_y, ..],
// 0 outside.   x [N, H, W, C], y [N, Oh, Ow, Kh·Kw·C] elem.

struct Params {
    count: u32,    // of y
    height: u32,
    width: u32,
    channels: u32,
    out_height: u32,
    out_width: u32,
    kernel_height: u32,
    kernel_width: u32,
    stride: u32,
    pad_y: u32,
    pad_x: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read_write> y: array<elem>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let c = i % p.channels;
    let tap = i / p.channels % (p.kernel_height * p.kernel_width);
    let place = i / (p.channels * p.kernel_height * p.kernel_width);
    let ox = place % p.out_width;
    let oy = place / p.out_width % p.out_height;
    let n = place / (p.out_width * p.out_height);
    // Below 0 they wrap to what is above any extent.
    let iy = oy * p.stride + tap / p.kernel_width - p.pad_y;
    let ix = ox * p.stride + tap % p.kernel_width - p.pad_x;
    var v = elem(0.0);
    if (iy < p.height && ix < p.width) {
        v = x[((n * p.height + iy) * p.width + ix) * p.channels + c];
    }
    y[i] = v;
}
