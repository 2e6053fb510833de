// A linear layer of few rows: y[m,k] = bias[k] + Σ_c x[m,c]·w[c,k], and its gradients.
// x [rows, C], w [C, K], y [rows, K], all f32, C and K multiples of 4.
// With few rows the time is that of reading w: every load is of 16 bytes, and what one sum adds is spread over lanes of a
// workgroup, which meet in workgroup memory. The order of a sum depends on C and K alone, that of dw on the rows.

struct Params {
    rows: u32,
    in_c: u32,  // C
    out_c: u32, // K
    accumulate: u32,
    has_bias: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;         // [rows, C/4]
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;         // [C, K/4]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;      // [K/4], or unread
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;   // [rows, K/4]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;        // [rows, K/4]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;        // [rows, C]
@group(0) @binding(3) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> px: array<vec4<f32>>;        // [rows, C/4]
@group(0) @binding(1) var<storage, read> pdy: array<vec4<f32>>;       // [rows, K/4]
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;  // [C, K/4]
@group(0) @binding(3) var<uniform> s: Params;

// forward: 8 rows by 8 quads of columns a workgroup, 32 lanes a sum. Four rows meet at a time: 16 KiB.
const SLICES: u32 = 32u;
const QUADS: u32 = 8u;
var<workgroup> parts: array<vec4<f32>, 1024>; // [4 rows][32 slices][8 quads]

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = p.out_c / 4u;
    let depth = p.in_c / 4u;
    let slice = lane / QUADS;
    // Lanes past the edge repeat what is within; only what lies within is written.
    let column = min(wid.x * QUADS + lane % QUADS, quads - 1u);
    let first = wid.y * 8u;
#unroll r in 0..8
    let row${r} = min(first + ${r}u, p.rows - 1u) * depth;
    var sum${r} = vec4<f32>(0.0);
#end
    for (var c = slice; c < depth; c += SLICES) {
        let at = c * 4u * quads + column;
        let w0 = w[at];
        let w1 = w[at + quads];
        let w2 = w[at + 2u * quads];
        let w3 = w[at + 3u * quads];
#unroll r in 0..8
        let x${r} = x[row${r} + c];
        sum${r} += x${r}.x * w0 + x${r}.y * w1 + x${r}.z * w2 + x${r}.w * w3;
#end
    }
    parts[lane] = sum0;
    parts[256u + lane] = sum1;
    parts[512u + lane] = sum2;
    parts[768u + lane] = sum3;
    workgroupBarrier();
    write_four(lane, wid.x * QUADS, first, quads);
    workgroupBarrier();
    parts[lane] = sum4;
    parts[256u + lane] = sum5;
    parts[512u + lane] = sum6;
    parts[768u + lane] = sum7;
    workgroupBarrier();
    write_four(lane, wid.x * QUADS, first + 4u, quads);
}

fn write_four(lane: u32, first_column: u32, first_row: u32, quads: u32) {
    let row = first_row + lane / QUADS;
    let column = first_column + lane % QUADS;
    if (lane >= 4u * QUADS || row >= p.rows || column >= quads) {
        return;
    }
    var total = vec4<f32>(0.0);
    if (p.has_bias != 0u) {
        total = bias[column];
    }
    for (var slice = 0u; slice < SLICES; slice++) {
        total += parts[(lane / QUADS) * 256u + slice * QUADS + lane % QUADS];
    }
    y[row * quads + column] = total;
}

// input_gradient: dx[m,c] = Σ_k dy[m,k]·w[c,k]: 8 rows by 8 channels a workgroup, 32 lanes a sum.
var<workgroup> products: array<f32, 2048>; // [8 rows][8 channels][32 lanes]

@compute @workgroup_size(256)
fn input_gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = q.out_c / 4u;
    let channel = min(wid.x * 8u + lane / 32u, q.in_c - 1u);
    let first = wid.y * 8u;
#unroll r in 0..8
    let row${r} = min(first + ${r}u, q.rows - 1u) * quads;
    var sum${r} = 0.0;
#end
    for (var k = lane % 32u; k < quads; k += 32u) {
        let weight = w[channel * quads + k];
#unroll r in 0..8
        sum${r} += dot(dy[row${r} + k], weight);
#end
    }
#unroll r in 0..8
    products[${r}u * 256u + lane] = sum${r};
#end
    workgroupBarrier();
    let row = first + lane / 8u;
    let c = wid.x * 8u + lane % 8u;
    if (lane >= 64u || row >= q.rows || c >= q.in_c) {
        return;
    }
    var total = 0.0;
    for (var i = 0u; i < 32u; i++) {
        total += products[(lane / 8u) * 256u + (lane % 8u) * 32u + i];
    }
    let at = row * q.in_c + c;
    dx[at] = select(total, dx[at] + total, q.accumulate != 0u);
}

// weight_gradient: dw[c,k] = Σ_m x[m,c]·dy[m,k]: four by four of it an invocation.
@compute @workgroup_size(64)
fn weight_gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = s.out_c / 4u;
    let depth = s.in_c / 4u;
    let column = wid.x * 64u + lane;
    if (column >= quads) {
        return;
    }
#unroll i in 0..4
    var sum${i} = vec4<f32>(0.0);
#end
    for (var m = 0u; m < s.rows; m++) {
        let a = px[m * depth + wid.y];
        let g = pdy[m * quads + column];
#unroll i in 0..4
        sum${i} += a[${i}] * g;
#end
    }
#unroll i in 0..4
    {
        let at = (wid.y * 4u + ${i}u) * quads + column;
        if (s.accumulate != 0u) {
            sum${i} += dw[at];
        }
        dw[at] = sum${i};
    }
#end
}
