// A linear layer of few rows: y[m,k] = bias[k] + Σ_c x[m,c]·w[c,k], and its gradients.
// x [rows, C], w [C, K], y [rows, K], all f32, C and K multiples of 4.
// With few rows the time is that of waiting for w: every load is of 16 bytes, what one sum adds is spread over 32 lanes of a
// workgroup, which meet in workgroup memory, and a lane asks for several rounds of loads before it uses the first. The order
// of a sum depends on C and K alone, that of dw on the rows; every product is added by an `fma` of its own, so that no
// compiler rounds the kernel of one row otherwise than that of eight.
// Trusted: rows, columns and channels past the end are clamped to the last, and only what lies within is written.

struct Params {
    rows: u32,
    in_c: u32,  // C
    out_c: u32, // K
    accumulate: u32,
    has_bias: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;         // [rows, C/4]
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;         // [C, K/4]
@group(0) @binding(2) var<storage, read> bias: array<f32>;            // [K], or unread
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [rows, K]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;        // [rows, K/4]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;        // [rows, C]
@group(0) @binding(3) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> px: array<vec4<f32>>;        // [rows, C/4]
@group(0) @binding(1) var<storage, read> pdy: array<vec4<f32>>;       // [rows, K/4]
@group(0) @binding(2) var<storage, read_write> dw: array<vec4<f32>>;  // [C, K/4]
@group(0) @binding(3) var<uniform> s: Params;

// forwardN: N rows by 4 COLUMNS columns a workgroup, 32 lanes a sum.
const SLICES: u32 = 32u;
override columns: u32 = 4u;              // quads of columns: 2 or 4
override lanes: u32 = 128u;              // SLICES · columns
var<workgroup> parts: array<vec4<f32>, 1024>; // [N][SLICES][columns]

// Adds up what the lanes found, an output a lane: four sums of eight, then those.
fn write_rows(lane: u32, first_column: u32, first_row: u32, rows: u32) {
    let row = lane / (4u * columns);
    let k = first_column * 4u + lane % (4u * columns);
    if (row >= rows || first_row + row >= p.rows || k >= p.out_c) {
        return;
    }
    var total = vec4<f32>(0.0);
    let part = lane % (4u * columns) / 4u;
    for (var slice = 0u; slice < SLICES; slice += 4u) {
        let at = (row * SLICES + slice) * columns + part;
        total.x += parts[at][lane % 4u];
        total.y += parts[at + columns][lane % 4u];
        total.z += parts[at + 2u * columns][lane % 4u];
        total.w += parts[at + 3u * columns][lane % 4u];
    }
    var sum = (total.x + total.y) + (total.z + total.w);
    if (p.has_bias != 0u) {
        sum += bias[k];
    }
    y[(first_row + row) * p.out_c + k] = sum;
}

#unroll n in 1..9
@compute @workgroup_size(lanes)
fn forward${n}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = p.out_c / 4u;
    let depth = p.in_c / 4u;
    let column = min(wid.x * columns + lane % columns, quads - 1u);
    let first = wid.y * ${n}u;
#unroll r in 0..${n}
    let row${r} = min(first + ${r}u, p.rows - 1u) * depth;
    var sum${r} = vec4<f32>(0.0);
#end
    var c = lane / columns;
    for (; c + 3u * SLICES < depth; c += 4u * SLICES) {
#unroll t in 0..4
#unroll i in 0..4
        let w${t}_${i} = w[((c + ${t}u * SLICES) * 4u + ${i}u) * quads + column];
#end
#end
#unroll t in 0..4
#unroll r in 0..${n}
        let x${t}_${r} = x[row${r} + c + ${t}u * SLICES];
#unroll i in 0..4
        sum${r} = fma(vec4<f32>(x${t}_${r}[${i}]), w${t}_${i}, sum${r});
#end
#end
#end
    }
    for (; c < depth; c += SLICES) {
#unroll i in 0..4
        let w${i} = w[(c * 4u + ${i}u) * quads + column];
#end
#unroll r in 0..${n}
        let x${r} = x[row${r} + c];
#unroll i in 0..4
        sum${r} = fma(vec4<f32>(x${r}[${i}]), w${i}, sum${r});
#end
#end
    }
#unroll r in 0..${n}
    parts[${r}u * lanes + lane] = sum${r};
#end
    workgroupBarrier();
    write_rows(lane, wid.x * columns, first, ${n}u);
}
#end

