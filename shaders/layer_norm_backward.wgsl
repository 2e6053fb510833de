#import index
#import pack
#import layer_norm_parts
// Layer norm, backward. With x̂ = (x - mean)·rstd and g = dy·gamma:  dx = rstd·(g - mean g - x̂·mean(g·x̂)),
// dgamma = Σ dy·x̂,  dbeta = Σ dy over rows.
// x, dy, dx [rows, C] elem; gamma [C] f32; of_rows [rows, 2] f32: mean, rstd.
// input_rows, input_teams: dx, as the forward entries of these names.  affine_blocks: dgamma and dbeta of blocks of rows; affine:
// those together.

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read> dy: array<elem>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> of_rows: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> dx: array<elem>;
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read> dy_pack: array<pack>;
@group(0) @binding(2) var<storage, read> gamma4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dx_pack: array<pack>;

@group(0) @binding(2) var<storage, read> statistics: array<vec2<f32>>;    // of_rows
@group(0) @binding(3) var<storage, read_write> partial: array<vec2<f32>>; // [blocks, C]: dgamma, dbeta
@group(0) @binding(4) var<uniform> a: Params;

@group(0) @binding(0) var<storage, read> of_blocks: array<vec2<f32>>;     // [blocks, C]
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;     // [C]: dgamma or dbeta
@group(0) @binding(2) var<uniform> b: Params;

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
    let mean = of_rows[row].x;
    let rstd = of_rows[row].y;
    var sums = vec2<f32>(); // of g and g·x̂
    for (var c = 0u; c < p.channels; c++) {
        var g = f32(dy[first + c]);
        if (p.gamma != 0u) {
            g *= gamma[c];
        }
        sums += vec2<f32>(g, g * (f32(x[first + c]) - mean) * rstd);
    }
    sums /= f32(p.channels);
    for (var c = 0u; c < p.channels; c++) {
        var g = f32(dy[first + c]);
        if (p.gamma != 0u) {
            g *= gamma[c];
        }
        var v = rstd * (g - sums.x - (f32(x[first + c]) - mean) * rstd * sums.y);
        if (p.accumulate != 0u) {
            v += f32(dx[first + c]);
        }
        dx[first + c] = elem(v);
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
    let mean = of_rows[row].x;
    let rstd = of_rows[row].y;
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
            g${k}_${v} *= gamma4[at${k} * ${vectors}u + ${v}u];
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
