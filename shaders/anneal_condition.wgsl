#import index
#import philox
#import normal
#import sum_of_lanes
// Noise on the embedding of a condition (CADS, arXiv 2310.17347; diffusion/guiders/annealing).
//   y' = keep y + add n,  out = mix ((y' - mean y') dev y / dev y' + mean y) + (1 - mix) y';  the null class stays as it is.
// y, out [K·N, D], D divisible by 4, the first condition of all samples first; labels [K·N].  Always f32.
// n is a sample's, the same for each of its conditions: key = its seed, counter = (d / 4, step, 0, stream).
// Law: 256 lanes, a workgroup a row, sum in an order of D alone.

struct Params {
    rows: u32,       // K·N
    samples: u32,    // N
    width: u32,      // D
    steps: u32,      // T
    null_label: u32,
    stream: u32,
    mix: f32,        // psi
}

@group(0) @binding(0) var<storage, read> y: array<f32>;             // [K·N, D]
@group(0) @binding(1) var<storage, read> labels: array<u32>;        // [K·N]
@group(0) @binding(2) var<storage, read> seeds: array<vec2<u32>>;   // [N] (low, high)
@group(0) @binding(3) var<storage, read> counter: array<u32>;       // [1]
@group(0) @binding(4) var<storage, read> noise: array<vec2<f32>>;   // [T] (keep, add)
@group(0) @binding(5) var<storage, read> table: array<vec2<u32>, 512>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;     // [K·N, D]
@group(0) @binding(7) var<uniform> p: Params;

@compute @workgroup_size(256)
fn anneal(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = linear_group(wid, groups);
    let row = min(group, p.rows - 1u);
    let step = min(counter[0], p.steps - 1u);
    let own = noise[step];
    let first = row * p.width;
    let whole = labels[row] == p.null_label || own.y == 0.0;

    // y', and the sums of y and y'. An invocation reads no place of `out` that another wrote.
    var sum = vec2<f32>();
    for (var block = lane; block < p.width / 4u; block += LANES) {
        let words = philox4x32_10(vec4<u32>(block, step, 0u, p.stream), seeds[row % p.samples]);
        for (var j = 0u; j < 4u; j++) {
            let d = first + 4u * block + j;
            let n = normal_from_word(words[j], table[normal_segment(words[j])]);
            let noisy = own.x * y[d] + own.y * n;
            out[d] = select(noisy, y[d], whole);
            sum += vec2<f32>(y[d], noisy);
        }
    }
    let mean = summed(lane, vec4<f32>(sum, 0.0, 0.0)).xy / f32(p.width);

    var squares = vec2<f32>();
    for (var block = lane; block < p.width / 4u; block += LANES) {
        for (var j = 0u; j < 4u; j++) {
            let d = first + 4u * block + j;
            let off = vec2<f32>(y[d], out[d]) - mean;
            squares += off * off;
        }
    }
    let square = summed(lane, vec4<f32>(squares, 0.0, 0.0)).xy;

    if (!whole && square.y > 0.0) {
        let factor = sqrt(square.x / square.y);
        for (var block = lane; block < p.width / 4u; block += LANES) {
            for (var j = 0u; j < 4u; j++) {
                let d = first + 4u * block + j;
                let restored = (out[d] - mean.y) * factor + mean.x;
                out[d] = mix(out[d], restored, p.mix);
            }
        }
    }
}
