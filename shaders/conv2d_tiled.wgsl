#import conv2d_params
#import index
// Convolution as a gather (see conv2d.wgsl): implicit GEMM of [pixels, taps·in_c] by [taps·in_c, out_c] through
// workgroup memory, TILE_M pixels by TILE_N channels a workgroup, 8 by 8 an invocation, 16 input channels a step.
// With spread 2 the pixels of a dispatch's layer wid.z are those of one phase, (oy % spread)·spread + ox % spread, for
// which the same taps meet an input pixel.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide. spread is 1 or 2.
// Laws: sums are f32; their order is (ky, kx, 4 channels), whatever the tile and N. 16 KiB of workgroup memory at
// 128x128.

override TILE_M: u32 = 64; // pixels: 64 or 128
override TILE_N: u32 = 64; // channels: 64 or 128
override FOURS: bool = true;

// x and w are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;  // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;        // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> w4: array<vec4<f32>>;   // [kernel, kernel, in_c, out_c/4]
@group(0) @binding(3) var<storage, read> w1: array<f32>;         // [kernel, kernel, in_c, out_c]
@group(0) @binding(4) var<storage, read> bias: array<f32>;       // [out_c]; anything without has_bias
@group(0) @binding(5) var<storage, read_write> y: array<elem>;   // [N, out_h, out_w, out_c]
@group(0) @binding(6) var<uniform> p: Params;

// Four channels q of pixel m stand at m·4 + (q ^ (m/2 % 4)): eight neighbouring pixels lie in different banks.
var<workgroup> tile_x: array<vec4<f32>, TILE_M * 4>;  // [TILE_M pixels, 4 fours of input channels]
var<workgroup> tile_w: array<vec4<f32>, TILE_N * 4>;  // [16 input channels, TILE_N/4 fours of output channels]

// v / spread and v % spread; spread is 1 or 2.
fn quotient(v: u32) -> u32 {
    return v >> (p.spread - 1u);
}

fn remainder(v: u32) -> u32 {
    return v & (p.spread - 1u);
}

// A pixel of the output.
struct Pixel {
    valid: bool,
    n: u32,
    oy: u32,
    ox: u32,
}

fn pixel(index: u32, phase: u32) -> Pixel {
    let py = quotient(phase);
    let px = remainder(phase);
    // An image one pixel wide or high has no pixel of the second phase.
    let rows = quotient(p.out_h + p.spread - 1u - py);
    let columns = quotient(p.out_w + p.spread - 1u - px);
    let at = select(0u, index, index < p.batch * rows * columns);
    let row = at / max(columns, 1u);
    return Pixel(
        index < p.batch * rows * columns,
        row / max(rows, 1u),
        row % max(rows, 1u) * p.spread + py,
        at % max(columns, 1u) * p.spread + px,
    );
}

// Input channels c … c+3 of the input pixel that `at` sees through tap (ky, kx), zero outside.
fn load_x(at: Pixel, ky: u32, kx: u32, c: u32) -> vec4<f32> {
    // Exact: the taps that do not divide are skipped. Above or left of the image wraps past any bound.
    let iy = quotient(at.oy * p.step + ky - p.pad);
    let ix = quotient(at.ox * p.step + kx - p.pad);
    if (!at.valid || iy >= p.in_h || ix >= p.in_w || c >= p.in_c) {
        return vec4(0.0);
    }
    let i = ((at.n * p.in_h + iy) * p.in_w + ix) * p.in_c + c;
    if (FOURS) {
        return vec4<f32>(x4[i / 4u]);
    }
    var v = vec4(f32(x1[i]), 0.0, 0.0, 0.0);
    if (c + 1u < p.in_c) { v.y = f32(x1[i + 1u]); }
    if (c + 2u < p.in_c) { v.z = f32(x1[i + 2u]); }
    if (c + 3u < p.in_c) { v.w = f32(x1[i + 3u]); }
    return v;
}

