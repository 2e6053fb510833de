#import index
// What stands around the products of a 3x3 convolution by Winograd's F(4x4, 3x3): four by four outputs of six by six inputs in
// 36 multiplications instead of 144.  y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A  (Lavin and Gray, arXiv 1509.09308, with the points
// 0, ±3/4, ±3/2 and infinity, whose rounding errors are a third of those of 0, ±1, ±2; `winograd.rs` has the matrices).
//   weights: u[position, c, k] = G w[:, :, c, k] Gᵀ        input: v[tile, position, c] = Bᵀ d B
//   output:  y = bias + residual + Aᵀ m A                  m[position, tile, k] = Σ_c v·u is the product kernel's
// Rows of Bᵀ are scaled by powers of two so that no value grows past f16's range, and those of G by their inverses. Two
// channels an invocation, in f32; x, w, u, v, m and y are f16.
//
// In bounds, for the compiler adds no checks here: an invocation past the last returns, one of x reads pixels inside of the
// image alone, and heights and widths are multiples of four; all else follows from the index by the lengths below.

struct Tiles {
    tiles: u32,      // of all images
    across: u32,     // of a row of tiles
    of_image: u32,
    rows: u32,       // of m at a position: the tiles, rounded up
    pairs: u32,      // of channels, of what is written
    in_pairs: u32,   // of weights: the channels of x
    has_bias: u32,
    has_residual: u32,
}

@group(0) @binding(0) var<storage, read> given: array<u32>;         // w [9, in, out], x [N, H, W, C] or m: pairs of channels
@group(0) @binding(1) var<storage, read_write> made: array<u32>;     // u [36, in, out] or v [tiles, 36, C]
@group(0) @binding(2) var<uniform> weights_p: Tiles;

@group(0) @binding(1) var<storage, read> bias: array<vec2<f32>>;    // [K/2]
@group(0) @binding(2) var<storage, read> residual: array<u32>;      // [N, H, W, K/2]
@group(0) @binding(3) var<storage, read_write> y: array<u32>;       // [N, H, W, K/2]
@group(0) @binding(4) var<uniform> p: Tiles;

@compute @workgroup_size(64)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = weights_p;
    let all = q.in_pairs * 2u * q.pairs;
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= all) {
        return;
    }
    // Columns, then rows.
#unroll j in 0..3
    let g0_${j} = unpack2x16float(given[${j}u * all + i]);
    let g1_${j} = unpack2x16float(given[(3u + ${j}u) * all + i]);
    let g2_${j} = unpack2x16float(given[(6u + ${j}u) * all + i]);
    let even_${j} = g0_${j} + 0.5625 * g2_${j};
    let odd_${j} = 0.75 * g1_${j};
    let far_even_${j} = g0_${j} + 2.25 * g2_${j};
    let far_odd_${j} = 1.5 * g1_${j};
    let t0_${j} = EDGE * g0_${j};
    let t1_${j} = NEAR * (even_${j} + odd_${j});
    let t2_${j} = NEAR * (even_${j} - odd_${j});
    let t3_${j} = FAR * (far_even_${j} + far_odd_${j});
    let t4_${j} = FAR * (far_even_${j} - far_odd_${j});
    let t5_${j} = 8.0 * g2_${j};
#end
#unroll a in 0..6
    {
        let even = t${a}_0 + 0.5625 * t${a}_2;
        let odd = 0.75 * t${a}_1;
        let far_even = t${a}_0 + 2.25 * t${a}_2;
        let far_odd = 1.5 * t${a}_1;
        let at = ${a}u * 6u * all + i;
        made[at] = pack2x16float(EDGE * t${a}_0);
        made[at + all] = pack2x16float(NEAR * (even + odd));
        made[at + 2u * all] = pack2x16float(NEAR * (even - odd));
        made[at + 3u * all] = pack2x16float(FAR * (far_even + far_odd));
        made[at + 4u * all] = pack2x16float(FAR * (far_even - far_odd));
        made[at + 5u * all] = pack2x16float(8.0 * t${a}_2);
    }
#end
}

// G's factors over Bᵀ's scales.
const EDGE: f32 = 512.0 / 81.0;
const NEAR: f32 = -1024.0 / 243.0;
const FAR: f32 = 128.0 / 243.0;

// Two channels of a pixel, zeros outside of the image.
fn pixel(row: u32, column: u32, n: u32, pair: u32) -> vec2<f32> {
    let q = weights_p;
    let width = q.across * 4u;
    let height = q.of_image / q.across * 4u;
    // Above or left of the image wraps past any bound.
    if (row >= height || column >= width) {
        return vec2(0.0);
    }
    return unpack2x16float(given[((n * height + row) * width + column) * q.pairs + pair]);
}

