#import attention_sequence
// What attention in tiles of 64 rows by 64 columns is made of; formulas as in attention.wgsl.  A library: no entry point; who
// imports it declares `Params` in a binding of its own.
// q and kv as attention_params.wgsl says, y [N, T, H, d], lse and delta [N, H, T]; d must divide by 4.
// Forward and for dq rows are queries and columns keys; for dk and dv the other way round. A workgroup of 128 makes
// 64 rows of the output and up to 64 channels of them: larger heads make their scores again for every 64.
// Of the scores a lane has rows ty + 16r and columns tx + 8j, of the output the same rows and quads tx and tx + 8 of the span.
// Workgroup memory: exactly WebGPU's 16 KiB.
//
// In bounds, for the compiler adds no checks here: rows past the last token are read as the last, quads past a row's end as its
// last; a sequence that is not there is read as the last. `rows` is read for pictures that are there, and only if ROWS. Indices
// of `memory` are below 528 where products are made, 1024 where weights and values are shared.

const SPAN = 16u; // quads of the output that a workgroup makes

@group(0) @binding(0) var<storage, read> q4: array<vec4<elem>>;
@group(0) @binding(1) var<storage, read> kv4: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;       // [N], or unread
@group(0) @binding(3) var<storage, read> dy4: array<vec4<elem>>; // [N, T, H·d/4]; forward: unread

var<workgroup> memory: array<vec4<f32>, 1024>;
const COLUMNS = 264u; // where products have their columns: 4 quads of 66 rows come before
const VALUES = 512u;  // where the values begin: 32 weights of 16 fours of rows come before

// Where rows stand.
const IN_Q = 0u;
const IN_KV = 1u;
const IN_DY = 2u;

// A tile's rows of q, k, v or dy.
struct Rows {
    place: u32,
    at: u32,     // the first row, in quads
    step: u32,   // from row to row
    last: u32,   // the last row there is, counted from the first; those beyond read this one
    quads: u32,  // of a row; those beyond read the last
}

fn load(tile: Rows, row: u32, quad: u32) -> vec4<f32> {
    let at = tile.at + min(row, tile.last) * tile.step + min(quad, tile.quads - 1u);
    switch (tile.place) {
        case IN_Q: {
            return vec4<f32>(q4[at]);
        }
        case IN_KV: {
            return vec4<f32>(kv4[at]);
        }
        default: {
            return vec4<f32>(dy4[at]);
        }
    }
}

// A lane's four rows of a tile, each at columns tx + 8j: j = 0..3 in `near`, 4..7 in `far`.
struct Scores {
    #unroll r in 0..4
    near${r}: vec4<f32>,
    far${r}: vec4<f32>,
    #end
}

// Products of 64 rows and 64 columns, over all their quads.
fn products(down: Rows, across: Rows, lane: u32) -> Scores {
    let tx = lane % 8u;
    let ty = lane / 8u;
    // [quad][row] with rows of 66, so that neither the writes nor the reads meet in a bank.
    let quad = lane % 4u;
    let row = lane / 4u;
    let cell = quad * 66u + row;
    var s: Scores;
    var a0 = load(down, row, quad);
    var a1 = load(down, row + 32u, quad);
    var b0 = load(across, row, quad);
    var b1 = load(across, row + 32u, quad);
    for (var slice = 0u; slice < down.quads; slice += 4u) {
        let inside = slice + quad < down.quads;
        workgroupBarrier();
        memory[cell] = select(vec4<f32>(), a0, inside);
        memory[cell + 32u] = select(vec4<f32>(), a1, inside);
        memory[COLUMNS + cell] = b0;
        memory[COLUMNS + cell + 32u] = b1;
        workgroupBarrier();
        // The next slice is under way while this one is worked on.
        if (slice + 4u < down.quads) {
            a0 = load(down, row, slice + 4u + quad);
            a1 = load(down, row + 32u, slice + 4u + quad);
            b0 = load(across, row, slice + 4u + quad);
            b1 = load(across, row + 32u, slice + 4u + quad);
        }
        for (var i = 0u; i < 4u; i++) {
            let a = i * 66u + ty;
            let b = COLUMNS + i * 66u + tx;
            let near = transpose(mat4x4<f32>(memory[b], memory[b + 8u], memory[b + 16u], memory[b + 24u]));
            let far = transpose(mat4x4<f32>(memory[b + 32u], memory[b + 40u], memory[b + 48u], memory[b + 56u]));
            #unroll r in 0..4
            let row${r} = memory[a + 16u * ${r}u];
            #unroll k in 0..4
            s.near${r} += row${r}[${k}] * near[${k}];
            s.far${r} += row${r}[${k}] * far[${k}];
            #end
            #end
        }
    }
    return s;
}

// A lane's part of 32 rows of the values' span: rows lane / 16 + 8j.
fn fetch(values: Rows, first: u32, span: u32, lane: u32) -> mat4x4<f32> {
    let row = first + lane / 16u;
    let quad = span * SPAN + lane % 16u;
    return mat4x4<f32>(
        load(values, row, quad),
        load(values, row + 8u, quad),
        load(values, row + 16u, quad),
        load(values, row + 24u, quad),
    );
}

// Puts the weights of 32 columns and their values where all lanes reach them. Between its barriers nothing else is read.
fn share(w: mat4x4<f32>, values: mat4x4<f32>, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    let by_column = transpose(w);
    workgroupBarrier();
    #unroll j in 0..4
    memory[(tx + 8u * ${j}u) * 16u + (ty ^ tx)] = by_column[${j}];
    memory[VALUES + ${j}u * 128u + lane] = values[${j}];
    #end
    workgroupBarrier();
}

// What a lane has of the output.
struct Sums {
    #unroll r in 0..4
    low${r}: vec4<f32>,
    high${r}: vec4<f32>,
    #end
}

// Adds weights · values of the 32 columns that are shared.
fn add_products(sums: ptr<function, Sums>, lane: u32) {
    let tx = lane % 8u;
    let ty = lane / 8u;
    var s = *sums;
    for (var column = 0u; column < 32u; column++) {
        let w = memory[column * 16u + (ty ^ (column % 8u))];
        let low = memory[VALUES + column * 16u + tx];
        let high = memory[VALUES + column * 16u + tx + 8u];
        #unroll r in 0..4
        s.low${r} += w[${r}] * low;
        s.high${r} += w[${r}] * high;
        #end
    }
    *sums = s;
}

// Adds weights · values of 64 columns, of which those past `last` are not there.
fn add_all(sums: ptr<function, Sums>, w: Scores, values: Rows, span: u32, lane: u32) {
    share(mat4x4<f32>(w.near0, w.near1, w.near2, w.near3), fetch(values, 0u, span, lane), lane);
    add_products(sums, lane);
    if (values.last >= 32u) {
        share(mat4x4<f32>(w.far0, w.far1, w.far2, w.far3), fetch(values, 32u, span, lane), lane);
        add_products(sums, lane);
    }
}
