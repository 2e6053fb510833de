#import index
#import pack
// Layer norm.  y = (x - mean)·rstd·gamma + beta,  mean and rstd = (var + eps)^-½ of a row.
// With x̂ = (x - mean)·rstd and g = dy·gamma:  dx = rstd·(g - mean g - x̂·mean(g·x̂)),  dgamma = Σ dy·x̂,  dbeta = Σ dy over rows.
// x, y, dy, dx [rows, C] elem; gamma, beta [C] f32; of_rows [rows, 2] f32: mean, rstd.
// rows, input_rows: a row an invocation.  teams, input_teams: TEAM invocations a row, which they hold in registers, four packs
// each at most; C is whole packs.  affine_blocks: dgamma and dbeta of blocks of rows; affine: those together.
// Law: two passes over a row, sums f32, in an order that depends on C alone.

struct Params {
    rows: u32,
    channels: u32,
    eps: f32,
    gamma: u32,      // whether there is one
    beta: u32,
    accumulate: u32,
    of_beta: u32,    // affine: dbeta instead of dgamma
    block: u32,      // rows of a block
    blocks: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read_write> of_rows: array<vec2<f32>>;
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> dy: array<elem>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;              // gamma
@group(0) @binding(3) var<storage, read> known: array<vec2<f32>>;        // of_rows
@group(0) @binding(4) var<storage, read_write> dx: array<elem>;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read> gamma4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> beta4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y_pack: array<pack>;
@group(0) @binding(1) var<storage, read> dy_pack: array<pack>;
@group(0) @binding(2) var<storage, read> scale4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dx_pack: array<pack>;

@group(0) @binding(2) var<storage, read> statistics: array<vec2<f32>>;   // of_rows
@group(0) @binding(3) var<storage, read_write> partial: array<vec2<f32>>; // [blocks, C]: dgamma, dbeta
@group(0) @binding(4) var<uniform> a: Params;

@group(0) @binding(0) var<storage, read> of_blocks: array<vec2<f32>>;    // [blocks, C]
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;    // [C]: dgamma or dbeta
@group(0) @binding(2) var<uniform> b: Params;

// Mean and rstd, of the sums over a row of x - near and (x - near)². The mean of large values is rounded, but what it misses is
// small and is known well.
fn statistics_of(near: f32, sums: vec2<f32>) -> vec2<f32> {
    let moments = sums / f32(p.channels);
    let variance = max(moments.y - moments.x * moments.x, 0.0);
    return vec2<f32>(near + moments.x, 1.0 / sqrt(variance + p.eps));
}

@compute @workgroup_size(16)
fn rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_index(wid, groups, 16u, lane);
    if (row >= p.rows) {
        return;
    }
    let first = row * p.channels;
    var sum = 0.0;
    for (var c = 0u; c < p.channels; c++) {
        sum += f32(x[first + c]);
    }
    let near = sum / f32(p.channels);
    var moments = vec2<f32>();
    for (var c = 0u; c < p.channels; c++) {
        let d = f32(x[first + c]) - near;
        moments += vec2<f32>(d, d * d);
    }
    let of_row = statistics_of(near, moments);
    let mean = of_row.x;
    let rstd = of_row.y;
    for (var c = 0u; c < p.channels; c++) {
        var v = (f32(x[first + c]) - mean) * rstd;
        if (p.gamma != 0u) {
            v *= gamma[c];
        }
        if (p.beta != 0u) {
            v += beta[c];
        }
        y[first + c] = elem(v);
    }
    of_rows[row] = of_row;
}

@compute @workgroup_size(16)
fn input_rows(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_index(wid, groups, 16u, lane);
    if (row >= p.rows) {
        return;
    }
    let first = row * p.channels;
    let mean = known[row].x;
    let rstd = known[row].y;
    var sums = vec2<f32>(); // of g and g·x̂
    for (var c = 0u; c < p.channels; c++) {
        var g = f32(dy[first + c]);
        if (p.gamma != 0u) {
            g *= scale[c];
        }
        sums += vec2<f32>(g, g * (f32(x[first + c]) - mean) * rstd);
    }
    sums /= f32(p.channels);
    for (var c = 0u; c < p.channels; c++) {
        var g = f32(dy[first + c]);
        if (p.gamma != 0u) {
            g *= scale[c];
        }
        var v = rstd * (g - sums.x - (f32(x[first + c]) - mean) * rstd * sums.y);
        if (p.accumulate != 0u) {
            v += f32(dx[first + c]);
        }
        dx[first + c] = elem(v);
    }
}

override TEAM: u32 = 64u; // invocations a row: a power of two, at most 256
const SIZE: u32 = 256u;
var<workgroup> sums: array<vec2<f32>, SIZE>;

