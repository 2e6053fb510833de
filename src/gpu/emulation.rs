//! Cooperative matrices written out for devices without them, so that their kernels can be tested anywhere.
//!
//! A lane of a subgroup of 32 holds eight elements of each matrix of sums, those of row lane/2 from column lane%2·8 on.
//! A factor is no more than where it stands in `tile`, which does not change until after its products.

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
            out.push_str("let subgroup = thread / 32u;\nlet lane = thread % 32u;\nemulated_lane = lane;\n");
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
        line = line.replace(&format!("coopLoad<coop_mat16x16<f16, {factor}>>(&tile["), "emulated_columns((");
    }
    line = line.replace("coopLoadT<coop_mat16x16<f32, C>>(&dw[", "emulated_load_dw((");
    for array in ["stage", "y", "dw"] {
        if let Some(at) = line.find(&format!(", &{array}[")).filter(|_| line.contains("coopStoreT(")) {
            line = line.replace("coopStoreT(", &format!("emulated_store_{array}("));
            let at = at + format!("emulated_store_{array}(").len() - "coopStoreT(".len();
            line.replace_range(at..at + format!(", &{array}[").len(), ", (");
        }
    }
    if line.contains("emulated_") && line.contains("], ") {
        line = line.replace("], ", "), ");
    }
    line
}

const LIBRARY: &str = "
struct Factor { at: u32, row: u32, column: u32 }
struct Sums { low: vec4<f32>, high: vec4<f32> }
var<private> emulated_lane: u32;
fn emulated_rows(at: u32, stride: u32) -> Factor { return Factor(at * 4u, stride * 4u, 1u); }
fn emulated_columns(at: u32, stride: u32) -> Factor { return Factor(at * 4u, 1u, stride * 4u); }
fn emulated_product(a: Factor, b: Factor, c: Sums) -> Sums {
    var sums = c;
    let row = emulated_lane / 2u;
    let column = emulated_lane % 2u * 8u;
    for (var k = 0u; k < 16u; k++) {
        let i = a.at + row * a.row + k * a.column;
        let j = (b.at + k * b.row + column) / 4u;
        let factor = f32(tile[i / 4u][i % 4u]);
        sums.low += factor * vec4<f32>(tile[j]);
        sums.high += factor * vec4<f32>(tile[j + 1u]);
    }
    return sums;
}
";

const STORES: &str = "
fn emulated_store_NAME(sums: Sums, at: u32, stride: u32) {
    let to = at + emulated_lane / 2u * stride + emulated_lane % 2u * 2u;
    NAME[to] = sums.low;
    NAME[to + 1u] = sums.high;
}
fn emulated_load_NAME(at: u32, stride: u32) -> Sums {
    let start = at + emulated_lane / 2u * stride + emulated_lane % 2u * 2u;
    return Sums(NAME[start], NAME[start + 1u]);
}
";
