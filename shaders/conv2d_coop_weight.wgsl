#import conv2d_params
enable wgpu_cooperative_matrix;
#import coop_tile
// Weight gradient of a convolution on cooperative matrices: [taps·in_c, pixels] by [pixels, out_c].
//   dw[ky,kx,c,k] = Σ_{n,oy,ox} x[n, oy·stride+ky-pad, ox·stride+kx-pad, c]·dy[n,oy,ox,k]
// 3x3 with stride 1 or 2, 1x1 with stride 1; in_c and out_c are multiples of 16. 32 pixels a step, fetched while those
// before are multiplied. Split s sums pixels [s·chunk, (s+1)·chunk) into dw[s]; `reduce` of conv2d_weight.wgsl adds the
// splits. x and dy are f16, dw and sums f32, in the order of the pixels within a split.
//
// In bounds, for the compiler adds no checks here: a load of x is of a pixel tested to be inside, of a row below
// taps·in_c; a load of dy is of a pixel of the split and a column below out_c; a store to dw is of a row below taps·in_c
// and a column below out_c, both multiples of 16 as is the matrix stored; the tile holds 32 rows of x and 32 of dy.

override KERNEL: u32 = 3u;
override OUT_W: u32 = 32u; // of 3x3: constants, to divide by
override OUT_H: u32 = 32u;
override M_STRIDE: u32 = TILE_M / 8u + 1u;
override X_EIGHTS: u32 = 32u * (TILE_M / 8u);
override DY_EIGHTS: u32 = 32u * (TILE_N / 8u);
override DY_START: u32 = 32u * M_STRIDE;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;        // [N, in_h, in_w, in_c/8]
@group(0) @binding(1) var<storage, read> dy: array<vec4<u32>>;       // [N, out_h, out_w, out_c/8]
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>; // [splits, taps, in_c, out_c/4]
@group(0) @binding(3) var<uniform> p: Params;

override TILE_SIZE: u32 = 2u * (DY_START + 32u * N_STRIDE);
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;

// Eight channels c of the pixel that pixel `index` of dy sees through tap (ky, kx), zero outside.
fn load_x(valid: bool, index: u32, ky: u32, kx: u32, c: u32) -> vec4<u32> {
    var inside = valid;
    var pixel = index;
    if (KERNEL == 3u) {
        // Above or left of the image wraps past any bound.
        let iy = index / OUT_W % OUT_H * p.step + ky - 1u;
        let ix = index % OUT_W * p.step + kx - 1u;
        inside = valid & (iy < p.in_h) & (ix < p.in_w);
        pixel = (index / (OUT_W * OUT_H) * p.in_h + iy) * p.in_w + ix;
    }
    var v = vec4<u32>();
    if (inside) {
        v = x[pixel * (IN_C / 8u) + c];
    }
    return v;
}

fn load_dy(valid: bool, index: u32, col: u32) -> vec4<u32> {
    var v = vec4<u32>();
    if (valid) {
        v = dy[index * (OUT_C / 8u) + col];
    }
    return v;
}

