// What the entries of the guided step share.  A library: no entry point; it declares bindings 2 and 3.
// steps [T, 12] words: alpha, sigma, 1/alpha, mean_z, mean_x, noise_sd, log_snr, time, is_last (u32), 3 unused.

struct Params {
    count: u32,        // N·blocks; for magnitudes N·length
    blocks: u32,       // of a sample: ceil(length / 4)
    length: u32,       // H·W·C
    channels: u32,     // C
    pixels: u32,       // H·W
    eps_channels: u32, // E
    samples: u32,      // N
    pair: u32,         // whether eps has both halves
    clip: u32,         // 0: none, 1: to [-1, 1], 2: to ±s, then divided by s
    rows: u32,         // whether the rule has a row for each sample
    steps: u32,        // T
    stream: u32,
}

@group(0) @binding(2) var<storage, read> steps: array<vec4<u32>>;   // [T, 3]
@group(0) @binding(3) var<storage, read> counter: array<u32>;       // [1]

struct Step {
    sigma: f32,
    inverse_alpha: f32,
    mean_z: f32,
    mean_x: f32,
    noise_sd: f32,
    is_last: bool,
}

// A plan that is run too often stays at the last step.
fn step_index(count: u32) -> u32 {
    return min(counter[0], count - 1u);
}

fn current_step(count: u32) -> Step {
    let row = step_index(count) * 3u;
    let a = bitcast<vec4<f32>>(steps[row]);
    let b = bitcast<vec4<f32>>(steps[row + 1u]);
    return Step(a.y, a.z, a.w, b.x, b.y, steps[row + 2u].x != 0u);
}

// Four values of x after the clip.
fn clipped(x: vec4<f32>, s: f32, clip: u32) -> vec4<f32> {
    if (clip == 0u) {
        return x;
    }
    // A NaN must pass on to where it is noticed; clamp may swallow it.
    let is_nan = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    if (clip == 1u) {
        return select(clamp(x, vec4<f32>(-1.0), vec4<f32>(1.0)), x, is_nan);
    }
    return select(clamp(x, vec4<f32>(-s), vec4<f32>(s)) / s, x, is_nan);
}
