#import coop_tile
// From f32 sums to f16 elements: cooperative matrices cannot be converted, so they pass through workgroup memory.
// Library file; who imports it declares `bias`, `residual`, `y`, `p` and `SPLIT`.
//
// Subgroups beside each other hold every ACROSS'th matrix of a row, so that those they stage at the same time are neighbours
// and what is written of a row is in pieces of 32·ACROSS bytes. On an H100 a 1x1 convolution of 16x32x32x384 to 1152 takes 84
// us in pieces of 32 bytes, 78 in pieces of 64 or 128, and 76 if the compiler knows that nothing else is added. A residual is
// fetched for several matrices before they are staged: a 3x3 convolution of 16x64x64x192 takes 125 us with one, not 172.

override RESIDUAL: bool = false;   // whether `residual` is added; not with SPLIT
override ACCUMULATE: bool = false; // whether what stands in y is; not with SPLIT

// Of the subgroups below each other, how many stage at the same time: all, or fewer where there is no memory for all.
override STAGED: u32 = 1u;
override PADDING: u32 = 2u; // fours behind a staged row, which keep rows in different banks: 2, or 0 where they do not fit

override STAGE_STRIDE: u32 = 4u * ACROSS + PADDING; // fours of a staged row
override STAGE_SIZE: u32 = 16u * STAGED * STAGE_STRIDE;
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>; // [16·STAGED, STAGE_STRIDE fours]

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

// That of columns k to k + 7, or zeros.
fn bias_of(k: u32) -> Eight {
    if (SPLIT || p.has_bias == 0u || k >= OUT_C) {
        return Eight();
    }
    return Eight(bias[k / 4u], bias[k / 4u + 1u]);
}

// What is added to eight of row `row` from column k on, or zeros.
fn residual_of(wanted: bool, row: u32, k: u32) -> vec4<u32> {
    if (!RESIDUAL || !wanted) {
        return vec4<u32>();
    }
    return residual[(row * OUT_C + k) / 8u];
}

// y = bias + residual + staged sums, or y += that: eight of row `row` of y from column `k` on. They stand at `at`.
fn write_eight(at: u32, wanted: bool, row: u32, k: u32, added: Eight, more: vec4<u32>) {
    if (!wanted) {
        return;
    }
    var low = stage[at] + added.low;
    var high = stage[at + 1u] + added.high;
    let i = (row * OUT_C + k) / 8u;
    if (RESIDUAL) {
        low += vec4(unpack2x16float(more.x), unpack2x16float(more.y));
        high += vec4(unpack2x16float(more.z), unpack2x16float(more.w));
    }
    if (ACCUMULATE) {
        let old = bitcast<vec4<u32>>(y[i]);
        low += vec4(unpack2x16float(old.x), unpack2x16float(old.y));
        high += vec4(unpack2x16float(old.z), unpack2x16float(old.w));
    }
    let packed = vec4(
        pack2x16float(low.xy),
        pack2x16float(low.zw),
        pack2x16float(high.xy),
        pack2x16float(high.zw),
    );
    y[i] = bitcast<vec4<f32>>(packed);
}

// y = staged sums in f32, of a split: four of row `row` of y from column `k` on.
fn write_four(at: u32, wanted: bool, row: u32, k: u32) {
    if (wanted && k < OUT_C) {
        y[(row * OUT_C + k) / 4u] = stage[at];
    }
}
