#import conv2d_params
#import index
// Weight gradient of a convolution (see conv2d_weight.wgsl): GEMM of [taps·in_c, pixels] by [pixels, out_c] through
// workgroup memory, TILE_M rows (tap, c) by TILE_N output channels a workgroup, 8 by 8 an invocation, 16 pixels a step, fetched
// while those before are multiplied.
// Split s sums pixels [s·chunk, (s+1)·chunk) into dw[s]; `reduce` of conv2d_weight.wgsl adds the splits.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide.
// Laws: sums are f32, in the order of the pixels, whatever the tile. 16 KiB of workgroup memory at 128x128.
//
// In bounds, for the compiler adds no checks here: x is read where the pixel is of the split and the place inside of the image,
// dy where the pixel is of the split and the channel below out_c; dw is written at a split that there is, a row below
// taps·in_c and a channel below out_c; the places in workgroup memory follow from the constants of the tile.

override TILE_M: u32 = 64; // rows: 64 or 128
override TILE_N: u32 = 64; // output channels: 64 or 128
override FOURS: bool = true;

// x and dy are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;  // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;        // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> dy4: array<vec4<elem>>; // [N, out_h, out_w, out_c/4]
@group(0) @binding(3) var<storage, read> dy1: array<elem>;       // [N, out_h, out_w, out_c]
@group(0) @binding(4) var<storage, read_write> dw: array<f32>;   // [splits, kernel_h·kernel·in_c, out_c]
@group(0) @binding(5) var<uniform> p: Params;

var<workgroup> tile_x: array<vec4<f32>, TILE_M * 4>;  // [16 pixels, TILE_M/4 fours of rows]
var<workgroup> tile_dy: array<vec4<f32>, TILE_N * 4>; // [16 pixels, TILE_N/4 fours of output channels]

// A row of dw and the offset of its tap from a pixel of the output.
struct Row {
    valid: bool,
    dy: u32,
    dx: u32,
    c: u32,
}

fn row(index: u32) -> Row {
    let tap = index / p.in_c;
    // Above or left of the image wraps past any bound.
    return Row(
        tap < p.kernel_h * p.kernel,
        tap / p.kernel - p.pad_h,
        tap % p.kernel - p.pad,
        index % p.in_c,
    );
}

// A pixel of the output.
struct Pixel {
    n: u32,
    y: u32,
    x: u32,
}

fn pixel_of(index: u32) -> Pixel {
    return Pixel(index / (p.out_w * p.out_h), index / p.out_w % p.out_h, index % p.out_w);
}

// The pixel as many further on as `by` is from the first: their sum, digit by digit, without a division.
fn further(at: Pixel, by: Pixel) -> Pixel {
    var to = Pixel(at.n + by.n, at.y + by.y, at.x + by.x);
    if (to.x >= p.out_w) {
        to.x -= p.out_w;
        to.y += 1u;
    }
    if (to.y >= p.out_h) {
        to.y -= p.out_h;
        to.n += 1u;
    }
    return to;
}

// Where in x the row's channel of the input pixel under an output pixel stands, and whether it is in the image.
struct Place {
    inside: bool,
    at: u32,
}

fn place(r: Row, at: Pixel) -> Place {
    let iy = at.y * p.step + r.dy;
    let ix = at.x * p.step + r.dx;
    return Place(
        r.valid && iy < p.in_h && ix < p.in_w,
        ((at.n * p.in_h + iy) * p.in_w + ix) * p.in_c + r.c,
    );
}

// Rows m … m+3 at an output pixel, zero outside or if it is not `wanted`.
fn load_x(first: Row, m: u32, at: Pixel, wanted: bool) -> vec4<f32> {
    var v = vec4(0.0);
    if (!wanted) {
        return v;
    }
    if (FOURS) {
        let from_x = place(first, at);
        if (from_x.inside) {
            v = vec4<f32>(x4[from_x.at / 4u]);
        }
        return v;
    }
    for (var j = 0u; j < 4u; j++) {
        let from_x = place(row(m + j), at);
        if (from_x.inside) {
            v[j] = f32(x1[from_x.at]);
        }
    }
    return v;
}

// Output channels k … k+3 at output pixel `index`, zero outside.
fn load_dy(index: u32, last: u32, k: u32) -> vec4<f32> {
    var v = vec4(0.0);
    if (index >= last || k >= p.out_c) {
        return v;
    }
    let i = index * p.out_c + k;
    if (FOURS) {
        return vec4<f32>(dy4[i / 4u]);
    }
    for (var j = 0u; j < min(4u, p.out_c - k); j++) {
        v[j] = f32(dy1[i + j]);
    }
    return v;
}

