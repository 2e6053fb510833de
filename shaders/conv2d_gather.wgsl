#import conv2d_params
#import index
// Convolution as a gather (see conv2d.wgsl): implicit GEMM of [pixels, taps·in_c] by [taps·in_c, out_c] through
// workgroup memory, TILE_M pixels by TILE_N channels a workgroup, 8 by 8 an invocation, 16 input channels a step, fetched
// while those before are multiplied. With SPLIT, of stride 1, split s sums the steps [s·chunk, (s+1)·chunk), at least one.
// Library file; who imports it declares what is written, at binding 5, and `store`.
// With spread 2 the pixels of a layer wid.z are those of one phase, (oy % spread)·spread + ox % spread: the same taps meet input.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide. spread is 1 or 2.
// Laws: sums are f32; their order is (ky, kx, channel), whatever the tile and N. 16 KiB of workgroup memory at 128x128.
//
// In bounds, for the compiler may add no checks here: `load_x` reads where a pixel's bit of the tap says that it is inside,
// and that bit is none for channels past the last; `load_w` is told whether row and column are among the weights', and taps
// are those of the loop; `store` is told whether its pixel is one of the image and tests its channels; x, w and y are padded
// to fours; the places in workgroup memory follow from the constants of the tile.

override TILE_M: u32 = 64; // pixels: 64 or 128
override TILE_N: u32 = 64; // channels: 64 or 128
override FOURS: bool = true;
override SPLIT: bool = false;

// x and w are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;  // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;        // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> w4: array<vec4<f32>>;   // [kernel_h, kernel, in_c, out_c/4]
@group(0) @binding(3) var<storage, read> w1: array<f32>;         // [kernel_h, kernel, in_c, out_c]
@group(0) @binding(4) var<storage, read> bias: array<f32>;       // [out_c]; anything without has_bias
@group(0) @binding(6) var<uniform> p: Params;

// Four channels q of pixel m stand at m·4 + (q ^ (m/2 % 4)): eight neighbouring pixels lie in different banks.
var<workgroup> tile_x: array<vec4<f32>, TILE_M * 4>;  // [TILE_M pixels, 4 fours of input channels]
var<workgroup> tile_w: array<vec4<f32>, TILE_N * 4>;  // [16 input channels, TILE_N/4 fours of output channels]

