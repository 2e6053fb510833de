#import conv2d_params
#import index
// Weight gradient of a convolution (see conv2d_weight.wgsl), for software adapters: 8 input x 16 output channels of one
// tap an invocation in registers, no workgroup memory, no barrier.
// Split s sums pixels [s·chunk, (s+1)·chunk) into dw[s]; `reduce` of conv2d_weight.wgsl adds the splits.
// Any N, H, W, C, K; FOURS says that in_c and out_c are multiples of 4 and lets loads be four wide.
// Laws: sums are f32, in the order of the pixels.

override FOURS: bool = true;

// x and dy are bound twice, to be read by fours or one by one.
@group(0) @binding(0) var<storage, read> x4: array<vec4<elem>>;  // [N, in_h, in_w, in_c/4]
@group(0) @binding(1) var<storage, read> x1: array<elem>;        // [N, in_h, in_w, in_c]
@group(0) @binding(2) var<storage, read> dy4: array<vec4<elem>>; // [N, out_h, out_w, out_c/4]
@group(0) @binding(3) var<storage, read> dy1: array<elem>;       // [N, out_h, out_w, out_c]
@group(0) @binding(4) var<storage, read_write> dw: array<f32>;   // [splits, kernel_h, kernel, in_c, out_c]
@group(0) @binding(5) var<uniform> p: Params;

// Past the last channel these two read another pixel's, whose sums are not stored.

fn load_x(i: u32) -> vec4<f32> {
    if (FOURS) {
        return vec4<f32>(x4[i / 4u]);
    }
    return vec4(f32(x1[i]), f32(x1[i + 1u]), f32(x1[i + 2u]), f32(x1[i + 3u]));
}

fn load_dy(i: u32) -> vec4<f32> {
    if (FOURS) {
        return vec4<f32>(dy4[i / 4u]);
    }
    return vec4(f32(dy1[i]), f32(dy1[i + 1u]), f32(dy1[i + 2u]), f32(dy1[i + 3u]));
}

// Column j is v[j]·d: 4 input by 4 output channels.
fn outer(v: vec4<f32>, d: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(v.x * d, v.y * d, v.z * d, v.w * d);
}

// Output channels 4k … 4k+3 of a row of dw.
fn store_row(row: u32, k: u32, sum: vec4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if (4u * k + j < p.out_c) {
            let at = row * p.out_c + 4u * k + j;
            dw[at] = sum[j] + select(0.0, dw[at], p.accumulate != 0u);
        }
    }
}

// Input channels 4c … 4c+3 of the tap at row `base`, output channels 4k … 4k+3.
fn store(base: u32, c: u32, k: u32, sum: mat4x4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if (4u * c + j < p.in_c) {
            store_row(base + 4u * c + j, k, sum[j]);
        }
    }
}

@compute @workgroup_size(8)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c_blocks = (p.in_c + 7u) / 8u;
    let k_blocks = (p.out_c + 15u) / 16u;
    let taps = p.kernel_h * p.kernel;
    let tile_groups = (taps * c_blocks * k_blocks + 7u) / 8u;
    let group = linear_group(wid, groups);
    let split = group / tile_groups;
    let tile = group % tile_groups * 8u + lane;
    let k = tile % k_blocks * 4u; // in fours
    let c = tile / k_blocks % c_blocks * 2u;
    let tap = tile / (k_blocks * c_blocks);
    let ky = tap / p.kernel;
    let kx = tap % p.kernel;

    var a0 = mat4x4<f32>(); var a1 = mat4x4<f32>(); var a2 = mat4x4<f32>(); var a3 = mat4x4<f32>();
    var b0 = mat4x4<f32>(); var b1 = mat4x4<f32>(); var b2 = mat4x4<f32>(); var b3 = mat4x4<f32>();

    let first = split * p.chunk;
    let last = min(first + p.chunk, p.batch * p.out_h * p.out_w);
    var ox = first % p.out_w;
    var oy = first / p.out_w % p.out_h;
    var n = first / (p.out_w * p.out_h);
    for (var pixel = first; pixel < last; pixel++) {
        // Above or left of the image wraps past any bound.
        let iy = oy * p.step + ky - p.pad_h;
        let ix = ox * p.step + kx - p.pad;
        let inside = iy < p.in_h && ix < p.in_w;
        let i = select(0u, ((n * p.in_h + iy) * p.in_w + ix) * p.in_c, inside) + 4u * c;
        let va = select(vec4(0.0), load_x(i), inside);
        let vb = select(vec4(0.0), load_x(i + 4u), inside);
        let o = pixel * p.out_c + 4u * k;
        let d0 = load_dy(o);
        let d1 = load_dy(o + 4u);
        let d2 = load_dy(o + 8u);
        let d3 = load_dy(o + 12u);
        a0 += outer(va, d0); a1 += outer(va, d1); a2 += outer(va, d2); a3 += outer(va, d3);
        b0 += outer(vb, d0); b1 += outer(vb, d1); b2 += outer(vb, d2); b3 += outer(vb, d3);
        ox++;
        if (ox == p.out_w) {
            ox = 0u;
            oy++;
            if (oy == p.out_h) {
                oy = 0u;
                n++;
            }
        }
    }

    if (tap < taps) {
        let base = (split * taps + tap) * p.in_c;
        store(base, c, k, a0); store(base, c, k + 1u, a1); store(base, c, k + 2u, a2); store(base, c, k + 3u, a3);
        store(base, c + 1u, k, b0); store(base, c + 1u, k + 1u, b1);
        store(base, c + 1u, k + 2u, b2); store(base, c + 1u, k + 3u, b3);
    }
}
