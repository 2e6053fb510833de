#import index
// Pools over windows.  y[n, oy, ox, c] = max or mean of x[n, oy·stride+ky-pad, ox·stride+kx-pad, c] inside of the picture; the
// mean is over the window's places, or, with `inside` set, over those inside.   x [N, H, W, C], y [N, Oh, Ow, C] elem.

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
    pad: u32,
    mean: u32,     // 0: the largest
    inside: u32,
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
    let place = i / p.channels;
    let ox = place % p.out_width;
    let oy = place / p.out_width % p.out_height;
    let n = place / (p.out_width * p.out_height);
    var most = -3.4028234e38;
    var sum = 0.0;
    var seen = 0u;
    for (var ky = 0u; ky < p.kernel_height; ky++) {
        for (var kx = 0u; kx < p.kernel_width; kx++) {
            // Below 0 they wrap to what is above any extent.
            let iy = oy * p.stride + ky - p.pad;
            let ix = ox * p.stride + kx - p.pad;
            if (iy < p.height && ix < p.width) {
                let v = f32(x[((n * p.height + iy) * p.width + ix) * p.channels + c]);
                most = max(most, v);
                sum += v;
                seen += 1u;
            }
        }
    }
    if (p.mean == 0u) {
        y[i] = elem(most);
    } else {
        let places = select(p.kernel_height * p.kernel_width, seen, p.inside != 0u);
        y[i] = elem(sum / f32(places));
    }
}
