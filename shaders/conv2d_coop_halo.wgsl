#import conv2d_params
enable wgpu_cooperative_matrix;
#import coop_write
// 3x3 convolution, stride 1, on cooperative matrices; also the input gradient, with turned weights.
//   y[n,oy,ox,k] = bias[k] + Σ_{c,ky,kx} x[n, oy+ky-ABOVE, ox+kx-1, c]·w[ky,kx,c,k]
// A workgroup makes TILE_H rows of TILE_W pixels. Of 16 channels at a time it holds their pixels with a margin around
// them, and all nine taps read from there. A matrix is 16 pixels of a row, a subgroup's matrices lie below each other: so
// what it has read for one ky serves the two others, a row further up. Weights lie there for the three taps of a kx, or for
// all nine; what the next 16 channels need is fetched while these are multiplied.
// With PAIRS images are 8 pixels wide and two share a matrix; each kx then has its own copy of the pixels, shifted, so that
// no margin lies between the two.
// Any N, H and W; in_c and out_c are multiples of 16. x, w and y are f16, sums f32, in the order of channels by 16, kx, ky,
// channels, whatever the tile. With SPLIT, split s sums chunks [s·chunk, (s+1)·chunk) of 16 channels and y is partial sums
// [splits, tiles, TILE_H, TILE_W, out_c] in f32, which `finish` of conv2d_coop_parts.wgsl adds.
//
// In bounds, for the compiler adds no checks here: a load of x is of a pixel tested to be inside and of channels below
// in_c; a load of w is of a column tested to be below out_c (else of the first), of nine taps and in_c channels; a store to
// y is of a pixel tested to be inside (with SPLIT: of a tile and a split there is room for) and a column below out_c; the
// tile holds HALO pixels and 16·TAPS rows of weights.

override WIDTH: u32 = 32u;   // of the images
override HEIGHT: u32 = 32u;
override OUT_HEIGHT: u32 = 32u; // of y; with other rows of padding than one above and one below not that of x
override ABOVE: u32 = 1u;    // rows of padding
override BESIDE: u32 = 1u;   // subgroups of which each has other columns of the tile; DOWN / BESIDE have other rows
override PAIRS: bool = false;
override MARGIN: u32 = 2u;   // pixels of a row's margins: 0 with PAIRS
override TAPS: u32 = 3u;     // taps of which weights are held: 3, or 9 (not with PAIRS)
override SPLIT: bool = false;

override TILE_W: u32 = 16u * BESIDE;
override TILE_H: u32 = ROWS * DOWN / BESIDE;
override LINE: u32 = TILE_W + MARGIN;
override HALO: u32 = (TILE_H + 2u) * LINE;         // pixels held
override X_EIGHTS: u32 = 2u * HALO;
override W_EIGHTS: u32 = 48u * (TILE_N / 8u);      // of a kx
override W_START: u32 = 3u * HALO;                 // a pixel takes two eights and one of padding

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;        // [N, H, W, in_c/8]
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;        // [9, in_c, out_c/8]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;     // [out_c/4]
@group(0) @binding(3) var<storage, read> residual: array<vec4<u32>>; // [N, H, W, out_c/8]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;  // [N, H, W, out_c/8], or partial sums
@group(0) @binding(5) var<uniform> p: Params;
override TILE_SIZE: u32 = 2u * (W_START + 16u * TAPS * N_STRIDE);
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;

// Eight channels of a held pixel; with PAIRS in the copy for kx, where what lies outside of its image becomes a zero.
fn put_x(at: u32, kx: u32, v: vec4<u32>) {
    var pixel = at / 2u;
    var content = v;
    if (PAIRS) {
        let to = pixel % 8u + 1u - kx;
        content = select(vec4<u32>(), v, to < 8u);
        pixel = pixel - pixel % 8u + to % 8u;
    }
    put(pixel * 3u + at % 2u, content);
}

