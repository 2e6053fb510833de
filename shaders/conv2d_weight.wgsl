#import index
// Gradients of a convolution's parameters, one invocation an element.
//   weights: dw[ky,kx,c,k] = Σ_{n,oy,ox} x[n, oy·stride + ky - pad, ox·stride + kx - pad, c]·dy[n,oy,ox,k]
//   bias:    db[k] = Σ_{n,oy,ox} dy[n,oy,ox,k]
// Any N, H, W, C, K. Laws: sums are f32, in the order of the pixels.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel: u32,
    stride: u32,
    spread: u32,
    pad: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [N, in_h, in_w, in_c]
@group(0) @binding(1) var<storage, read> dy: array<elem>;      // [N, out_h, out_w, out_c]
@group(0) @binding(2) var<storage, read_write> dw: array<f32>; // [kernel, kernel, in_c, out_c]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.kernel * p.kernel * p.in_c * p.out_c) {
        return;
    }
    let k = i % p.out_c;
    let c = i / p.out_c % p.in_c;
    let tap = i / (p.out_c * p.in_c);
    let ky = tap / p.kernel;
    let kx = tap % p.kernel;
    var sum = 0.0;
    for (var n = 0u; n < p.batch; n++) {
        for (var oy = 0u; oy < p.out_h; oy++) {
            let iy = oy * p.stride + ky - p.pad; // above the image: wraps past in_h
            if (iy >= p.in_h) {
                continue;
            }
            for (var ox = 0u; ox < p.out_w; ox++) {
                let ix = ox * p.stride + kx - p.pad;
                if (ix < p.in_w) {
                    let source = ((n * p.in_h + iy) * p.in_w + ix) * p.in_c + c;
                    let at = ((n * p.out_h + oy) * p.out_w + ox) * p.out_c + k;
                    sum += f32(x[source]) * f32(dy[at]);
                }
            }
        }
    }
    if (p.accumulate != 0u) {
        sum += dw[i];
    }
    dw[i] = sum;
}

struct Columns {
    rows: u32,
    out_c: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<elem>;    // [rows, out_c]
@group(0) @binding(1) var<storage, read_write> db: array<f32>; // [out_c]
@group(0) @binding(2) var<uniform> q: Columns;

@compute @workgroup_size(64)
fn bias(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let k = linear_index(wid, groups, 64u, lane);
    if (k >= q.out_c) {
        return;
    }
    var sum = 0.0;
    for (var row = 0u; row < q.rows; row++) {
        sum += f32(rows[row * q.out_c + k]);
    }
    if (q.accumulate != 0u) {
        sum += db[k];
    }
    db[k] = sum;
}
