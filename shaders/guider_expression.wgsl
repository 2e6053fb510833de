#import index
// A combination of the caller's: the text EXPRESSION below is replaced by WGSL of f32 before it is compiled.
// eps [2·N, H, W, E], E >= C: conditional, then unconditional; z and the result [N, H, W, C] f32.

struct Params {
    count: u32,        // N·length
    length: u32,       // H·W·C
    channels: u32,     // C
    eps_channels: u32, // E
    samples: u32,      // N
    steps: u32,        // T
}

@group(0) @binding(0) var<storage, read> guider_eps: array<elem>;
@group(0) @binding(1) var<storage, read> guider_table: array<vec4<f32>>; // [T, 2]: w, alpha, sigma, log_snr; progress, ..
@group(0) @binding(2) var<storage, read> guider_counter: array<u32>;     // [1]
@group(0) @binding(3) var<storage, read> guider_z: array<f32>;
@group(0) @binding(4) var<storage, read_write> guider_out: array<f32>;
@group(0) @binding(5) var<uniform> guider: Params;

fn guider_combined(
    eps_c: f32, eps_u: f32, z: f32, w: f32, alpha: f32, sigma: f32, log_snr: f32, progress: f32,
) -> f32 {
    return f32(eps_c); // EXPRESSION
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= guider.count) {
        return;
    }
    let row = min(guider_counter[0], guider.steps - 1u) * 2u;
    let step = guider_table[row];
    let n = i / guider.length;
    let whole = guider.length / guider.channels * guider.eps_channels;
    let l = i % guider.length;
    let at = n * whole + l / guider.channels * guider.eps_channels + l % guider.channels;
    let eps_c = f32(guider_eps[at]);
    let eps_u = f32(guider_eps[guider.samples * whole + at]);
    let more = guider_table[row + 1u];
    guider_out[i] = more.y * guider_combined(eps_c, eps_u, guider_z[i], step.x, step.y, step.z, step.w, more.x);
}
