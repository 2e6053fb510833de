#import coop_tile
// From f32 sums to f16 elements: cooperative matrices cannot be converted, so each passes through workgroup memory.
// Library file; who imports it declares `bias`, `y` and `p`.

// Subgroups that stage a matrix at the same time: all, or fewer where there is no memory for all.
override SLOTS: u32 = 4u;

override STAGE_SIZE: u32 = 64u * SLOTS;
var<workgroup> stage: array<vec4<f32>, STAGE_SIZE>; // a slot is [16, 4 fours]

// y = bias + a staged matrix, or y += that, for rows from `row` on and columns from `col` on: eight of a row each.
fn write_matrix(slot: u32, lane: u32, row: u32, col: u32, row_count: u32) {
    let m = row + lane / 2u;
    let k = col + lane % 2u * 8u;
    if (m >= row_count || k >= OUT_C) {
        return;
    }
    var low = stage[slot + lane * 2u];
    var high = stage[slot + lane * 2u + 1u];
    if (p.has_bias != 0u) {
        low += bias[k / 4u];
        high += bias[k / 4u + 1u];
    }
    let i = (m * OUT_C + k) / 8u;
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
