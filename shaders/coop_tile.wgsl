#import eights
enable wgpu_cooperative_matrix;
// A workgroup's tile of sums in cooperative matrices. Library file; who imports it declares `tile`, see eights.wgsl.
//
// DOWN by ACROSS subgroups of 32 share a tile of TILE_M rows by TILE_N columns; each holds ROWS by COLS matrices of
// 16x16 f32 sums, in variables named c0_0 … c3_3, those past ROWS and COLS unused.

override ROWS: u32 = 4u;   // matrices of a subgroup, down: at most 4
override COLS: u32 = 3u;   // and across: at most 4
override DOWN: u32 = 2u;   // subgroups, down
override ACROSS: u32 = 2u; // and across

// Channels as constants, to fold into addresses.
override IN_C: u32 = 32u;
override OUT_C: u32 = 32u;

override TILE_M: u32 = 16u * ROWS * DOWN;
override TILE_N: u32 = 16u * COLS * ACROSS;
override THREADS: u32 = 32u * DOWN * ACROSS;

// Eights of a tile's row in workgroup memory, one more than its columns need: rows start in different banks.
override N_STRIDE: u32 = TILE_N / 8u + 1u;
