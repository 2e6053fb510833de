#import conv2d_params
enable wgpu_cooperative_matrix;
#import coop_write
// Convolution (1x1 or 3x3, any size, stride 1 or 2) on cooperative matrices: a product of [pixels, taps·in_c] with
// [taps·in_c, out_c] that gathers its rows from x; 1x1, so a linear layer too, is the product itself.
//   y[m,k] = bias[k] + Σ_{tap,c} x[pixel that m sees through tap, c]·w[tap,c,k]
// 32 of the taps' channels a step, fetched while the two steps before are multiplied. in_c and out_c are multiples of 16.
// With SPLIT, split s sums steps [s·chunk, (s+1)·chunk) and y is partial sums [splits, rows, out_c] in f32, or with HALVES
// in f16, rows being the pixels rounded up to tiles; conv2d_coop_parts.wgsl adds them (conv2d_winograd.wgsl has 36 products
// in them). x, w and y are f16 otherwise; sums are f32, in the order of taps and channels.
//
// In bounds, for the compiler adds no checks here: loads of x are of a pixel whose bit in `seen` says that it is inside and
// of channels below in_c, those of w of rows below taps·in_c and columns below out_c; stores to y are of rows that there are
// (with SPLIT: of tiles there is room for) and columns below out_c; the tile holds TILE_M rows of x and 32 of w.

override KERNEL: u32 = 3u;
override SPLIT: bool = false;
override HALVES: bool = false;
override DEEP: bool = true; // two steps are fetched ahead, not one
override X_EIGHTS: u32 = 4u * TILE_M;
override W_EIGHTS: u32 = 32u * (TILE_N / 8u);
override W_START: u32 = 5u * TILE_M; // a row of x takes four eights and one of padding

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;       // [N, in_h, in_w, in_c/8]
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;       // [taps, in_c, out_c/8]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;    // [out_c/4]
@group(0) @binding(3) var<storage, read> residual: array<vec4<u32>>; // [N, out_h, out_w, out_c/8]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // [N, out_h, out_w, out_c/8], or partial sums
@group(0) @binding(5) var<uniform> p: Params;

override TILE_SIZE: u32 = 2u * (W_START + 32u * N_STRIDE);
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;

// Where the first tap of a pixel reads, and a bit for each tap that reads inside of the image.
struct Row {
    at: u32,
    seen: u32,
}

fn row_of(index: u32, count: u32) -> Row {
    if (KERNEL == 1u) {
        // Rows past the last sum what is never stored.
        return Row(min(index, count - 1u) * (IN_C / 8u), 1u);
    }
    if (index >= count) {
        return Row(0u, 0u);
    }
    // Above or left of the image wraps past any bound.
    let iy = index / p.out_w % p.out_h * p.step - p.pad_h;
    let ix = index % p.out_w * p.step - p.pad;
    let n = index / (p.out_w * p.out_h);
    let rows = select(0u, 7u, iy < p.in_h)
        | select(0u, 56u, iy + 1u < p.in_h)
        | select(0u, 448u, iy + 2u < p.in_h);
    let columns = select(0u, 73u, ix < p.in_w)
        | select(0u, 146u, ix + 1u < p.in_w)
        | select(0u, 292u, ix + 2u < p.in_w);
    return Row(((n * p.in_h + iy) * p.in_w + ix) * (IN_C / 8u), rows & columns);
}

// How far behind a row's first eight channels these lie, and the bit of their tap.
struct Tap {
    skip: u32,
    bit: u32,
}

fn tap_of(eight: u32) -> Tap {
    let eights = IN_C / 8u;
    if (KERNEL == 1u) {
        return Tap(eight, select(0u, 1u, eight < eights));
    }
    let tap = eight / eights;
    return Tap((tap / 3u * p.in_w + tap % 3u) * eights + eight % eights, 1u << tap);
}

fn load_x(row: Row, tap: Tap) -> vec4<u32> {
    if (KERNEL == 1u && IN_C % 32u == 0u) {
        return x[row.at + tap.skip];
    }
    var v = vec4<u32>();
    if ((row.seen & tap.bit) != 0u) {
        v = x[row.at + tap.skip];
    }
    return v;
}

// Columns past the last sum what is never stored: any address that is there will do. Rows past the last must be zero.
fn load_w(wanted: bool, row: u32, col: u32) -> vec4<u32> {
    if (KERNEL * KERNEL * IN_C % 32u == 0u) {
        return w[select(0u, row * (OUT_C / 8u) + col, wanted)];
    }
    let there = row < KERNEL * KERNEL * IN_C;
    return select(vec4<u32>(), w[select(0u, row * (OUT_C / 8u) + col, wanted & there)], there);
}