@compute @workgroup_size(64)
fn input(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = weights_p;
    let i = linear_index(wid, groups, 64u, lane);
    let tile = i / q.pairs;
    if (tile >= q.tiles) {
        return;
    }
    let pair = i % q.pairs;
    let n = tile / q.of_image;
    let row = tile % q.of_image / q.across * 4u - 1u;
    let column = tile % q.across * 4u - 1u;
#unroll j in 0..6
#unroll a in 0..6
    let d${a}_${j} = pixel(row + ${a}u, column + ${j}u, n, pair);
#end
#end
#unroll j in 0..6
    let even_${j} = d4_${j} - 2.25 * d2_${j};
    let odd_${j} = 0.75 * (d3_${j} - 2.25 * d1_${j});
    let far_even_${j} = d4_${j} - 0.5625 * d2_${j};
    let far_odd_${j} = 1.5 * (d3_${j} - 0.5625 * d1_${j});
    let t0_${j} = 0.125 * (1.265625 * d0_${j} - 2.8125 * d2_${j} + d4_${j});
    let t1_${j} = 0.125 * (even_${j} + odd_${j});
    let t2_${j} = 0.125 * (even_${j} - odd_${j});
    let t3_${j} = 0.25 * (far_even_${j} + far_odd_${j});
    let t4_${j} = 0.25 * (far_even_${j} - far_odd_${j});
    let t5_${j} = 0.125 * (1.265625 * d1_${j} - 2.8125 * d3_${j} + d5_${j});
#end
#unroll a in 0..6
    {
        let even = t${a}_4 - 2.25 * t${a}_2;
        let odd = 0.75 * (t${a}_3 - 2.25 * t${a}_1);
        let far_even = t${a}_4 - 0.5625 * t${a}_2;
        let far_odd = 1.5 * (t${a}_3 - 0.5625 * t${a}_1);
        let at = (tile * 36u + ${a}u * 6u) * q.pairs + pair;
        made[at] = pack2x16float(0.125 * (1.265625 * t${a}_0 - 2.8125 * t${a}_2 + t${a}_4));
        made[at + q.pairs] = pack2x16float(0.125 * (even + odd));
        made[at + 2u * q.pairs] = pack2x16float(0.125 * (even - odd));
        made[at + 3u * q.pairs] = pack2x16float(0.25 * (far_even + far_odd));
        made[at + 4u * q.pairs] = pack2x16float(0.25 * (far_even - far_odd));
        made[at + 5u * q.pairs] = pack2x16float(0.125 * (1.265625 * t${a}_1 - 2.8125 * t${a}_3 + t${a}_5));
    }
#end
}

// Two channels of an output.
fn put(row: u32, column: u32, n: u32, pair: u32, sum: vec2<f32>) {
    let width = p.across * 4u;
    let at = ((n * (p.of_image / p.across * 4u) + row) * width + column) * p.pairs + pair;
    var v = sum;
    if (p.has_bias != 0u) {
        v += bias[pair];
    }
    if (p.has_residual != 0u) {
        v += unpack2x16float(residual[at]);
    }
    y[at] = pack2x16float(v);
}

@compute @workgroup_size(64)
fn output(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let tile = i / p.pairs;
    if (tile >= p.tiles) {
        return;
    }
    let pair = i % p.pairs;
    let n = tile / p.of_image;
    let row = tile % p.of_image / p.across * 4u;
    let column = tile % p.across * 4u;
#unroll j in 0..6
#unroll a in 0..6
    let m${a}_${j} = unpack2x16float(given[((${a}u * 6u + ${j}u) * p.rows + tile) * p.pairs + pair]);
#end
#end
#unroll j in 0..6
    let sum_${j} = m1_${j} + m2_${j};
    let gap_${j} = m1_${j} - m2_${j};
    let far_sum_${j} = m3_${j} + m4_${j};
    let far_gap_${j} = m3_${j} - m4_${j};
    let t0_${j} = m0_${j} + sum_${j} + far_sum_${j};
    let t1_${j} = 0.75 * gap_${j} + 1.5 * far_gap_${j};
    let t2_${j} = 0.5625 * sum_${j} + 2.25 * far_sum_${j};
    let t3_${j} = 0.421875 * gap_${j} + 3.375 * far_gap_${j} + m5_${j};
#end
#unroll a in 0..4
    {
        let sum = t${a}_1 + t${a}_2;
        let gap = t${a}_1 - t${a}_2;
        let far_sum = t${a}_3 + t${a}_4;
        let far_gap = t${a}_3 - t${a}_4;
        put(row + ${a}u, column, n, pair, t${a}_0 + sum + far_sum);
        put(row + ${a}u, column + 1u, n, pair, 0.75 * gap + 1.5 * far_gap);
        put(row + ${a}u, column + 2u, n, pair, 0.5625 * sum + 2.25 * far_sum);
        put(row + ${a}u, column + 3u, n, pair, 0.421875 * gap + 3.375 * far_gap + t${a}_5);
    }
#end
}