// v / spread and v % spread, of what wraps below zero, too; spread is 1 or 2.
fn quotient(v: u32) -> u32 {
    return u32(i32(v) >> (p.spread - 1u));
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

// Where the first tap of a pixel reads, and a bit for each tap that reads inside of the image.
struct Row {
    at: u32, // in units: fours, or single elements
    seen: u32,
}

// The taps are every spread'th from (ky, kx) on.
fn row_of(at: Pixel, ky: u32, kx: u32) -> Row {
    // Exact: the taps that do not divide are skipped. Above or left of the image wraps past any bound.
    let iy = quotient(at.oy * p.step + ky - p.pad_h);
    let ix = quotient(at.ox * p.step + kx - p.pad);
    let rows = select(0u, 7u, iy < p.in_h) | select(0u, 56u, iy + 1u < p.in_h) | select(0u, 448u, iy + 2u < p.in_h);
    let columns =
        select(0u, 73u, ix < p.in_w) | select(0u, 146u, ix + 1u < p.in_w) | select(0u, 292u, ix + 2u < p.in_w);
    return Row(((at.n * p.in_h + iy) * p.in_w + ix) * units(p.in_c), select(0u, rows & columns, at.valid));
}

fn units(elements: u32) -> u32 {
    return select(elements, elements / 4u, FOURS);
}

// Four input channels from c on, of the tap whose bit and distance behind the first are given; zero outside.
fn load_x(row: Row, bit: u32, skip: u32, c: u32) -> vec4<f32> {
    if ((row.seen & bit) == 0u) {
        return vec4(0.0);
    }
    let i = row.at + skip;
    if (FOURS) {
        return vec4<f32>(x4[i]);
    }
    var v = vec4(f32(x1[i]), 0.0, 0.0, 0.0);
    if (c + 1u < p.in_c) { v.y = f32(x1[i + 1u]); }
    if (c + 2u < p.in_c) { v.z = f32(x1[i + 2u]); }
    if (c + 3u < p.in_c) { v.w = f32(x1[i + 3u]); }
    return v;
}

// Four output channels from k on at place i of the weights, zero where not wanted.
fn load_w(wanted: bool, i: u32, k: u32) -> vec4<f32> {
    if (!wanted) {
        return vec4(0.0);
    }
    if (FOURS) {
        return w4[i];
    }
    var v = vec4(w1[i], 0.0, 0.0, 0.0);
    if (k + 1u < p.out_c) { v.y = w1[i + 1u]; }
    if (k + 2u < p.out_c) { v.z = w1[i + 2u]; }
    if (k + 3u < p.out_c) { v.w = w1[i + 3u]; }
    return v;
}

fn put_x(m: u32, q: u32, v: vec4<f32>) {
    tile_x[m * 4u + (q ^ (m / 2u % 4u))] = v;
}

fn get_x(m: u32, q: u32) -> vec4<f32> {
    return tile_x[m * 4u + (q ^ (m / 2u % 4u))];
}

fn gather_tile(wid: vec3<u32>, groups: vec3<u32>, lane: u32) {
    // A layer of the dispatch is a split, or a phase.
    let split = select(0u, wid.z, SPLIT);
    let phase = select(wid.z, 0u, SPLIT);
    let blocks = (p.out_c + TILE_N - 1u) / TILE_N;
    let group = linear_group(wid, groups);
    let m0 = group / blocks * TILE_M;
    let k0 = group % blocks * TILE_N;

    let ky0 = remainder(p.pad_h + quotient(phase));
    let kx0 = remainder(p.pad + remainder(phase));
    // What this invocation brings: fours bx of pixels mx, mx + threads/4, …; columns bw of rows rw, rw + TILE_M/16, …
    let threads = TILE_M * TILE_N / 64u;
    let bx = lane % 4u;
    let mx = lane / 4u;
    let bw = lane % (TILE_N / 4u);
    let rw = lane / (TILE_N / 4u);
#unroll i in 0..4
    let row${i} = row_of(pixel(m0 + mx + ${i}u * threads / 4u, phase), ky0, kx0);
#end

    // What it sums: pixels tm + i·TILE_M/8, channels 4·tn and TILE_N/2 + 4·tn on. 32 invocations in a row are 8 by 4 of
    // these, so that they share what they read.
    let part = lane / 32u;
    let tm = part % (TILE_M / 64u) * 8u + lane % 8u;
    let tn = part / (TILE_M / 64u) * 4u + lane / 8u % 4u;
#unroll i in 0..8
    var a${i} = vec4(0.0);
    var b${i} = vec4(0.0);
#end

    // An image one pixel wide may have no tap that meets it.
    let taps_y = quotient(p.kernel_h + p.spread - 1u - ky0);
    let taps_x = quotient(p.kernel + p.spread - 1u - kx0);
    let steps_of_tap = (p.in_c + 15u) / 16u;
    var steps = taps_y * taps_x * steps_of_tap;
    let k = k0 + bw * 4u;
    let w_units = units(p.out_c);
    let w_at = rw * w_units + units(k);
    let w_limit = select(0u, p.in_c, k < p.out_c);
    var ty = 0u;
    var tx = 0u;
    var c0 = 0u;
    if (SPLIT) {
        let tap = split * p.chunk / steps_of_tap;
        ty = tap / taps_x;
        tx = tap % taps_x;
        c0 = split * p.chunk % steps_of_tap * 16u;
        steps = min(steps - split * p.chunk, p.chunk);
    }
#unroll i in 0..4
    var x_${i} = vec4(0.0);
    var w_${i} = vec4(0.0);
#end
    // One step more than there are: the first only fetches, the last only multiplies.
    for (var step = 0u; step <= steps; step++) {
        if (step > 0u) {
            workgroupBarrier();
#unroll i in 0..4
            if (${i}u * TILE_N < 256u) {
                put_x(mx + ${i}u * threads / 4u, bx, x_${i});
            }
            if (${i}u * TILE_M < 256u) {
                tile_w[lane + ${i}u * threads] = w_${i};
            }
#end
            workgroupBarrier();
        }
        if (step < steps) {
            // The same for all invocations but for their place among sixteen channels.
            let tap = (ky0 + ty * p.spread) * p.kernel + kx0 + tx * p.spread;
            let c = c0 + bx * 4u;
            let bit = select(0u, 1u << (ty * 3u + tx), c < p.in_c);
            let skip = (ty * p.in_w + tx) * units(p.in_c) + units(c0) + units(bx * 4u);
            let w_from = (tap * p.in_c + c0) * w_units;
#unroll i in 0..4
            if (${i}u * TILE_N < 256u) {
                x_${i} = load_x(row${i}, bit, skip, c);
            }
            if (${i}u * TILE_M < 256u) {
                let more = ${i}u * (TILE_M / 16u);
                w_${i} = load_w(c0 + rw + more < w_limit, w_from + w_at + more * w_units, k);
            }
#end
            c0 += 16u;
            if (c0 >= p.in_c) {
                c0 = 0u;
                tx += 1u;
            }
            if (tx >= taps_x) {
                tx = 0u;
                ty += 1u;
            }
        }
        if (step > 0u) {
            // Written out, so that what the next four channels need is read early: 39 TFLOP/s on an H100 instead of 35.
#unroll q in 0..4
            {
                let at = ${q}u * TILE_N + tn;
#unroll r in 0..4
                let wa${r} = tile_w[at + ${r}u * TILE_N / 4u];
                let wb${r} = tile_w[at + ${r}u * TILE_N / 4u + TILE_N / 8u];
#end
#unroll i in 0..8
                let v${i} = get_x(tm + ${i}u * TILE_M / 8u, ${q}u);
                a${i} = fma(wa0, vec4(v${i}.x), a${i});
                b${i} = fma(wb0, vec4(v${i}.x), b${i});
                a${i} = fma(wa1, vec4(v${i}.y), a${i});
                b${i} = fma(wb1, vec4(v${i}.y), b${i});
                a${i} = fma(wa2, vec4(v${i}.z), a${i});
                b${i} = fma(wb2, vec4(v${i}.z), b${i});
                a${i} = fma(wa3, vec4(v${i}.w), a${i});
                b${i} = fma(wb3, vec4(v${i}.w), b${i});
#end
            }
#end
        }
    }

#unroll i in 0..8
    let p${i} = pixel(m0 + tm + ${i}u * TILE_M / 8u, phase);
    store(split, p${i}, k0 + tn * 4u, a${i});
    store(split, p${i}, k0 + TILE_N / 2u + tn * 4u, b${i});
#end
}