@compute @workgroup_size(THREADS)
fn product(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let pixels = p.batch * p.out_h * p.out_w;
    let k_blocks = (OUT_C + TILE_N - 1u) / TILE_N;
    let m_blocks = (pixels + TILE_M - 1u) / TILE_M;
    let group = wid.y * groups.x + wid.x;
    let k0 = group % k_blocks * TILE_N;
    let m0 = group / k_blocks % m_blocks * TILE_M;
    let there = group / k_blocks / m_blocks < p.splits;
    let split = min(group / k_blocks / m_blocks, p.splits - 1u);
    let w_rows = KERNEL * KERNEL * IN_C;
    let first = split * p.chunk;
    let last = min(first + p.chunk, (w_rows + 31u) / 32u);

    // What this invocation brings of x: an eight of up to four rows. Of eight invocations the last four take a row that
    // is four further on than the first four's: together their stores meet every bank.
    let x_col = thread % 4u;
#unroll i in 0..4
    let q${i} = (thread + ${i}u * THREADS) / 4u;
    let x_row${i} = (q${i} & 0xfffffff8u) | ((q${i} >> 1u) & 3u) | ((q${i} & 1u) << 2u);
    let x_to${i} = x_row${i} * 5u + x_col;
    let row${i} = row_of(m0 + x_row${i}, pixels);
    // And of w: up to four eights.
    let w_at${i} = thread + ${i}u * THREADS;
    let w_row${i} = w_at${i} / (TILE_N / 8u);
    let w_col${i} = k0 / 8u + w_at${i} % (TILE_N / 8u);
    let w_to${i} = W_START + w_row${i} * N_STRIDE + w_at${i} % (TILE_N / 8u);
    let wanted${i} = w_at${i} < W_EIGHTS && w_col${i} < OUT_C / 8u;
#end
    // Of the first two steps.
#unroll s in 0..2
    let first${s} = min(first + ${s}u, last - 1u);
    let first_tap${s} = tap_of(first${s} * 4u + x_col);
#unroll i in 0..4
    var x${s}_${i} = vec4<u32>();
    if (${i}u * THREADS < X_EIGHTS) {
        x${s}_${i} = load_x(row${i}, first_tap${s});
    }
    var w${s}_${i} = vec4<u32>();
    if (${i}u * THREADS < W_EIGHTS) {
        w${s}_${i} = load_w(wanted${i}, first${s} * 32u + w_row${i}, w_col${i});
    }
#end
#end

    // What its subgroup sums: rows from m on; columns from k on, a matrix's, of every 16·ACROSS.
    let m = subgroup / ACROSS * (16u * ROWS);
    let k = subgroup % ACROSS * 16u;
#unroll i in 0..4
#unroll j in 0..4
    var c${i}_${j} = coop_mat16x16<f32, C>();
#end
#end

    for (var pair = first; pair < last; pair += 2u) {
#unroll s in 0..2
        {
            workgroupBarrier();
            // After an odd number of steps one of zeros.
            let real = ${s}u == 0u || KERNEL * KERNEL * IN_C % 64u == 0u || pair + 1u < last;
#unroll i in 0..4
            if (${i}u * THREADS < X_EIGHTS) {
                let content = select(vec4<u32>(), select(x0_${i}, x${s}_${i}, DEEP), real);
                put(x_to${i}, content);
            }
            if (${i}u * THREADS + THREADS <= W_EIGHTS || w_at${i} < W_EIGHTS) {
                let content = select(vec4<u32>(), select(w0_${i}, w${s}_${i}, DEEP), real);
                put(w_to${i}, content);
            }
#end
            workgroupBarrier();

            // The next step, or the one after it. At the very end the last again, for nothing: a branch here would keep
            // loads from being moved.
            let next = min(pair + ${s}u + select(1u, 2u, DEEP), last - 1u);
            let tap = tap_of(next * 4u + x_col);
#unroll i in 0..4
            if (${i}u * THREADS < X_EIGHTS) {
                x${s}_${i} = load_x(row${i}, tap);
                x0_${i} = select(x${s}_${i}, x0_${i}, DEEP);
            }
            if (${i}u * THREADS < W_EIGHTS) {
                w${s}_${i} = load_w(wanted${i}, next * 32u + w_row${i}, w_col${i});
                w0_${i} = select(w${s}_${i}, w0_${i}, DEEP);
            }
#end

#unroll h in 0..2
            {
#unroll i in 0..4
                var a${i} = coop_mat16x16<f16, A>();
                if (ROWS > ${i}u) {
                    let at = (m + ${i}u * 16u) * 5u + ${h}u * 2u;
                    a${i} = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * at], 10u);
                }
#end
#unroll j in 0..4
                if (COLS > ${j}u) {
                    let at = W_START + ${h}u * 16u * N_STRIDE + k / 8u + ${j}u * 2u * ACROSS;
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&tile[2u * at], 2u * N_STRIDE);
#unroll i in 0..4
                    if (ROWS > ${i}u) {
                        c${i}_${j} = coopMultiplyAdd(a${i}, b, c${i}_${j});
                    }
#end
                }
#end
            }
#end
        }
#end
    }

    // A matrix of each subgroup at a time; what stands beside it in a row is written together. Of the staged rows of the
    // subgroups beside each other an invocation writes an eight, always of the same columns, or of f32 sums two fours.
    let fours = SPLIT && !HALVES;
    let width = select(2u, 4u, fours) * ACROSS;
    let piece = subgroup % ACROSS * 32u + lane;
    let line = piece / width;
    let column = piece % width * select(8u, 4u, fours);
    let slot = subgroup / ACROSS * 16u * STAGE_STRIDE;
    let from_slot = slot + line * STAGE_STRIDE + column / 4u;
#unroll j in 0..4
    if (COLS > ${j}u) {
        let k_at = k0 + ${j}u * 16u * ACROSS + column;
        let added = bias_of(k_at);
#unroll i in 0..4
        let to${i} = select(0u, split * m_blocks * TILE_M, SPLIT) + m0 + m + ${i}u * 16u + line;
        let store${i} = ROWS > ${i}u && there && (SPLIT || to${i} < pixels) && k_at < OUT_C;
        let more${i} = residual_of(store${i}, to${i}, k_at);
#end
#unroll i in 0..4
        if (ROWS > ${i}u) {
            workgroupBarrier();
            let at = slot + subgroup % ACROSS * 4u;
            let stride = STAGE_STRIDE;
            coopStoreT(c${i}_${j}, &stage[at], stride);
            workgroupBarrier();
            if (fours) {
                write_four(from_slot, there, to${i}, k_at);
                write_four(from_slot + 8u * STAGE_STRIDE, there, to${i} + 8u, k_at);
            } else {
                write_eight(from_slot, store${i}, to${i}, k_at, added, more${i});
            }
        }
#end
    }
#end
}