@compute @workgroup_size(THREADS)
fn halo(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let across = select((WIDTH + TILE_W - 1u) / TILE_W, 1u, PAIRS);
    let down = (OUT_HEIGHT + TILE_H - 1u) / TILE_H;
    let together = select(1u, TILE_W / 8u, PAIRS); // images of a tile
    let blocks = (OUT_C + TILE_N - 1u) / TILE_N;
    let tiles = across * down * ((p.batch + together - 1u) / together);
    let group = wid.y * groups.x + wid.x;
    let k0 = group % blocks * TILE_N;
    let place = group / blocks % tiles;
    let there = group / blocks / tiles < p.splits;
    let split = min(group / blocks / tiles, p.splits - 1u);
    let left = place % across * TILE_W;
    let top = place / across % down * TILE_H;
    let image = place / (across * down) * together;
    let x_eights = IN_C / 8u;
    let w_eights = OUT_C / 8u;
    let first = split * p.chunk;
    let last = min(first + p.chunk, IN_C / 16u);

    // What this invocation brings of x: up to six eights, the same of every 16 channels.
#unroll i in 0..6
    var x${i} = vec4<u32>();
    var later${i} = vec4<u32>();
    let x_at${i} = thread + ${i}u * THREADS;
    let col${i} = x_at${i} / 2u % LINE;
    // Above or left of the image wraps past any bound.
    let iy${i} = top + x_at${i} / 2u / LINE - ABOVE;
    let ix${i} = select(left + col${i} - 1u, col${i} % 8u, PAIRS);
    let n${i} = image + select(0u, col${i} / 8u, PAIRS);
    let inside${i} = x_at${i} < X_EIGHTS && n${i} < p.batch && iy${i} < HEIGHT && ix${i} < WIDTH;
    let x_from${i} = ((n${i} * HEIGHT + iy${i}) * WIDTH + ix${i}) * x_eights + x_at${i} % 2u;
    if (${i}u * THREADS < X_EIGHTS) {
        if (inside${i}) {
            x${i} = x[x_from${i} + first * 2u];
        }
    }
#end
    // And of w: of each kx up to six eights, of rows by ky and channel.
#unroll i in 0..6
    let w_at${i} = thread + ${i}u * THREADS;
    let w_row${i} = w_at${i} / (TILE_N / 8u);
    let w_col${i} = k0 / 8u + w_at${i} % (TILE_N / 8u);
    let wanted${i} = w_at${i} < W_EIGHTS && w_col${i} < w_eights;
    // Columns past the last sum what is never stored: any address that is there will do.
    let w_from${i} = select(0u, (w_row${i} / 16u * 3u * IN_C + w_row${i} % 16u) * w_eights + w_col${i}, wanted${i});
    let w_to${i} = W_START + w_row${i} * N_STRIDE + w_at${i} % (TILE_N / 8u);
#unroll kx in 0..3
    var w${kx}_${i} = vec4<u32>();
    if (${i}u * THREADS < W_EIGHTS) {
        w${kx}_${i} = w[w_from${i} + (${kx}u * IN_C + first * 16u) * w_eights];
    }
#end
#end
    // What its subgroup sums: matrices below each other from m on; columns from k on, a matrix's, of every 16·ACROSS.
    let m = subgroup / ACROSS / BESIDE * ROWS * LINE + subgroup / ACROSS % BESIDE * 16u;
    let k = subgroup % ACROSS * 16u;
#unroll i in 0..4
#unroll j in 0..4
    var c${i}_${j} = coop_mat16x16<f32, C>();
#end
#end

    for (var chunk = first; chunk < last; chunk++) {
        // At the very end the last channels again, for nothing: a branch here would keep loads from being moved.
        let next = min(chunk + 1u, last - 1u);
#unroll kx in 0..3
        if (TAPS == 3u || ${kx}u == 0u) {
            workgroupBarrier();
            if (PAIRS || ${kx}u == 0u) {
#unroll i in 0..6
                if (${i}u * THREADS + THREADS <= X_EIGHTS) {
                    put_x(x_at${i}, ${kx}u, x${i});
                } else if (x_at${i} < X_EIGHTS) {
                    put_x(x_at${i}, ${kx}u, x${i});
                }
#end
            }
#unroll i in 0..6
            if (${i}u * THREADS + THREADS <= W_EIGHTS || w_at${i} < W_EIGHTS) {
                put(w_to${i}, w${kx}_${i});
                if (TAPS == 9u) {
                    put(w_to${i} + 48u * N_STRIDE, w1_${i});
                    put(w_to${i} + 96u * N_STRIDE, w2_${i});
                }
            }
#end
            workgroupBarrier();
        }
        // The same of the next channels.
#unroll i in 0..6
        if (${i}u * THREADS < W_EIGHTS) {
            w${kx}_${i} = w[w_from${i} + (${kx}u * IN_C + next * 16u) * w_eights];
        }
        if (${i}u * THREADS < X_EIGHTS && ${kx}u == 0u) {
            if (inside${i}) {
                later${i} = x[x_from${i} + next * 2u];
            }
        }
        if (${kx}u == select(0u, 2u, PAIRS)) {
            x${i} = later${i};
        }
#end

        {
            // The ky'th tap of matrix i reads what lies ky below it.
            let at = (m + select(${kx}u, 0u, PAIRS)) * 3u;
#unroll i in 0..6
            var a${i} = coop_mat16x16<f16, A>();
            if (ROWS + 2u > ${i}u) {
                a${i} = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * (at + ${i}u * LINE * 3u)], 6u);
            }
#end
#unroll j in 0..4
            if (COLS > ${j}u) {
                let b_at = W_START + ${kx}u * ((TAPS - 3u) / 2u) * 16u * N_STRIDE + k / 8u + ${j}u * 2u * ACROSS;
                let b0 = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * b_at], 2u * N_STRIDE);
                let b1 = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * (b_at + 16u * N_STRIDE)], 2u * N_STRIDE);
                let b2 = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * (b_at + 32u * N_STRIDE)], 2u * N_STRIDE);
