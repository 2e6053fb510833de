#import index
#import pack
// Group norm of many pixels, or of a picture in several tensors.  See ops/group_norm/chunks.rs, ops/group_norm_parts.rs.
//   channels: of each block of 128 pixels of a part, mean and Σ(x - mean)² of every channel
//   chunks:   those of 64 blocks and the channels of a group together, with their count
//   whole:    those of all chunks of all parts, and what they make of each channel: mean, gain, bias
//   apply:    y[to + i] = act((x[source + i] - mean)·gain + bias) of `pixels` pixels
// Entries that end in _packed are for channels of whole packs. Differences are from the first of what is summed, so a large
// mean costs no digits. Neither workgroup memory nor barriers.

const BLOCK: u32 = 128u;
const CHUNK: u32 = 64u;

struct Params {
    pixels: u32,   // of the part, or to be normed
    channels: u32, // C
    groups: u32,   // G
    blocks: u32,   // of the part
    chunks: u32,   // of all parts
    first: u32,    // chunk of the part's
    source: u32,     // pixel of x
    to: u32,       // pixel of y
    silu: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;                     // [P, C]
@group(0) @binding(0) var<storage, read> x_pack: array<pack>;                // [P, C]
@group(0) @binding(1) var<storage, read_write> of_blocks: array<vec2<f32>>;  // [blocks, C]: mean, Σ(x - mean)²
@group(0) @binding(2) var<uniform> p: Params;

// Mean and squares of n differences d from an origin.
fn moments(origin: f32, n: f32, sum: f32, squares: f32) -> vec2<f32> {
    let shift = sum / n;
    return vec2<f32>(origin + shift, max(squares - sum * shift, 0.0));
}

@compute @workgroup_size(64)
fn channels(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.blocks * p.channels) {
        return;
    }
    let block = i / p.channels;
    let count = min(BLOCK, p.pixels - block * BLOCK);
    let first = (p.source + block * BLOCK) * p.channels + i % p.channels;
    let origin = f32(x[first]);
    var sum = 0.0;
    var squares = 0.0;
    for (var pixel = 0u; pixel < count; pixel++) {
        let d = f32(x[first + pixel * p.channels]) - origin;
        sum += d;
        squares += d * d;
    }
    of_blocks[i] = moments(origin, f32(count), sum, squares);
}

@compute @workgroup_size(64)
fn channels_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let packs = p.channels / LANES;
    if (i >= p.blocks * packs) {
        return;
    }
    let block = i / packs;
    let count = min(BLOCK, p.pixels - block * BLOCK);
    let first = (p.source + block * BLOCK) * packs + i % packs;
    let origin = x_pack[first];
#unroll v in 0..${vectors}
    let origin${v} = part${v}(origin);
    var sum${v} = vec4(0.0);
    var squares${v} = vec4(0.0);
#end
    for (var pixel = 0u; pixel < count; pixel++) {
        let value = x_pack[first + pixel * packs];
#unroll v in 0..${vectors}
        let d${v} = part${v}(value) - origin${v};
        sum${v} += d${v};
        squares${v} += d${v} * d${v};
#end
    }
    let at = block * p.channels + i % packs * LANES;
#unroll v in 0..${vectors}
#unroll k in 0..4
    of_blocks[at + 4u * ${v}u + ${k}u] = moments(origin${v}[${k}], f32(count), sum${v}[${k}], squares${v}[${k}]);
#end
#end
}

@group(0) @binding(0) var<storage, read> blocks: array<vec2<f32>>;           // [blocks, C]
@group(0) @binding(1) var<storage, read_write> of_chunks: array<vec4<f32>>;  // [chunks, G]: mean, Σ(x - mean)², count

@compute @workgroup_size(64)
fn chunks(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    let chunk = i / p.groups;
    if (chunk * CHUNK >= p.blocks) {
        return;
    }
    let width = p.channels / p.groups;
    let c0 = i % p.groups * width;
    let last = min(p.blocks, (chunk + 1u) * CHUNK);
    let origin = blocks[chunk * CHUNK * p.channels + c0].x;
    var sum = 0.0;
    var squares = 0.0;
    var count = 0.0;
    for (var block = chunk * CHUNK; block < last; block++) {
        let n = f32(min(BLOCK, p.pixels - block * BLOCK));
        for (var c = c0; c < c0 + width; c++) {
            let one = blocks[block * p.channels + c];
            let d = one.x - origin;
            sum += n * d;
            squares += one.y + n * d * d;
            count += n;
        }
    }
    of_chunks[(p.first + chunk) * p.groups + i % p.groups] = vec4(moments(origin, count, sum, squares), count, 0.0);
}

@group(0) @binding(0) var<storage, read> all_chunks: array<vec4<f32>>;       // [chunks, G]
@group(0) @binding(1) var<storage, read> gamma: array<f32>;                  // [C]
@group(0) @binding(2) var<storage, read> beta: array<f32>;                   // [C]
@group(0) @binding(3) var<storage, read_write> coefficients: array<f32>;     // [3, C]: mean, gain, bias
@group(0) @binding(4) var<uniform> q: Params;

@compute @workgroup_size(16)
fn whole(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_index(wid, groups, 16u, lane);
    if (group >= q.groups) {
        return;
    }
    let origin = all_chunks[group].x;
    var sum = 0.0;
    var squares = 0.0;
    var count = 0.0;
    for (var chunk = 0u; chunk < q.chunks; chunk++) {
        let one = all_chunks[chunk * q.groups + group];
        let d = one.x - origin;
        sum += one.z * d;
        squares += one.y + one.z * d * d;
        count += one.z;
    }
    let whole = moments(origin, count, sum, squares);
    let rstd = 1.0 / sqrt(whole.y / count + q.eps);
    let width = q.channels / q.groups;
    for (var c = group * width; c < (group + 1u) * width; c++) {
        coefficients[c] = whole.x;
        coefficients[q.channels + c] = rstd * gamma[c];
        coefficients[2u * q.channels + c] = beta[c];
    }
}

@group(0) @binding(1) var<storage, read> known: array<f32>;                  // [3, C]
@group(0) @binding(1) var<storage, read> known4: array<vec4<f32>>;           // [3, C]
@group(0) @binding(2) var<storage, read_write> y: array<elem>;               // [P, C]
@group(0) @binding(2) var<storage, read_write> y_pack: array<pack>;          // [P, C]
@group(0) @binding(3) var<uniform> r: Params;

@compute @workgroup_size(64)
fn apply(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= r.pixels * r.channels) {
        return;
    }
    let c = i % r.channels;
    let u = (f32(x[r.source * r.channels + i]) - known[c]) * known[r.channels + c] + known[2u * r.channels + c];
    y[r.to * r.channels + i] = elem(select(u, u / (1.0 + exp(-u)), r.silu != 0u));
}

@compute @workgroup_size(256)
fn apply_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    let packs = r.channels / LANES;
    if (i >= r.pixels * packs) {
        return;
    }
    let quads = r.channels / 4u;
    let quad = i % packs * (LANES / 4u);
    let value = x_pack[r.source * packs + i];
    var result: pack;
#unroll v in 0..${vectors}
    let d${v} = part${v}(value) - known4[quad + ${v}u];
    var u${v} = d${v} * known4[quads + quad + ${v}u] + known4[2u * quads + quad + ${v}u];
    if (r.silu != 0u) {
        u${v} = u${v} / (1.0 + exp(-u${v}));
    }
    put${v}(&result, u${v});
#end
    y_pack[r.to * packs + i] = result;
}
