enable f16;
#import index
// What goes before and after a convolution on cooperative matrices.
//   turn:   the weights of the input gradient, in f16: turned[taps-1-tap, k, c] = w[tap, c, k]
//   pad:    channels up to a multiple of 16, with zeros
//   narrow_sums: of the sums of padded channels those that are wanted, in f32
//   finish: y = bias + residual + Σ_splits partial sums, or y += that, y being f16
// Any sizes.

struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
    to_in_c: u32,  // both rounded up, zeros there
    to_out_c: u32,
}

@group(0) @binding(0) var<storage, read> w: array<elem>;          // [taps, in_c, out_c]
@group(0) @binding(1) var<storage, read_write> turned: array<f16>; // [taps, to_out_c, to_in_c]
@group(0) @binding(2) var<uniform> t: Turn;

// 32 by 32 of a tap, one column of padding against bank conflicts.
var<workgroup> square: array<f32, 1056>;

@compute @workgroup_size(32, 8)
fn turn(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let tap = wid.z * t.in_c * t.out_c;
    let back = (t.taps - 1u - wid.z) * t.to_in_c * t.to_out_c;
#unroll i in 0..4
    let row${i} = at.y + ${i}u * 8u;
    let c${i} = wid.y * 32u + row${i};
    let k${i} = wid.x * 32u + at.x;
    var v${i} = 0.0;
    if (c${i} < t.in_c && k${i} < t.out_c) {
        v${i} = f32(w[tap + c${i} * t.out_c + k${i}]);
    }
#end
#unroll i in 0..4
    square[row${i} * 33u + at.x] = v${i};
#end
    workgroupBarrier();
    let c = wid.y * 32u + at.x;
#unroll i in 0..4
    let to_k${i} = wid.x * 32u + row${i};
    if (c < t.to_in_c && to_k${i} < t.to_out_c) {
        turned[back + to_k${i} * t.to_in_c + c] = f16(square[at.x * 33u + row${i}]);
    }
#end
}

struct Pad {
    rows: u32,   // of each of the blocks read
    cols: u32,
    to_rows: u32,
    to_cols: u32,
    blocks: u32,
}

@group(0) @binding(0) var<storage, read> narrow: array<elem>;    // [blocks, rows, cols]
@group(0) @binding(1) var<storage, read_write> wide: array<f16>; // [blocks, to_rows, to_cols]
@group(0) @binding(2) var<uniform> q: Pad;

@compute @workgroup_size(64)
fn pad(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = i / q.to_cols % q.to_rows;
    let col = i % q.to_cols;
    let block = i / q.to_cols / q.to_rows;
    if (block >= q.blocks) {
        return;
    }
    var v = 0.0;
    if (row < q.rows && col < q.cols) {
        v = f32(narrow[(block * q.rows + row) * q.cols + col]);
    }
    wide[i] = f16(v);
}

struct Narrow {
    rows: u32,       // of dw: taps·in_c
    in_c: u32,
    out_c: u32,
    wide_in_c: u32,  // both rounded up
    wide_out_c: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> sums: array<f32>;     // [taps, wide_in_c, wide_out_c]
@group(0) @binding(1) var<storage, read_write> dw: array<f32>; // [taps, in_c, out_c]
@group(0) @binding(2) var<uniform> n: Narrow;

@compute @workgroup_size(64)
fn narrow_sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let row = i / n.out_c;
    if (row >= n.rows) {
        return;
    }
    var sum = sums[(row / n.in_c * n.wide_in_c + row % n.in_c) * n.wide_out_c + i % n.out_c];
    if (n.accumulate != 0u) {
        sum += dw[i];
    }
    dw[i] = sum;
}

struct Finish {
    rows: u32,         // of y
    out_c: u32,        // of y
    stored_c: u32,     // of partial sums: out_c rounded up
    splits: u32,
    split_rows: u32,   // of the partial sums of a split: all tiles'
    accumulate: u32,
    has_bias: u32,
    has_residual: u32,
    width: u32,        // of the images
    height: u32,
    tile_w: u32,       // pixels of a tile
    tile_h: u32,
    across: u32,       // tiles of a row of tiles
    down: u32,
    together: u32,     // images of a tile beside each other
    unused: u32,
}

@group(0) @binding(0) var<storage, read> partial: array<vec4<f32>>;  // [splits, split_rows, stored_c/4]
@group(0) @binding(1) var<storage, read> bias: array<f32>;           // [out_c]
@group(0) @binding(2) var<storage, read> residual: array<f16>;       // [rows, out_c]
@group(0) @binding(3) var<storage, read_write> y: array<f16>;        // [rows, out_c]
@group(0) @binding(4) var<uniform> p: Finish;

// Where the sums of a row of y stand among a split's.
fn place_of(row: u32) -> u32 {
    let n = row / (p.width * p.height);
    let oy = row / p.width % p.height;
    let column = n % p.together * 8u + row % p.width;
    let tile = (n / p.together * p.down + oy / p.tile_h) * p.across + column / p.tile_w;
    return (tile * p.tile_h + oy % p.tile_h) * p.tile_w + column % p.tile_w;
}

// Four channels an invocation.
@compute @workgroup_size(64)
fn finish(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let fours = (p.out_c + 3u) / 4u;
    let row = i / fours;
    if (row >= p.rows) {
        return;
    }
    let k = i % fours * 4u;
    var sum = vec4(0.0);
    let start = place_of(row) * (p.stored_c / 4u) + k / 4u;
    let stride = p.split_rows * (p.stored_c / 4u);
    var split = 0u;
    for (; split + 3u < p.splits; split += 4u) {
        // Four loads under way at once.
#unroll i in 0..4
        let part${i} = partial[(split + ${i}u) * stride + start];
#end
#unroll i in 0..4
        sum += part${i};
#end
    }
    for (; split < p.splits; split++) {
        sum += partial[split * stride + start];
    }
    for (var j = 0u; j < min(4u, p.out_c - k); j++) {
        var v = sum[j];
        let to = row * p.out_c + k + j;
        if (p.has_bias != 0u) {
            v += bias[k + j];
        }
        if (p.has_residual != 0u) {
            v += f32(residual[to]);
        }
        if (p.accumulate != 0u) {
            v += f32(y[to]);
        }
        y[to] = f16(v);
    }
}
