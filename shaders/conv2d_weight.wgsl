#import conv2d_params
#import index
// Gradients of a convolution's parameters, one invocation an element and split.
//   weights: dw[ky,kx,c,k] = Σ_{n,oy,ox} x[n, oy·stride + ky - pad, ox·stride + kx - pad, c]·dy[n,oy,ox,k]
//   bias:    db[k] = Σ_{n,oy,ox} dy[n,oy,ox,k]
// Split s sums pixels [s·chunk, (s+1)·chunk); `reduce` adds the splits in their order.
// Any N, H, W, C, K. Laws: sums are f32, in the order of the pixels within a split.

@group(0) @binding(0) var<storage, read> x: array<elem>;       // [N, in_h, in_w, in_c]
@group(0) @binding(1) var<storage, read> dy: array<elem>;      // [N, out_h, out_w, out_c]
@group(0) @binding(2) var<storage, read_write> dw: array<f32>; // [splits, kernel_h, kernel, in_c, out_c]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let taps = p.kernel_h * p.kernel;
    let count = taps * p.in_c * p.out_c;
    if (i >= p.splits * count) {
        return;
    }
    let k = i % p.out_c;
    let c = i / p.out_c % p.in_c;
    let tap = i / (p.out_c * p.in_c) % taps;
    let ky = tap / p.kernel;
    let kx = tap % p.kernel;
    let first = i / count * p.chunk;
    let last = min(first + p.chunk, p.batch * p.out_h * p.out_w);
    var sum = 0.0;
    for (var pixel = first; pixel < last; pixel++) {
        let n = pixel / (p.out_h * p.out_w);
        // Above or left of the image wraps past any bound.
        let iy = pixel / p.out_w % p.out_h * p.step + ky - p.pad_h;
        let ix = pixel % p.out_w * p.step + kx - p.pad;
        if (iy < p.in_h && ix < p.in_w) {
            let source = ((n * p.in_h + iy) * p.in_w + ix) * p.in_c + c;
            sum += f32(x[source]) * f32(dy[pixel * p.out_c + k]);
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
    chunk: u32,
    splits: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<elem>;    // [rows, out_c]
@group(0) @binding(1) var<storage, read_write> db: array<f32>; // [splits, out_c]
@group(0) @binding(2) var<uniform> q: Columns;

@compute @workgroup_size(64)
fn bias(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.splits * q.out_c) {
        return;
    }
    let k = i % q.out_c;
    let first = i / q.out_c * q.chunk;
    let last = min(first + q.chunk, q.rows);
    var sum = 0.0;
    var row = first;
    // Eight are asked for before the first is added: of few channels the time is that of waiting.
    for (; row + 7u < last; row += 8u) {
#unroll j in 0..8
        let row${j} = f32(rows[(row + ${j}u) * q.out_c + k]);
#end
#unroll j in 0..8
        sum += row${j};
#end
    }
    for (; row < last; row++) {
        sum += f32(rows[row * q.out_c + k]);
    }
    if (q.accumulate != 0u) {
        sum += db[i];
    }
    db[i] = sum;
}

struct Reduce {
    count: u32,
    splits: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<f32>;     // [splits, count]
@group(0) @binding(1) var<storage, read_write> total: array<f32>; // [count]
@group(0) @binding(2) var<uniform> r: Reduce;

@compute @workgroup_size(64)
fn reduce(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= r.count) {
        return;
    }
    var sum = 0.0;
    var split = 0u;
    // Eight are asked for before the first is added: of few outputs the time is that of waiting.
    for (; split + 7u < r.splits; split += 8u) {
#unroll j in 0..8
        let part${j} = partial[(split + ${j}u) * r.count + i];
#end
#unroll j in 0..8
        sum += part${j};
#end
    }
    for (; split < r.splits; split++) {
        sum += partial[split * r.count + i];
    }
    if (r.accumulate != 0u) {
        sum += total[i];
    }
    total[i] = sum;
}