// input_gradient: dx[m,c] = Σ_k dy[m,k]·w[c,k]: 8 rows by 8 channels a workgroup, 32 lanes a sum, 2 channels a lane.
const STRIDE: u32 = 33u; // of a sum's lanes, so that lanes that add up different sums do not wait for each other
var<workgroup> products: array<f32, 2112>; // [8 rows][8 channels][STRIDE]

@compute @workgroup_size(128)
fn input_gradient(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let quads = q.out_c / 4u;
    let first = wid.y * 8u;
    let channel = lane / 32u * 2u;
#unroll i in 0..2
    let from${i} = min(wid.x * 8u + channel + ${i}u, q.in_c - 1u) * quads;
#end
#unroll r in 0..8
    let row${r} = min(first + ${r}u, q.rows - 1u) * quads;
#unroll i in 0..2
    var sum${r}_${i} = 0.0;
#end
#end
    var k = lane % 32u;
    for (; k + 32u < quads; k += 64u) {
#unroll t in 0..2
#unroll i in 0..2
        let w${t}_${i} = w[from${i} + k + ${t}u * 32u];
#end
#unroll r in 0..8
        let g${t}_${r} = dy[row${r} + k + ${t}u * 32u];
#end
#end
#unroll t in 0..2
#unroll r in 0..8
#unroll i in 0..2
#unroll j in 0..4
        sum${r}_${i} = fma(g${t}_${r}[${j}], w${t}_${i}[${j}], sum${r}_${i});
#end
#end
#end
#end
    }
    if (k < quads) {
#unroll r in 0..8
        let g${r} = dy[row${r} + k];
#unroll i in 0..2
#unroll j in 0..4
        sum${r}_${i} = fma(g${r}[${j}], w[from${i} + k][${j}], sum${r}_${i});
#end
#end
#end
    }
#unroll r in 0..8
#unroll i in 0..2
    products[(${r}u * 8u + channel + ${i}u) * STRIDE + lane % 32u] = sum${r}_${i};
#end
#end
    workgroupBarrier();
    let row = first + lane / 8u;
    let c = wid.x * 8u + lane % 8u;
    if (lane >= 64u || row >= q.rows || c >= q.in_c) {
        return;
    }
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < 32u; i += 4u) {
#unroll j in 0..4
        total[${j}] += products[lane * STRIDE + i + ${j}u];
#end
    }
    let sum = (total.x + total.y) + (total.z + total.w);
    let at = row * q.in_c + c;
    if (q.accumulate != 0u) {
        dx[at] += sum;
    } else {
        dx[at] = sum;
    }
}

// weight_gradient: dw[c,k] = Σ_m x[m,c]·dy[m,k]: four by four of it an invocation, sixteen or eight rows asked for at once.
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
    var m = 0u;
    for (; m + 15u < s.rows; m += 16u) {
#unroll r in 0..16
        let a${r} = px[(m + ${r}u) * depth + wid.y];
        let g${r} = pdy[(m + ${r}u) * quads + column];
#end
#unroll r in 0..16
#unroll i in 0..4
        sum${i} = fma(vec4<f32>(a${r}[${i}]), g${r}, sum${i});
#end
#end
    }
    for (; m + 7u < s.rows; m += 8u) {
#unroll r in 0..8
        let a${r} = px[(m + ${r}u) * depth + wid.y];
        let g${r} = pdy[(m + ${r}u) * quads + column];
#end
#unroll r in 0..8
#unroll i in 0..4
        sum${i} = fma(vec4<f32>(a${r}[${i}]), g${r}, sum${i});
#end
#end
    }
    for (; m < s.rows; m++) {
        let a = px[m * depth + wid.y];
        let g = pdy[m * quads + column];
#unroll i in 0..4
        sum${i} = fma(vec4<f32>(a[${i}]), g, sum${i});
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
