//! Cooperative matrices written out for devices without them, so that their kernels can be tested anywhere.
//!
//! A lane of a subgroup of 32 holds eight elements of each matrix of sums, those of row lane/2 from column lane%2·8 on.
//! A factor is no more than where it stands in `tile`, which does not change until after its products. Right factors that
//! are loaded by columns may be kept for long: a lane copies its part of them. What subgroups exchange goes through
//! workgroup memory, so they must do it in uniform control flow, as they do.

/// Rewrites a joined shader. The kernels' index of their invocation is named `thread`.
pub(super) fn emulate(text: &str) -> String {
    if !text.contains("enable wgpu_cooperative_matrix;") {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut inside_entry = false;
    for line in text.lines() {
        if line.contains("enable wgpu_cooperative_matrix;")
            || line.contains("@builtin(subgroup_id)")
            || line.contains("@builtin(subgroup_invocation_id)")
        {
            continue;
        }
        inside_entry |= line.starts_with("@compute");
        out.push_str(&rewrite(line));
        out.push('\n');
        if inside_entry && line.starts_with(") {") {
            out.push_str("let subgroup = thread / 32u;\nlet lane = thread % 32u;\n");
            out.push_str("emulated_lane = lane;\nemulated_thread = thread;\nemulated_16 = 16u * groups.z;\n");
            inside_entry = false;
        }
    }
    out.push_str(LIBRARY);
    for array in ["stage", "y", "dw"] {
        if text.contains(&format!("&{array}[")) {
            out.push_str(&STORES.replace("NAME", array));
        }
    }
    out
}

fn rewrite(line: &str) -> String {
    let mut line =
        line.replace("coop_mat16x16<f32, C>()", "Sums()").replace("coopMultiplyAdd(", "emulated_product(");
    for factor in ["A", "B"] {
        line = line.replace(&format!("coop_mat16x16<f16, {factor}>()"), "Factor()");
        line = line.replace(&format!("coopLoadT<coop_mat16x16<f16, {factor}>>(&tile["), "emulated_rows((");
        let columns = if factor == "A" { "emulated_columns((" } else { "emulated_keep((" };
        line = line.replace(&format!("coopLoad<coop_mat16x16<f16, {factor}>>(&tile["), columns);
    }
    for array in ["dw", "stage"] {
        let load = format!("coopLoadT<coop_mat16x16<f32, C>>(&{array}[");
        line = line.replace(&load, &format!("emulated_load_{array}(("));
    }
    line =
        line.replace("subgroupShuffleXor(", "emulated_shuffle_xor(").replace("subgroupAny(", "emulated_any(");
    for array in ["stage", "y", "dw"] {
        for (call, name) in [("coopStoreT(", "emulated_store"), ("coopStore(", "emulated_store_columns")] {
            if line.contains(call) && line.contains(&format!(", &{array}[")) {
                line = line.replace(call, &format!("{name}_{array}("));
                line = line.replacen(&format!(", &{array}["), ", (", 1);
            }
        }
    }
    if line.contains("emulated_") && line.contains("], ") {
        line = line.replace("], ", "), ");
    }
    line
}

const LIBRARY: &str = "
struct Factor { at: u32, row: u32, column: u32, kept: u32 }
struct Sums { low: vec4<f32>, high: vec4<f32> }
var<private> emulated_lane: u32;
var<private> emulated_thread: u32;
var<private> emulated_16: u32; // what no compiler knows, for it would take minutes over loops written out
var<private> emulated_loads: u32;
var<private> emulated_kept: array<vec4<u32>, 16>; // this lane's eight of right factors that are kept
var<workgroup> emulated_eights: array<vec4<u32>, 256>;
fn emulated_rows(at: u32, stride: u32) -> Factor { return Factor(at * 4u, stride * 4u, 1u, 0u); }
fn emulated_columns(at: u32, stride: u32) -> Factor { return Factor(at * 4u, 1u, stride * 4u, 0u); }
fn emulated_keep(at: u32, stride: u32) -> Factor {
    let place = emulated_loads % 16u;
    emulated_loads += 1u;
    for (var i = 0u; 4u * i < emulated_16; i++) {
        let start = at * 4u + emulated_lane / 2u + (emulated_lane % 2u * 8u + 2u * i) * stride * 4u;
        let next = start + stride * 4u;
        let pair = vec2<f32>(f32(tile[start / 4u][start % 4u]), f32(tile[next / 4u][next % 4u]));
        emulated_kept[place][i] = pack2x16float(pair);
    }
    return Factor(at, 0u, 0u, place + 1u);
}
fn emulated_product(a: Factor, b: Factor, c: Sums) -> Sums {
    var sums = c;
    let row = emulated_lane / 2u;
    let half = emulated_lane % 2u;
    if (b.kept > 0u) {
        emulated_eights[emulated_thread] = emulated_kept[b.kept - 1u];
        workgroupBarrier();
    }
    for (var k = 0u; k < emulated_16; k++) {
        let i = a.at + row * a.row + k * a.column;
        let factor = f32(tile[i / 4u][i % 4u]);
        if (b.kept > 0u) {
            let eight = emulated_eights[emulated_thread / 32u * 32u + 2u * k + half];
            sums.low += factor * vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y));
            sums.high += factor * vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w));
        } else {
            let j = (b.at + k * b.row + half * 8u) / 4u;
            sums.low += factor * vec4<f32>(tile[j]);
            sums.high += factor * vec4<f32>(tile[j + 1u]);
        }
    }
    if (b.kept > 0u) {
        workgroupBarrier();
    }
    return sums;
}
fn emulated_shuffle_xor(value: f32, mask: u32) -> f32 {
    emulated_eights[emulated_thread].x = bitcast<u32>(value);
    workgroupBarrier();
    let other = emulated_eights[emulated_thread ^ mask].x;
    workgroupBarrier();
    return bitcast<f32>(other);
}
fn emulated_any(value: bool) -> bool {
    emulated_eights[emulated_thread].x = select(0u, 1u, value);
    workgroupBarrier();
    var found = 0u;
    for (var i = 0u; i < 2u * emulated_16; i++) {
        found |= emulated_eights[emulated_thread / 32u * 32u + i].x;
    }
    workgroupBarrier();
    return found > 0u;
}
";

const STORES: &str = "
fn emulated_store_NAME(sums: Sums, at: u32, stride: u32) {
    let to = at + emulated_lane / 2u * stride + emulated_lane % 2u * 2u;
    NAME[to] = sums.low;
    NAME[to + 1u] = sums.high;
}
fn emulated_store_columns_NAME(sums: Sums, at: u32, stride: u32) {
    let row = emulated_lane / 2u;
    for (var i = 0u; 2u * i < emulated_16; i++) {
        let to = at + (emulated_lane % 2u * 8u + i) * stride + row / 4u;
        NAME[to][row % 4u] = select(sums.low[i % 4u], sums.high[i % 4u], i > 3u);
    }
}
fn emulated_load_NAME(at: u32, stride: u32) -> Sums {
    let start = at + emulated_lane / 2u * stride + emulated_lane % 2u * 2u;
    return Sums(NAME[start], NAME[start + 1u]);
}
";