@compute @workgroup_size(THREADS)
fn weights(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let rows = KERNEL * KERNEL * IN_C;
    let m_blocks = (rows + TILE_M - 1u) / TILE_M;
    let k_blocks = (OUT_C + TILE_N - 1u) / TILE_N;
    let group = wid.y * groups.x + wid.x;
    let k0 = group % k_blocks * TILE_N;
    let m0 = group / k_blocks % m_blocks * TILE_M;
    let split = group / k_blocks / m_blocks;
    let first = split * p.chunk;
    let last = min(first + p.chunk, p.batch * p.out_h * p.out_w);
    let steps = (max(first, last) - first + 31u) / 32u;

    // What this invocation brings of x: up to four pixels of the same eight rows. And of dy: up to four eights.
    let x_row = m0 + thread % (TILE_M / 8u) * 8u;
    let tap = x_row / IN_C;
    let c = x_row % IN_C / 8u;
#unroll i in 0..4
    let x_pixel${i} = first + (thread + ${i}u * THREADS) / (TILE_M / 8u);
    let x_to${i} = (x_pixel${i} - first) * M_STRIDE + thread % (TILE_M / 8u);
    var x${i} = vec4<u32>();
    if (${i}u * THREADS < X_EIGHTS) {
        x${i} = load_x(x_row < rows && x_pixel${i} < last, x_pixel${i}, tap / 3u, tap % 3u, c);
    }
    let dy_at${i} = thread + ${i}u * THREADS;
    let dy_pixel${i} = first + dy_at${i} / (TILE_N / 8u);
    let dy_col${i} = k0 / 8u + dy_at${i} % (TILE_N / 8u);
    let dy_to${i} = DY_START + (dy_pixel${i} - first) * N_STRIDE + dy_at${i} % (TILE_N / 8u);
    let wanted${i} = dy_at${i} < DY_EIGHTS && dy_col${i} < OUT_C / 8u;
    var dy${i} = vec4<u32>();
    if (${i}u * THREADS < DY_EIGHTS) {
        dy${i} = load_dy(wanted${i} && dy_pixel${i} < last, dy_pixel${i}, dy_col${i});
    }
#end

    // What its subgroup sums: rows from m on, columns from k on of the tile.
    let m = subgroup / ACROSS * (16u * ROWS);
    let k = subgroup % ACROSS * (16u * COLS);
    let stride = OUT_C / 4u;
#unroll i in 0..4
#unroll j in 0..4
    var c${i}_${j} = coop_mat16x16<f32, C>();
    let row${i}_${j} = m0 + m + ${i}u * 16u;
    let col${i}_${j} = k0 + k + ${j}u * 16u;
    let inside${i}_${j} = split < p.splits && row${i}_${j} < rows && col${i}_${j} < OUT_C;
    let at${i}_${j} = select(0u, ((split * rows + row${i}_${j}) * OUT_C + col${i}_${j}) / 4u, inside${i}_${j});
    if (ROWS > ${i}u) {
        if (COLS > ${j}u) {
            if (p.accumulate != 0u) {
                // Outside, too, for subgroups must not part; the first matrix is always there.
                c${i}_${j} = coopLoadT<coop_mat16x16<f32, C>>(&dw[at${i}_${j}], stride);
            }
        }
    }
#end
#end

    for (var step = 0u; step < steps; step++) {
        workgroupBarrier();
#unroll i in 0..4
        if (${i}u * THREADS < X_EIGHTS) {
            put(x_to${i}, x${i});
        }
        if (${i}u * THREADS + THREADS <= DY_EIGHTS) {
            put(dy_to${i}, dy${i});
        } else if (dy_at${i} < DY_EIGHTS) {
            put(dy_to${i}, dy${i});
        }
#end
        workgroupBarrier();

        // Past the last step nothing is below `last`.
        let ahead = 32u * (step + 1u);
#unroll i in 0..4
        if (${i}u * THREADS < X_EIGHTS) {
            let index = x_pixel${i} + ahead;
            x${i} = load_x(x_row < rows && index < last, index, tap / 3u, tap % 3u, c);
        }
        if (${i}u * THREADS < DY_EIGHTS) {
            let index = dy_pixel${i} + ahead;
            dy${i} = load_dy(wanted${i} && index < last, index, dy_col${i});
        }
#end

#unroll s in 0..2
        {
#unroll i in 0..4
            var a${i} = coop_mat16x16<f16, A>();
            if (ROWS > ${i}u) {
                // A column of the matrix is a pixel, as it lies in memory.
                let at = ${s}u * 16u * M_STRIDE + m / 8u + ${i}u * 2u;
                a${i} = coopLoad<coop_mat16x16<f16, A>>(&tile[2u * at], 2u * M_STRIDE);
            }
#end
#unroll j in 0..4
            if (COLS > ${j}u) {
                let at = DY_START + ${s}u * 16u * N_STRIDE + k / 8u + ${j}u * 2u;
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

#unroll i in 0..4
#unroll j in 0..4
    if (ROWS > ${i}u && COLS > ${j}u && inside${i}_${j}) {
        coopStoreT(c${i}_${j}, &dw[at${i}_${j}], stride);
    }
#end
#end
}
