#import conv2d_params
#import index
// Convolution as a gather (see conv2d.wgsl), for software adapters: 8 pixels x 8 channels an invocation in registers,
// no workgroup memory, no barrier.
// Pixels come in segments of 4 in a row of the image, two segments an invocation. Products are taken as
// (4x4 weights) · (4 input channels), which sums 4 channels at once.
//   rows3: kernel 3x3, step 1, spread 1, one column of padding; the 6 columns that a segment sees are loaded once for 3 taps.
//   taps:  any kernel, step and spread.
// With spread 2 only every other tap meets an input pixel; which ones depends on the parity of the output pixel, its
// phase: wid.z = (oy % spread)·spread + ox % spread. An invocation's pixels are of one phase.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide. spread is 1 or 2.
// Laws: sums are f32; their order is (ky, 4 channels, kx) or (ky, kx, 4 channels), whatever N.

override FOURS: bool = true;
// A constant, for these adapters run both sides of a branch.
override ACCUMULATE: bool = false;

// x and w are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>; // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;       // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> w4: array<vec4<f32>>;  // [kernel_h, kernel, in_c, out_c/4]
@group(0) @binding(3) var<storage, read> w1: array<f32>;        // [kernel_h, kernel, in_c, out_c]
@group(0) @binding(4) var<storage, read> bias: array<f32>;      // [out_c]; anything without has_bias
@group(0) @binding(5) var<storage, read_write> y: array<elem>;  // [N, out_h, out_w, out_c]
@group(0) @binding(6) var<uniform> p: Params;

// v / spread and v % spread without a division, which is slow here; of what wraps below zero, too.
fn quotient(v: u32) -> u32 {
    return u32(i32(v) >> (p.spread - 1u));
}

fn remainder(v: u32) -> u32 {
    return v & (p.spread - 1u);
}

// Four pixels of one phase in a row of the output: ox = ox0, ox0 + spread, …
struct Segment {
    valid: bool,
    n: u32,
    oy: u32,
    ox0: u32,
}

fn segment(index: u32, phase: u32) -> Segment {
    let py = quotient(phase);
    let px = remainder(phase);
    // An image one pixel wide or high has no pixel of the second phase: then there is no valid segment.
    let rows = quotient(p.out_h + p.spread - 1u - py);
    let segments = (quotient(p.out_w + p.spread - 1u - px) + 3u) / 4u;
    let valid = index < p.batch * rows * segments;
    let at = select(0u, index, valid);
    let row = at / max(segments, 1u);
    return Segment(
        valid,
        row / max(rows, 1u),
        row % max(rows, 1u) * p.spread + py,
        (at % max(segments, 1u)) * 4u * p.spread + px,
    );
}

// Input channels 4c … 4c+3 of column ix of a row of the image, zero outside.
fn load(row: u32, ix: u32, inside: bool, c: u32) -> vec4<f32> {
    let ok = inside && ix < p.in_w;
    let i = select(0u, (row + ix) * p.in_c, ok) + 4u * c;
    if (FOURS) {
        return select(vec4(0.0), vec4<f32>(x4[i / 4u]), ok);
    }
    let v = vec4(f32(x1[i]), f32(x1[i + 1u]), f32(x1[i + 2u]), f32(x1[i + 3u]));
    let left = select(0u, p.in_c - 4u * c, ok);
    return select(vec4(0.0), v, vec4(0u, 1u, 2u, 3u) < vec4(left));
}

// Four output channels from 4k on of row r of the weights. Past out_c they belong to the next row and are not stored.
fn weights_row(r: u32, k: u32) -> vec4<f32> {
    let i = r * p.out_c + 4u * k;
    if (FOURS) {
        return w4[i / 4u];
    }
    return vec4(w1[i], w1[i + 1u], w1[i + 2u], w1[i + 3u]);
}

// Four rows of the weights from r on. Past in_c they meet zeros.
fn weights(r: u32, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        weights_row(r, k),
        weights_row(r + 1u, k),
        weights_row(r + 2u, k),
        weights_row(r + 3u, k),
    );
}

// Four output channels from 4k on of the bias, where every sum starts.
fn start(k: u32) -> vec4<f32> {
    let i = 4u * k;
    return select(vec4(0.0), vec4(bias[i], bias[i + 1u], bias[i + 2u], bias[i + 3u]), p.has_bias != 0u);
}

fn put(at: u32, k: u32, sum: f32) {
    if (k >= p.out_c) {
        return;
    }
    if (ACCUMULATE) {
        y[at + k] = elem(sum + f32(y[at + k]));
    } else {
        y[at + k] = elem(sum);
    }
}

