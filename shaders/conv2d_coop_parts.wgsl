enable f16;
#import index
// What goes before and after a convolution on cooperative matrices.
//   turn:   the weights of the input gradient, in f16: turned[taps-1-tap, k, c] = w[tap, c, k]
//   finish: y = bias + Σ_splits partial sums, or y += that, y being f16
// Any sizes for turn, out_c a multiple of 8 for finish.

struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
}

@group(0) @binding(0) var<storage, read> w: array<elem>;          // [taps, in_c, out_c]
@group(0) @binding(1) var<storage, read_write> turned: array<f16>; // [taps, out_c, in_c]
@group(0) @binding(2) var<uniform> t: Turn;

// 32 by 32 of a tap, one column of padding against bank conflicts.
var<workgroup> square: array<f32, 1056>;

@compute @workgroup_size(32, 8)
fn turn(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let tap = wid.z * t.in_c * t.out_c;
    let back = (t.taps - 1u - wid.z) * t.in_c * t.out_c;
    for (var row = at.y; row < 32u; row += 8u) {
        let c = wid.y * 32u + row;
        let k = wid.x * 32u + at.x;
        if (c < t.in_c && k < t.out_c) {
            square[row * 33u + at.x] = f32(w[tap + c * t.out_c + k]);
        }
    }
    workgroupBarrier();
    for (var row = at.y; row < 32u; row += 8u) {
        let k = wid.x * 32u + row;
        let c = wid.y * 32u + at.x;
        if (c < t.in_c && k < t.out_c) {
            turned[back + k * t.in_c + c] = f16(square[at.x * 33u + row]);
        }
    }
}

struct Finish {
    rows: u32,   // of y
    stride: u32, // of partial sums: rows rounded up to tiles
    out_c: u32,
    splits: u32,
    accumulate: u32,
    has_bias: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<vec4<f32>>; // [splits, stride, out_c/4]
@group(0) @binding(1) var<storage, read> bias: array<vec4<f32>>;    // [out_c/4]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f16>>; // [rows, out_c/4]
@group(0) @binding(3) var<uniform> p: Finish;

@compute @workgroup_size(64)
fn finish(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let fours = p.out_c / 4u;
    if (i >= p.rows * fours) {
        return;
    }
    var sum = vec4(0.0);
    if (p.has_bias != 0u) {
        sum = bias[i % fours];
    }
    for (var split = 0u; split < p.splits; split++) {
        sum += partial[split * p.stride * fours + i];
    }
    if (p.accumulate != 0u) {
        sum += vec4<f32>(y[i]);
    }
    y[i] = vec4<f16>(sum);
}