fn store_row(split: u32, m: u32, k: u32, sum: vec4<f32>) {
    let rows = p.kernel_h * p.kernel * p.in_c;
    if (m >= rows) {
        return;
    }
    let base = (split * rows + m) * p.out_c;
    for (var j = k; j < min(k + 4u, p.out_c); j++) {
        var v = sum[j - k];
        if (p.accumulate != 0u) {
            v += dw[base + j];
        }
        dw[base + j] = v;
    }
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let m_blocks = (p.kernel_h * p.kernel * p.in_c + TILE_M - 1u) / TILE_M;
    let k_blocks = (p.out_c + TILE_N - 1u) / TILE_N;
    let group = linear_group(wid, groups);
    let k0 = group % k_blocks * TILE_N;
    let m0 = group / k_blocks % m_blocks * TILE_M;
    let split = group / k_blocks / m_blocks;
    if (split >= p.splits) {
        return;
    }

    // What this invocation brings: fours mx of rows at pixels px, px + TILE_N/16, …; fours kd of channels at pixels pd, …
    let threads = TILE_M * TILE_N / 64u;
    let mx = m0 + lane % (TILE_M / 4u) * 4u;
    let px = lane / (TILE_M / 4u);
    let kd = k0 + lane % (TILE_N / 4u) * 4u;
    let pd = lane / (TILE_N / 4u);
    let r = row(mx);

    // What it sums: rows 4·tm and TILE_M/2 + 4·tm on, channels 4·tn and TILE_N/2 + 4·tn on.
    let tn = lane % (TILE_N / 8u);
    let tm = lane / (TILE_N / 8u);
    // Of rows i the sums aa and ab, of rows TILE_M/2 + i ba and bb.
#unroll i in 0..4
    var aa${i} = vec4(0.0);
    var ab${i} = vec4(0.0);
    var ba${i} = vec4(0.0);
    var bb${i} = vec4(0.0);
#end

    let first = split * p.chunk;
    let last = min(first + p.chunk, p.batch * p.out_h * p.out_w);
    let sixteen = pixel_of(16u);
#unroll j in 0..4
    let px${j} = px + ${j}u * TILE_N / 16u;
    let pd${j} = pd + ${j}u * TILE_M / 16u;
    var at${j} = pixel_of(first + px${j});
    var x_${j} = vec4(0.0);
    var d_${j} = vec4(0.0);
    if (${j}u * TILE_N < 256u) {
        x_${j} = load_x(r, mx, at${j}, first + px${j} < last);
    }
    if (${j}u * TILE_M < 256u) {
        d_${j} = load_dy(first + pd${j}, last, kd);
    }
#end
    for (var pixel = first; pixel < last; pixel += 16u) {
        workgroupBarrier();
#unroll j in 0..4
        if (${j}u * TILE_N < 256u) {
            tile_x[lane + ${j}u * threads] = x_${j};
        }
        if (${j}u * TILE_M < 256u) {
            tile_dy[lane + ${j}u * threads] = d_${j};
        }
#end
        workgroupBarrier();
        let next = pixel + 16u;
        if (next < last) {
#unroll j in 0..4
            if (${j}u * TILE_N < 256u) {
                at${j} = further(at${j}, sixteen);
                x_${j} = load_x(r, mx, at${j}, next + px${j} < last);
            }
            if (${j}u * TILE_M < 256u) {
                d_${j} = load_dy(next + pd${j}, last, kd);
            }
#end
        }
#unroll q in 0..16
        {
            let va = tile_x[${q}u * TILE_M / 4u + tm];
            let vb = tile_x[${q}u * TILE_M / 4u + TILE_M / 8u + tm];
            let da = tile_dy[${q}u * TILE_N / 4u + tn];
            let db = tile_dy[${q}u * TILE_N / 4u + TILE_N / 8u + tn];
#unroll i in 0..4
            aa${i} = fma(vec4(va[${i}]), da, aa${i});
            ab${i} = fma(vec4(va[${i}]), db, ab${i});
            ba${i} = fma(vec4(vb[${i}]), da, ba${i});
            bb${i} = fma(vec4(vb[${i}]), db, bb${i});
#end
        }
#end
    }

    let m = m0 + 4u * tm;
    let k = k0 + 4u * tn;
#unroll i in 0..4
    store_row(split, m + ${i}u, k, aa${i});
    store_row(split, m + ${i}u, k + TILE_N / 2u, ab${i});
    store_row(split, m + TILE_M / 2u + ${i}u, k, ba${i});
    store_row(split, m + TILE_M / 2u + ${i}u, k + TILE_N / 2u, bb${i});
#end
}