// The sum of a team's values, for all of the team.
fn of_team(lane: u32, mine: vec2<f32>) -> vec2<f32> {
    workgroupBarrier(); // nobody still reads the sum before
    sums[lane] = mine;
    for (var width = TEAM / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane % TEAM < width) {
            sums[lane] += sums[lane + width];
        }
    }
    workgroupBarrier();
    return sums[lane - lane % TEAM];
}

fn total4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(256)
fn teams(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_index(wid, groups, SIZE, lane) / TEAM;
    let packs = p.channels / LANES;
    let first = min(row, p.rows - 1u) * packs;
    let member = lane % TEAM;
    var sum = vec4<f32>();
    #unroll k in 0..4
    let at${k} = member + ${k}u * TEAM;
    var x${k}: pack; // zero
    if (at${k} < packs) {
        x${k} = x_pack[first + at${k}];
    }
    #unroll v in 0..${vectors}
    sum += part${v}(x${k});
    #end
    #end
    let near = of_team(lane, vec2<f32>(total4(sum), 0.0)).x / f32(p.channels);
    var distances = vec4<f32>();
    var squares = vec4<f32>();
    #unroll k in 0..4
    if (at${k} < packs) {
        #unroll v in 0..${vectors}
        let d${v} = part${v}(x${k}) - near;
        distances += d${v};
        squares += d${v} * d${v};
        #end
    }
    #end
    let of_row = statistics_of(near, of_team(lane, vec2<f32>(total4(distances), total4(squares))));
    let mean = of_row.x;
    let rstd = of_row.y;
    if (row >= p.rows) {
        return;
    }
    #unroll k in 0..4
    if (at${k} < packs) {
        var result: pack;
        #unroll v in 0..${vectors}
        let c${v} = at${k} * ${vectors}u + ${v}u;
        var y${v} = (part${v}(x${k}) - mean) * rstd;
        if (p.gamma != 0u) {
            y${v} *= gamma4[c${v}];
        }
        if (p.beta != 0u) {
            y${v} += beta4[c${v}];
        }
        put${v}(&result, y${v});
        #end
        y_pack[first + at${k}] = result;
    }
    #end
    if (member == 0u) {
        of_rows[row] = of_row;
    }
}

@compute @workgroup_size(256)
fn input_teams(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let asked = linear_index(wid, groups, SIZE, lane) / TEAM;
    let row = min(asked, p.rows - 1u);
    let packs = p.channels / LANES;
    let first = row * packs;
    let member = lane % TEAM;
    let mean = known[row].x;
    let rstd = known[row].y;
    var of_g = vec4<f32>();
    var of_product = vec4<f32>();
    #unroll k in 0..4
    let at${k} = member + ${k}u * TEAM;
    #unroll v in 0..${vectors}
    var g${k}_${v} = vec4<f32>();
    var n${k}_${v} = vec4<f32>(); // x̂
    #end
    if (at${k} < packs) {
        let dy${k} = dy_pack[first + at${k}];
        let x${k} = x_pack[first + at${k}];
        #unroll v in 0..${vectors}
        g${k}_${v} = part${v}(dy${k});
        if (p.gamma != 0u) {
            g${k}_${v} *= scale4[at${k} * ${vectors}u + ${v}u];
        }
        n${k}_${v} = (part${v}(x${k}) - mean) * rstd;
        of_g += g${k}_${v};
        of_product += g${k}_${v} * n${k}_${v};
        #end
    }
    #end
    let means = of_team(lane, vec2<f32>(total4(of_g), total4(of_product))) / f32(p.channels);
    if (asked >= p.rows) {
        return;
    }
    #unroll k in 0..4
    if (at${k} < packs) {
        var before: pack; // zero
        if (p.accumulate != 0u) {
            before = dx_pack[first + at${k}];
        }
        var result: pack;
        #unroll v in 0..${vectors}
        put${v}(&result, rstd * (g${k}_${v} - means.x - n${k}_${v} * means.y) + part${v}(before));
        #end
        dx_pack[first + at${k}] = result;
    }
    #end
}

@compute @workgroup_size(64)
fn affine_blocks(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= a.blocks * a.channels) {
        return;
    }
    let c = i % a.channels;
    let begin = i / a.channels * a.block;
    var sum = vec2<f32>();
    for (var row = begin; row < min(begin + a.block, a.rows); row++) {
        let g = f32(dy[row * a.channels + c]);
        let of_row = statistics[row];
        sum += vec2<f32>(g * (f32(x[row * a.channels + c]) - of_row.x) * of_row.y, g);
    }
    partial[i] = sum;
}

@compute @workgroup_size(64)
fn affine(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = linear_index(wid, groups, 64u, lane);
    if (c >= b.channels) {
        return;
    }
    var sum = vec2<f32>();
    for (var block = 0u; block < b.blocks; block++) {
        sum += of_blocks[block * b.channels + c];
    }
    var v = select(sum.x, sum.y, b.of_beta != 0u);
    if (b.accumulate != 0u) {
        v += parameter[c];
    }
    parameter[c] = v;
}
