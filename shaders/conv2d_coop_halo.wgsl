#import conv2d_params
enable wgpu_cooperative_matrix;
#import coop_write
// 3x3 convolution, stride 1, on cooperative matrices; also the input gradient, with turned weights.
//   y[n,oy,ox,k] = bias[k] + Σ_{c,ky,kx} x[n, oy+ky-1, ox+kx-1, c]·w[ky,kx,c,k]
// A workgroup makes whole rows of an image: of 16 channels at a time it holds their pixels with a margin around them, and
// all nine taps read from there, shifted. Weights come by three taps, fetched while the three before are multiplied.
// WIDTH is the image's width, a multiple of 16 that divides TILE_M; TILE_M / WIDTH divides its height; in_c and out_c
// are multiples of 16. x, w and y are f16, sums f32, in the order of channels by 16, taps, channels.
//
// In bounds, for the compiler adds no checks here: a load of x is of a pixel tested to be inside and of channels below
// in_c; a load of w is of a column tested to be below out_c (else of the first), of nine taps and in_c channels; a store to y is of a row
// below the number of pixels and a column below out_c; the tile holds HALO pixels and 48 rows of weights.

override WIDTH: u32 = 32u;
override LINE: u32 = WIDTH + 2u;                   // pixels of a row and its margins
override HALO: u32 = (TILE_M / WIDTH + 2u) * LINE; // pixels held
override X_EIGHTS: u32 = 2u * HALO;
override W_EIGHTS: u32 = 48u * (TILE_N / 8u);
override W_START: u32 = 3u * HALO;                 // a pixel takes two eights and one of padding

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;       // [N, H, W, in_c/8]
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;       // [9, in_c, out_c/8]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;    // [out_c/4]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [N, H, W, out_c/8]
@group(0) @binding(4) var<uniform> p: Params;

override TILE_SIZE: u32 = 2u * (W_START + 48u * N_STRIDE);
var<workgroup> tile: array<vec4<f16>, TILE_SIZE>;

@compute @workgroup_size(THREADS)
fn halo(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let blocks = (OUT_C + TILE_N - 1u) / TILE_N;
    let group = wid.y * groups.x + wid.x;
    let m0 = group / blocks * TILE_M;
    let k0 = group % blocks * TILE_N;
    let pixels = p.batch * p.in_h * WIDTH;
    let x_eights = IN_C / 8u;
    let w_eights = OUT_C / 8u;
    let chunks = IN_C / 16u;

    // What this invocation brings of x: up to seven eights, the same of every 16 channels.
    let top = m0 / WIDTH % p.in_h;
    let image = m0 / (WIDTH * p.in_h);
#unroll i in 0..7
    var x${i} = vec4<u32>();
    let x_at${i} = thread + ${i}u * THREADS;
    // Above or left of the image wraps past any bound.
    let row${i} = top + x_at${i} / 2u / LINE - 1u;
    let col${i} = x_at${i} / 2u % LINE - 1u;
    let inside${i} = m0 < pixels && x_at${i} < X_EIGHTS && row${i} < p.in_h && col${i} < WIDTH;
    let x_from${i} = ((image * p.in_h + row${i}) * WIDTH + col${i}) * x_eights + x_at${i} % 2u;
    let x_to${i} = x_at${i} / 2u * 3u + x_at${i} % 2u;
    if (${i}u * THREADS < X_EIGHTS && inside${i}) {
        x${i} = x[x_from${i}];
    }
#end
    // And of w: up to six eights of three taps.
#unroll i in 0..6
    var w${i} = vec4<u32>();
    let w_at${i} = thread + ${i}u * THREADS;
    let w_row${i} = w_at${i} / (TILE_N / 8u);
    let w_col${i} = k0 / 8u + w_at${i} % (TILE_N / 8u);
    let wanted${i} = w_at${i} < W_EIGHTS && w_col${i} < w_eights;
    // Columns past the last sum what is never stored: any address that is there will do.
    let w_from${i} = select(0u, (w_row${i} / 16u * IN_C + w_row${i} % 16u) * w_eights + w_col${i}, wanted${i});
    let w_to${i} = W_START + w_row${i} * N_STRIDE + w_at${i} % (TILE_N / 8u);
    if (${i}u * THREADS < W_EIGHTS) {
        w${i} = w[w_from${i}];
    }
#end

    // What its subgroup sums: rows from m on, columns from k on of the tile.
    let m = subgroup / ACROSS * (16u * ROWS);
    let k = subgroup % ACROSS * (16u * COLS);
#unroll i in 0..4
    let a_at${i} = ((m + ${i}u * 16u) / WIDTH * LINE + (m + ${i}u * 16u) % WIDTH) * 3u;
#unroll j in 0..4
    var c${i}_${j} = coop_mat16x16<f32, C>();
#end
#end

    for (var chunk = 0u; chunk < chunks; chunk++) {
#unroll ky in 0..3
        workgroupBarrier();
        if (${ky}u == 0u) {
#unroll i in 0..7
            if (${i}u * THREADS + THREADS <= X_EIGHTS) {
                put(x_to${i}, x${i});
            } else if (x_at${i} < X_EIGHTS) {
                put(x_to${i}, x${i});
            }
#end
        }
#unroll i in 0..6
        if (${i}u * THREADS + THREADS <= W_EIGHTS) {
            put(w_to${i}, w${i});
        } else if (w_at${i} < W_EIGHTS) {
            put(w_to${i}, w${i});
        }
#end
        workgroupBarrier();

        // The next three taps, after the last the first of the next channels.
        // At the very end the last channels again, for nothing: a branch here would keep loads from being moved.
        let next${ky} = min(chunk + ${ky}u / 2u, chunks - 1u);
        let skip${ky} = ((${ky}u + 1u) % 3u * 3u * IN_C + next${ky} * 16u) * w_eights;
#unroll i in 0..6
        if (${i}u * THREADS < W_EIGHTS) {
            w${i} = w[w_from${i} + skip${ky}];
        }
#end
        if (${ky}u == 2u) {
#unroll i in 0..7
            if (${i}u * THREADS < X_EIGHTS) {
                if (inside${i}) {
                    x${i} = x[x_from${i} + next${ky} * 2u];
                }
            }
#end
        }

#unroll kx in 0..3
        {
            let shift = (${ky}u * LINE + ${kx}u) * 3u;
#unroll i in 0..4
            var a${i} = coop_mat16x16<f16, A>();
            if (ROWS > ${i}u) {
                a${i} = coopLoadT<coop_mat16x16<f16, A>>(&tile[2u * (a_at${i} + shift)], 6u);
            }
#end
#unroll j in 0..4
            if (COLS > ${j}u) {
                let at = W_START + ${kx}u * 16u * N_STRIDE + k / 8u + ${j}u * 2u;
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
#end
    }

    // Of the subgroups SLOTS take turns.
    let slot = subgroup % SLOTS * 64u;
#unroll i in 0..4
#unroll j in 0..4
    if (ROWS > ${i}u) {
        if (COLS > ${j}u) {
            for (var turn = 0u; turn < DOWN * ACROSS / SLOTS; turn++) {
                workgroupBarrier();
                if (subgroup / SLOTS == turn) {
                    coopStoreT(c${i}_${j}, &stage[slot], 4u);
                }
                workgroupBarrier();
                if (subgroup / SLOTS == turn) {
                    write_matrix(slot, lane, m0 + m + ${i}u * 16u, k0 + k + ${j}u * 16u, pixels);
                }
            }
        }
    }
#end
#end
}
