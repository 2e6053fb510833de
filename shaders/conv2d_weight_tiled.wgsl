#import conv2d_params
#import index
// Weight gradient of a convolution (see conv2d_weight.wgsl): GEMM of [taps·in_c, pixels] by [pixels, out_c] through
// workgroup memory, TILE_M rows (tap, c) by TILE_N output channels a workgroup, 8 by 8 an invocation, 16 pixels a step.
// Split s sums pixels [s·chunk, (s+1)·chunk) into dw[s]; `reduce` of conv2d_weight.wgsl adds the splits.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide.
// Laws: sums are f32, in the order of the pixels, whatever the tile. 16 KiB of workgroup memory at 128x128.

override TILE_M: u32 = 64; // rows: 64 or 128
override TILE_N: u32 = 64; // output channels: 64 or 128
override FOURS: bool = true;

// x and dy are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;  // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;        // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> dy4: array<vec4<elem>>; // [N, out_h, out_w, out_c/4]
@group(0) @binding(3) var<storage, read> dy1: array<elem>;       // [N, out_h, out_w, out_c]
@group(0) @binding(4) var<storage, read_write> dw: array<f32>;   // [splits, kernel·kernel·in_c, out_c]
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
        tap < p.kernel * p.kernel,
        tap / p.kernel - p.pad,
        tap % p.kernel - p.pad,
        index % p.in_c,
    );
}

// Where in x the row's channel of the input pixel under output pixel `index` stands, and whether it is in the image.
struct Place {
    inside: bool,
    at: u32,
}

fn place(r: Row, index: u32) -> Place {
    let n = index / (p.out_w * p.out_h);
    let iy = index / p.out_w % p.out_h * p.step + r.dy;
    let ix = index % p.out_w * p.step + r.dx;
    return Place(
        r.valid && iy < p.in_h && ix < p.in_w,
        ((n * p.in_h + iy) * p.in_w + ix) * p.in_c + r.c,
    );
}

// Rows m … m+3 at output pixel `index`, zero outside.
fn load_x(first: Row, m: u32, index: u32, last: u32) -> vec4<f32> {
    var v = vec4(0.0);
    if (index >= last) {
        return v;
    }
    if (FOURS) {
        let from_x = place(first, index);
        if (from_x.inside) {
            v = vec4<f32>(x4[from_x.at / 4u]);
        }
        return v;
    }
    for (var j = 0u; j < 4u; j++) {
        let from_x = place(row(m + j), index);
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

// Column j is v[j]·d: 4 rows by 4 output channels.
fn outer(v: vec4<f32>, d: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(v.x * d, v.y * d, v.z * d, v.w * d);
}

fn store_row(split: u32, m: u32, k: u32, sum: vec4<f32>) {
    let rows = p.kernel * p.kernel * p.in_c;
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

fn store(split: u32, m: u32, k: u32, sum: mat4x4<f32>) {
    store_row(split, m, k, sum[0]);
    store_row(split, m + 1u, k, sum[1]);
    store_row(split, m + 2u, k, sum[2]);
    store_row(split, m + 3u, k, sum[3]);
}

@compute @workgroup_size(TILE_M * TILE_N / 64)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let m_blocks = (p.kernel * p.kernel * p.in_c + TILE_M - 1u) / TILE_M;
    let k_blocks = (p.out_c + TILE_N - 1u) / TILE_N;
    let group = linear_group(wid, groups);
    let k0 = group % k_blocks * TILE_N;
    let m0 = group / k_blocks % m_blocks * TILE_M;
    let split = group / k_blocks / m_blocks;

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
    var a0 = mat4x4<f32>();
    var a1 = mat4x4<f32>();
    var b0 = mat4x4<f32>();
    var b1 = mat4x4<f32>();

    let first = split * p.chunk;
    let last = min(first + p.chunk, p.batch * p.out_h * p.out_w);
    for (var pixel = first; pixel < last; pixel += 16u) {
        let x_0 = load_x(r, mx, pixel + px, last);
        let x_1 = load_x(r, mx, pixel + px + TILE_N / 16u, last);
        var x_2 = vec4(0.0);
        var x_3 = vec4(0.0);
        if (TILE_N == 64u) {
            x_2 = load_x(r, mx, pixel + px + TILE_N / 8u, last);
            x_3 = load_x(r, mx, pixel + px + 3u * TILE_N / 16u, last);
        }
        let d_0 = load_dy(pixel + pd, last, kd);
        let d_1 = load_dy(pixel + pd + TILE_M / 16u, last, kd);
        var d_2 = vec4(0.0);
        var d_3 = vec4(0.0);
        if (TILE_M == 64u) {
            d_2 = load_dy(pixel + pd + TILE_M / 8u, last, kd);
            d_3 = load_dy(pixel + pd + 3u * TILE_M / 16u, last, kd);
        }
        workgroupBarrier();
        tile_x[lane] = x_0;
        tile_x[lane + threads] = x_1;
        tile_dy[lane] = d_0;
        tile_dy[lane + threads] = d_1;
        if (TILE_N == 64u) {
            tile_x[lane + 2u * threads] = x_2;
            tile_x[lane + 3u * threads] = x_3;
        }
        if (TILE_M == 64u) {
            tile_dy[lane + 2u * threads] = d_2;
            tile_dy[lane + 3u * threads] = d_3;
        }
        workgroupBarrier();
        for (var q = 0u; q < 16u; q++) {
            let va = tile_x[q * TILE_M / 4u + tm];
            let vb = tile_x[q * TILE_M / 4u + TILE_M / 8u + tm];
            let da = tile_dy[q * TILE_N / 4u + tn];
            let db = tile_dy[q * TILE_N / 4u + TILE_N / 8u + tn];
            a0 += outer(va, da);
            a1 += outer(va, db);
            b0 += outer(vb, da);
            b1 += outer(vb, db);
        }
    }

    let m = m0 + 4u * tm;
    let k = k0 + 4u * tn;
    store(split, m, k, a0);
    store(split, m, k + TILE_N / 2u, a1);
    store(split, m + TILE_M / 2u, k, b0);
    store(split, m + TILE_M / 2u, k + TILE_N / 2u, b1);
}
