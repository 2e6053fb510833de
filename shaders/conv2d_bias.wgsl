// Bias gradient of a convolution: column sums.  db[k] = Σ_rows dy[row, k], rows being all pixels of all images.
// Split s sums rows [s·chunk, (s+1)·chunk); `reduce` of conv2d_weight.wgsl adds the splits. out_c is a multiple of 4.
// Laws: sums are f32; each of 16 invocations takes every sixteenth row, then their sums are added in order. 4 KiB of
// workgroup memory.

struct Params {
    rows: u32,
    out_c: u32,
    accumulate: u32,
    chunk: u32,
    splits: u32,
}

@group(0) @binding(0) var<storage, read> dy: array<vec4<elem>>;      // [rows, out_c/4]
@group(0) @binding(1) var<storage, read_write> db: array<vec4<f32>>; // [splits, out_c/4]
@group(0) @binding(2) var<uniform> p: Params;

var<workgroup> sums: array<vec4<f32>, 256>;

@compute @workgroup_size(16, 16)
fn columns(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let fours = p.out_c / 4u;
    let k = wid.x * 16u + lane.x;
    let first = wid.y * p.chunk;
    let last = min(first + p.chunk, p.rows);
    var sum = vec4(0.0);
    if (k < fours) {
        var row = first + lane.y;
        // Eight rows are asked for before the first is added: the time is that of waiting for memory.
        for (; row + 112u < last; row += 128u) {
#unroll i in 0..8
            let dy${i} = vec4<f32>(dy[(row + ${i}u * 16u) * fours + k]);
#end
#unroll i in 0..8
            sum += dy${i};
#end
        }
        for (; row < last; row += 16u) {
            sum += vec4<f32>(dy[row * fours + k]);
        }
    }
    sums[lane.y * 16u + lane.x] = sum;
    workgroupBarrier();
    if (lane.y > 0u || k >= fours) {
        return;
    }
    for (var i = 1u; i < 16u; i++) {
        sum += sums[i * 16u + lane.x];
    }
    let at = wid.y * fours + k;
    if (p.accumulate != 0u) {
        sum += db[at];
    }
    db[at] = sum;
}