// Pixel j of a segment, output channels 4k … 4k+3.
fn store(s: Segment, j: u32, k: u32, sum: vec4<f32>) {
    let ox = s.ox0 + j * p.spread;
    if (s.valid && ox < p.out_w) {
        let at = ((s.n * p.out_h + s.oy) * p.out_w + ox) * p.out_c;
        put(at, 4u * k, sum.x);
        put(at, 4u * k + 1u, sum.y);
        put(at, 4u * k + 2u, sum.z);
        put(at, 4u * k + 3u, sum.w);
    }
}

@compute @workgroup_size(8)
fn rows3(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 8u, lane);
    let blocks = (p.out_c + 7u) / 8u;
    let k = i % blocks * 2u; // in fours
    let s = segment(i / blocks * 2u, wid.z);
    let t = segment(i / blocks * 2u + 1u, wid.z);

    // Sums: pixels s0..s3 and t0..t3 of both segments, channels a (k) and b (k + 1).
    let bias_a = start(k);
    let bias_b = start(k + 1u);
    var s0a = bias_a; var s0b = bias_b;
    var s1a = bias_a; var s1b = bias_b;
    var s2a = bias_a; var s2b = bias_b;
    var s3a = bias_a; var s3b = bias_b;
    var t0a = bias_a; var t0b = bias_b;
    var t1a = bias_a; var t1b = bias_b;
    var t2a = bias_a; var t2b = bias_b;
    var t3a = bias_a; var t3b = bias_b;
    for (var ky = 0u; ky < 3u; ky++) {
        // Above or left of the image wraps past any bound.
        let sy = s.oy + ky - p.pad_h;
        let ty = t.oy + ky - p.pad_h;
        let sr = (s.n * p.in_h + sy) * p.in_w;
        let tr = (t.n * p.in_h + ty) * p.in_w;
        let s_in = sy < p.in_h;
        let t_in = ty < p.in_h;
        for (var c = 0u; c < (p.in_c + 3u) / 4u; c++) {
            let sv0 = load(sr, s.ox0 - 1u, s_in, c);
            let sv1 = load(sr, s.ox0, s_in, c);
            let sv2 = load(sr, s.ox0 + 1u, s_in, c);
            let sv3 = load(sr, s.ox0 + 2u, s_in, c);
            let sv4 = load(sr, s.ox0 + 3u, s_in, c);
            let sv5 = load(sr, s.ox0 + 4u, s_in, c);
            let tv0 = load(tr, t.ox0 - 1u, t_in, c);
            let tv1 = load(tr, t.ox0, t_in, c);
            let tv2 = load(tr, t.ox0 + 1u, t_in, c);
            let tv3 = load(tr, t.ox0 + 2u, t_in, c);
            let tv4 = load(tr, t.ox0 + 3u, t_in, c);
            let tv5 = load(tr, t.ox0 + 4u, t_in, c);
            let r = ky * 3u * p.in_c + c * 4u;
            {
                let wa = weights(r, k);
                let wb = weights(r, k + 1u);
                s0a += wa * sv0; s0b += wb * sv0;
                s1a += wa * sv1; s1b += wb * sv1;
                s2a += wa * sv2; s2b += wb * sv2;
                s3a += wa * sv3; s3b += wb * sv3;
                t0a += wa * tv0; t0b += wb * tv0;
                t1a += wa * tv1; t1b += wb * tv1;
                t2a += wa * tv2; t2b += wb * tv2;
                t3a += wa * tv3; t3b += wb * tv3;
            }
            {
                let wa = weights(r + p.in_c, k);
                let wb = weights(r + p.in_c, k + 1u);
                s0a += wa * sv1; s0b += wb * sv1;
                s1a += wa * sv2; s1b += wb * sv2;
                s2a += wa * sv3; s2b += wb * sv3;
                s3a += wa * sv4; s3b += wb * sv4;
                t0a += wa * tv1; t0b += wb * tv1;
                t1a += wa * tv2; t1b += wb * tv2;
                t2a += wa * tv3; t2b += wb * tv3;
                t3a += wa * tv4; t3b += wb * tv4;
            }
            {
                let wa = weights(r + 2u * p.in_c, k);
                let wb = weights(r + 2u * p.in_c, k + 1u);
                s0a += wa * sv2; s0b += wb * sv2;
                s1a += wa * sv3; s1b += wb * sv3;
                s2a += wa * sv4; s2b += wb * sv4;
                s3a += wa * sv5; s3b += wb * sv5;
                t0a += wa * tv2; t0b += wb * tv2;
                t1a += wa * tv3; t1b += wb * tv3;
                t2a += wa * tv4; t2b += wb * tv4;
                t3a += wa * tv5; t3b += wb * tv5;
            }
        }
    }
    store(s, 0u, k, s0a);
    store(s, 0u, k + 1u, s0b);
    store(s, 1u, k, s1a);
    store(s, 1u, k + 1u, s1b);
    store(s, 2u, k, s2a);
    store(s, 2u, k + 1u, s2b);
    store(s, 3u, k, s3a);
    store(s, 3u, k + 1u, s3b);
    store(t, 0u, k, t0a);
    store(t, 0u, k + 1u, t0b);
    store(t, 1u, k, t1a);
    store(t, 1u, k + 1u, t1b);
    store(t, 2u, k, t2a);
    store(t, 2u, k + 1u, t2b);
    store(t, 3u, k, t3a);
    store(t, 3u, k + 1u, t3b);
}