// Output channels k … k+3 of input channel c of a tap, zero outside.
fn load_w(tap: u32, c: u32, k: u32) -> vec4<f32> {
    if (c >= p.in_c || k >= p.out_c) {
        return vec4(0.0);
    }
    let i = (tap * p.in_c + c) * p.out_c + k;
    if (FOURS) {
        return w4[i / 4u];
    }
    var v = vec4(w1[i], 0.0, 0.0, 0.0);
    if (k + 1u < p.out_c) { v.y = w1[i + 1u]; }
    if (k + 2u < p.out_c) { v.z = w1[i + 2u]; }
    if (k + 3u < p.out_c) { v.w = w1[i + 3u]; }
    return v;
}

fn store(at: Pixel, k: u32, sum: vec4<f32>) {
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

fn put_x(m: u32, q: u32, v: vec4<f32>) {
    tile_x[m * 4u + (q ^ (m / 2u % 4u))] = v;
}

fn get_x(m: u32, q: u32) -> vec4<f32> {
    return tile_x[m * 4u + (q ^ (m / 2u % 4u))];
}

// Input channels 4q … 4q+3 by output channels 4b … 4b+3 of the tile.
fn weights(q: u32, b: u32) -> mat4x4<f32> {
    let at = q * TILE_N + b;
    return mat4x4<f32>(
        tile_w[at],
        tile_w[at + TILE_N / 4u],
        tile_w[at + TILE_N / 2u],
        tile_w[at + 3u * TILE_N / 4u],
    );
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn gather(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (p.out_c + TILE_N - 1u) / TILE_N;
    let group = linear_group(wid, groups);
    let m0 = group / blocks * TILE_M;
    let k0 = group % blocks * TILE_N;

    // What this invocation brings: fours bx of pixels px, px + stride_x, …; columns bw of rows rw, rw + stride_w, …
    let threads = TILE_M * TILE_N / 64u;
    let bx = lane % 4u;
    let mx = lane / 4u;
    let bw = lane % (TILE_N / 4u);
    let rw = lane / (TILE_N / 4u);
    let q0 = pixel(m0 + mx, wid.z);
    let q1 = pixel(m0 + mx + threads / 4u, wid.z);
    let q2 = pixel(m0 + mx + threads / 2u, wid.z);
    let q3 = pixel(m0 + mx + 3u * threads / 4u, wid.z);

    // What it sums: pixels tm + i·TILE_M/8, channels 4·tn and TILE_N/2 + 4·tn on.
    let tm = lane % (TILE_M / 8u);
    let tn = lane / (TILE_M / 8u);
    var a0 = vec4(0.0); var b0 = vec4(0.0);
    var a1 = vec4(0.0); var b1 = vec4(0.0);
    var a2 = vec4(0.0); var b2 = vec4(0.0);
    var a3 = vec4(0.0); var b3 = vec4(0.0);
    var a4 = vec4(0.0); var b4 = vec4(0.0);
    var a5 = vec4(0.0); var b5 = vec4(0.0);
    var a6 = vec4(0.0); var b6 = vec4(0.0);
    var a7 = vec4(0.0); var b7 = vec4(0.0);

    let ky0 = remainder(p.pad + quotient(wid.z));
    let kx0 = remainder(p.pad + remainder(wid.z));
    for (var ky = ky0; ky < p.kernel; ky += p.spread) {
        for (var kx = kx0; kx < p.kernel; kx += p.spread) {
            let tap = ky * p.kernel + kx;
            for (var c0 = 0u; c0 < p.in_c; c0 += 16u) {
                // Loads come before the barrier, so that they overlap with the sums of other invocations.
                let c = c0 + bx * 4u;
                let x_0 = load_x(q0, ky, kx, c);
                let x_1 = load_x(q1, ky, kx, c);
                var x_2 = vec4(0.0);
                var x_3 = vec4(0.0);
                if (TILE_N == 64u) {
                    x_2 = load_x(q2, ky, kx, c);
                    x_3 = load_x(q3, ky, kx, c);
                }
                let k = k0 + bw * 4u;
                let w_0 = load_w(tap, c0 + rw, k);
                let w_1 = load_w(tap, c0 + rw + TILE_M / 16u, k);
                var w_2 = vec4(0.0);
                var w_3 = vec4(0.0);
                if (TILE_M == 64u) {
                    w_2 = load_w(tap, c0 + rw + TILE_M / 8u, k);
                    w_3 = load_w(tap, c0 + rw + 3u * TILE_M / 16u, k);
                }
                workgroupBarrier();
                put_x(mx, bx, x_0);
                put_x(mx + threads / 4u, bx, x_1);
                tile_w[lane] = w_0;
                tile_w[lane + threads] = w_1;
                if (TILE_N == 64u) {
                    put_x(mx + threads / 2u, bx, x_2);
                    put_x(mx + 3u * threads / 4u, bx, x_3);
                }
                if (TILE_M == 64u) {
                    tile_w[lane + 2u * threads] = w_2;
                    tile_w[lane + 3u * threads] = w_3;
                }
                workgroupBarrier();
                for (var q = 0u; q < 4u; q++) {
                    let wa = weights(q, tn);
                    let wb = weights(q, tn + TILE_N / 8u);
                    let v0 = get_x(tm, q);
                    let v1 = get_x(tm + 1u * TILE_M / 8u, q);
                    let v2 = get_x(tm + 2u * TILE_M / 8u, q);
                    let v3 = get_x(tm + 3u * TILE_M / 8u, q);
                    let v4 = get_x(tm + 4u * TILE_M / 8u, q);
                    let v5 = get_x(tm + 5u * TILE_M / 8u, q);
                    let v6 = get_x(tm + 6u * TILE_M / 8u, q);
                    let v7 = get_x(tm + 7u * TILE_M / 8u, q);
                    a0 += wa * v0; b0 += wb * v0;
                    a1 += wa * v1; b1 += wb * v1;
                    a2 += wa * v2; b2 += wb * v2;
                    a3 += wa * v3; b3 += wb * v3;
                    a4 += wa * v4; b4 += wb * v4;
                    a5 += wa * v5; b5 += wb * v5;
                    a6 += wa * v6; b6 += wb * v6;
                    a7 += wa * v7; b7 += wb * v7;
                }
            }
        }
    }

    let p0 = pixel(m0 + tm, wid.z);
    store(p0, k0 + tn * 4u, a0);
    store(p0, k0 + TILE_N / 2u + tn * 4u, b0);
    let p1 = pixel(m0 + tm + 1u * TILE_M / 8u, wid.z);
    store(p1, k0 + tn * 4u, a1);
    store(p1, k0 + TILE_N / 2u + tn * 4u, b1);
    let p2 = pixel(m0 + tm + 2u * TILE_M / 8u, wid.z);
    store(p2, k0 + tn * 4u, a2);
    store(p2, k0 + TILE_N / 2u + tn * 4u, b2);
    let p3 = pixel(m0 + tm + 3u * TILE_M / 8u, wid.z);
    store(p3, k0 + tn * 4u, a3);
    store(p3, k0 + TILE_N / 2u + tn * 4u, b3);
    let p4 = pixel(m0 + tm + 4u * TILE_M / 8u, wid.z);
    store(p4, k0 + tn * 4u, a4);
    store(p4, k0 + TILE_N / 2u + tn * 4u, b4);
    let p5 = pixel(m0 + tm + 5u * TILE_M / 8u, wid.z);
    store(p5, k0 + tn * 4u, a5);
    store(p5, k0 + TILE_N / 2u + tn * 4u, b5);
    let p6 = pixel(m0 + tm + 6u * TILE_M / 8u, wid.z);
    store(p6, k0 + tn * 4u, a6);
    store(p6, k0 + TILE_N / 2u + tn * 4u, b6);
    let p7 = pixel(m0 + tm + 7u * TILE_M / 8u, wid.z);
    store(p7, k0 + tn * 4u, a7);
    store(p7, k0 + TILE_N / 2u + tn * 4u, b7);
}
