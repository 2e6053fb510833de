#import conv2d_params
#import index
// Convolution as a gather, one invocation an output element.
//   y[n,oy,ox,k] = bias[k] + Σ_{ky,kx,c} x[n,iy,ix,c]·w[ky,kx,c,k]
//   iy = (oy·step + ky - pad) / spread where that divides and lies in the image, else the term is zero; ix alike.
// Forward: step = stride, spread = 1. Input gradient: x is dy, y is dx, step = 1, spread = stride, and the weights
// are those that `transpose` makes.
// Any N, H, W, C, K. Laws: sums are f32; their order is (ky, kx, c), whatever N.

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [N, in_h, in_w, in_c]
@group(0) @binding(1) var<storage, read> w: array<f32>;        // [kernel_h, kernel, in_c, out_c]
@group(0) @binding(2) var<storage, read> bias: array<f32>;     // [out_c]; anything without has_bias
@group(0) @binding(3) var<storage, read_write> y: array<elem>; // [N, out_h, out_w, out_c]
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.batch * p.out_h * p.out_w * p.out_c) {
        return;
    }
    let k = i % p.out_c;
    let pixel = i / p.out_c;
    let ox = pixel % p.out_w;
    let oy = pixel / p.out_w % p.out_h;
    let n = pixel / (p.out_w * p.out_h);
    var sum = 0.0;
    for (var ky = 0u; ky < p.kernel_h; ky++) {
        // Above or left of the image wraps to 2^32-1, which is odd and past any bound.
        let ty = oy * p.step + ky - p.pad_h;
        if (ty % p.spread != 0u || ty / p.spread >= p.in_h) {
            continue;
        }
        for (var kx = 0u; kx < p.kernel; kx++) {
            let tx = ox * p.step + kx - p.pad;
            if (tx % p.spread != 0u || tx / p.spread >= p.in_w) {
                continue;
            }
            let first = ((n * p.in_h + ty / p.spread) * p.in_w + tx / p.spread) * p.in_c;
            let tap = (ky * p.kernel + kx) * p.in_c * p.out_c + k;
            for (var c = 0u; c < p.in_c; c++) {
                sum += f32(x[first + c]) * w[tap + c * p.out_c];
            }
        }
    }
    if (p.has_bias != 0u) {
        sum += bias[k];
    }
    if (p.accumulate != 0u) {
        sum += f32(y[i]);
    }
    y[i] = elem(sum);
}

// The weights of the input gradient: taps in reverse, channels exchanged.
// turned[taps-1-tap, k, c] = weights[tap, c, k]

struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
}

@group(0) @binding(0) var<storage, read> weights: array<f32>;      // [taps, in_c, out_c]
@group(0) @binding(1) var<storage, read_write> turned: array<f32>; // [taps, out_c, in_c]
@group(0) @binding(2) var<uniform> turn: Turn;

@compute @workgroup_size(64)
fn transpose(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let plane = turn.in_c * turn.out_c;
    if (i >= turn.taps * plane) {
        return;
    }
    let c = i % turn.in_c;
    let k = i / turn.in_c % turn.out_c;
    let tap = turn.taps - 1u - i / plane;
    turned[i] = weights[tap * plane + c * turn.out_c + k];
}