#unroll i in 0..4
                if (ROWS > ${i}u) {
                    c${i}_${j} = coopMultiplyAdd(a${i}, b0, c${i}_${j});
                }
#end
#unroll i in 0..4
                if (ROWS > ${i}u) {
                    c${i}_${j} = coopMultiplyAdd(a${i+1}, b1, c${i}_${j});
                }
#end
#unroll i in 0..4
                if (ROWS > ${i}u) {
                    c${i}_${j} = coopMultiplyAdd(a${i+2}, b2, c${i}_${j});
                }
#end
            }
#end
        }
#end
    }

    // A matrix of each subgroup at a time, in turns where not all can be staged. Of the rows of the subgroups beside each
    // other an invocation writes an eight, always of the same columns, or with SPLIT two fours.
    let width = select(2u, 4u, SPLIT) * ACROSS;
    let piece = subgroup % ACROSS * 32u + lane;
    let line = piece / width;
    let column = piece % width * select(8u, 4u, SPLIT);
    let slot = subgroup / ACROSS % STAGED * 16u * STAGE_STRIDE;
    let from_slot = slot + line * STAGE_STRIDE + column / 4u;
    let m_x = m % LINE + line;
    let n = image + select(0u, m_x / 8u, PAIRS);
    let ox = select(left + m_x, m_x % 8u, PAIRS);
#unroll j in 0..4
    if (COLS > ${j}u) {
        let k_at = k0 + ${j}u * 16u * ACROSS + column;
        let added = bias_of(k_at);
#unroll i in 0..4
        let oy${i} = top + m / LINE + ${i}u;
        let to${i} = (n * OUT_HEIGHT + oy${i}) * WIDTH + ox;
        let store${i} = ROWS > ${i}u && there && n < p.batch && oy${i} < OUT_HEIGHT && ox < WIDTH && k_at < OUT_C;
        let more${i} = residual_of(store${i}, to${i}, k_at);
#end
#unroll i in 0..4
        if (ROWS > ${i}u) {
            for (var turn = 0u; turn < DOWN / STAGED; turn++) {
                let mine = subgroup / ACROSS / STAGED == turn;
                workgroupBarrier();
                if (mine) {
                    let at = slot + subgroup % ACROSS * 4u;
                    let stride = STAGE_STRIDE;
                    coopStoreT(c${i}_${j}, &stage[at], stride);
                }
                workgroupBarrier();
                if (SPLIT && mine) {
                    let to = ((split * tiles + place) * TILE_H + m / LINE + ${i}u) * TILE_W + m_x;
                    write_four(from_slot, there, to, k_at);
                    write_four(from_slot + 8u * STAGE_STRIDE, there, to + 8u, k_at);
                } else if (mine) {
                    write_eight(from_slot, store${i}, to${i}, k_at, added, more${i});
                }
            }
        }
#end
    }
#end
}
