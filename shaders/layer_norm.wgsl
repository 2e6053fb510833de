#import index
#import pack
#import layer_norm_parts
// Layer norm.  y = (x - mean)·rstd·gamma + beta,  mean and rstd = (var + eps)^-½ of a row.
// x, y [rows, C] elem; gamma, beta [C] f32; of_rows [rows, 2] f32: mean, rstd.
// rows: a row an invocation.  teams: TEAM invocations a row, which they hold in registers, four packs each at most; C is whole
// packs.
// Law: two passes over a row, sums f32.

@group(0) @binding(0) var<storage, read> x: array<elem>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;
@group(0) @binding(4) var<storage, read_write> of_rows: array<vec2<f32>>;
@group(0) @binding(5) var<uniform> p: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read> gamma4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> beta4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y_pack: array<pack>;

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