@compute @workgroup_size(8)
fn taps(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 8u, lane);
    let blocks = (p.out_c + 7u) / 8u;
    let k = i % blocks * 2u; // in fours
    let s = segment(i / blocks * 2u, wid.z);
    let t = segment(i / blocks * 2u + 1u, wid.z);

    // Sums: pixels s0..s3 and t0..t3 of both segments, channels a (k) and b (k + 1).
    let bias_a = start(k);
    let bias_b = start(k + 1u);
    var s0a = bias_a; var s0b = bias_b;
    var s1a = bias_a; var s1b = bias_b;
    var s2a = bias_a; var s2b = bias_b;
    var s3a = bias_a; var s3b = bias_b;
    var t0a = bias_a; var t0b = bias_b;
    var t1a = bias_a; var t1b = bias_b;
    var t2a = bias_a; var t2b = bias_b;
    var t3a = bias_a; var t3b = bias_b;
    // The first tap that meets an input pixel; 0 with spread 1.
    let ky0 = remainder(p.pad_h + quotient(wid.z));
    let kx0 = remainder(p.pad + remainder(wid.z));
    for (var ky = ky0; ky < p.kernel_h; ky += p.spread) {
        // Exact: the taps that do not divide are skipped. Above or left of the image wraps past any bound.
        let sy = quotient(s.oy * p.step + ky - p.pad_h);
        let ty = quotient(t.oy * p.step + ky - p.pad_h);
        let sr = (s.n * p.in_h + sy) * p.in_w;
        let tr = (t.n * p.in_h + ty) * p.in_w;
        let s_in = sy < p.in_h;
        let t_in = ty < p.in_h;
        for (var kx = kx0; kx < p.kernel; kx += p.spread) {
            let sx = quotient(s.ox0 * p.step + kx - p.pad);
            let tx = quotient(t.ox0 * p.step + kx - p.pad);
            for (var c = 0u; c < (p.in_c + 3u) / 4u; c++) {
                let r = (ky * p.kernel + kx) * p.in_c + c * 4u;
                let wa = weights(r, k);
                let wb = weights(r, k + 1u);
                let sv0 = load(sr, sx, s_in, c);
                let sv1 = load(sr, sx + p.step, s_in, c);
                let sv2 = load(sr, sx + 2u * p.step, s_in, c);
                let sv3 = load(sr, sx + 3u * p.step, s_in, c);
                let tv0 = load(tr, tx, t_in, c);
                let tv1 = load(tr, tx + p.step, t_in, c);
                let tv2 = load(tr, tx + 2u * p.step, t_in, c);
                let tv3 = load(tr, tx + 3u * p.step, t_in, c);
                s0a += wa * sv0; s0b += wb * sv0;
                s1a += wa * sv1; s1b += wb * sv1;
                s2a += wa * sv2; s2b += wb * sv2;
                s3a += wa * sv3; s3b += wb * sv3;
                t0a += wa * tv0; t0b += wb * tv0;
                t1a += wa * tv1; t1b += wb * tv1;
                t2a += wa * tv2; t2b += wb * tv2;
                t3a += wa * tv3; t3b += wb * tv3;
            }
        }
    }
    store(s, 0u, k, s0a);
    store(s, 0u, k + 1u, s0b);
    store(s, 1u, k, s1a);
    store(s, 1u, k + 1u, s1b);
    store(s, 2u, k, s2a);
    store(s, 2u, k + 1u, s2b);
    store(s, 3u, k, s3a);
    store(s, 3u, k + 1u, s3b);
    store(t, 0u, k, t0a);
    store(t, 0u, k + 1u, t0b);
    store(t, 1u, k, t1a);
    store(t, 1u, k + 1u, t1b);
    store(t, 2u, k, t2a);
    store(t, 2u, k + 1u, t2b);
    store(t, 3u, k, t3a);
    store(t, 3u, k + 1u, t3b);
}
