#import coop_tile
// From f32 sums to f16 elements: cooperative matrices cannot be converted, so they pass through workgroup memory.
// Library file; who imports it declares `bias`, `residual`, `y` and `p`.

// Subgroups that stage matrices at the same time: all, or fewer where there is no memory for all.
override SLOTS: u32 = 4u;

const SLOT_SIZE: u32 = 64u; // a matrix: [16, 4 fours]
override STAGE_SIZE: u32 = SLOT_SIZE * SLOTS;
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>;

// y = bias + residual + staged sums, or y += that: eight of row `row` of y from column `k` on. They stand at `at`.
fn write_eight(at: u32, wanted: bool, row: u32, k: u32) {
    if (!wanted || k >= OUT_C) {
        return;
    }
    var low = stage[at];
    var high = stage[at + 1u];
    if (p.has_bias != 0u) {
        low += bias[k / 4u];
        high += bias[k / 4u + 1u];
    }
    let i = (row * OUT_C + k) / 8u;
    if (p.has_residual != 0u) {
        let more = residual[i];
        low += vec4(unpack2x16float(more.x), unpack2x16float(more.y));
        high += vec4(unpack2x16float(more.z), unpack2x16float(more.w));
    }
    if (p.accumulate != 0u) {
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
