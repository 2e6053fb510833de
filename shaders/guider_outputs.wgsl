#import index
// Outputs of networks as guiders need them, in place; channels from C on (variances) are left as they are.
//   to_eps: out <- (z - alpha out)/sigma where it is x, sigma z + alpha out where it is v, z + alpha out where it is eps - x of a
//           flow, z - alpha out where it is x - eps, (sigma/r z - alpha sigma_data out)/r where it is preconditioned,
//           r = sqrt(sigma^2 + (sigma_data alpha)^2); all K evaluations.
//   put:    the first C channels of the first N samples of out <- guided.
// out [K·N, H, W, E] f32, E >= C; z and guided [N, H, W, C] f32.

struct Params {
    count: u32,        // K·N·H·W·C; for put N·H·W·C
    length: u32,       // H·W·C
    channels: u32,     // C
    out_channels: u32, // E
    samples: u32,      // N
    steps: u32,        // T
    velocity: u32,     // 0: out is x, 1: v, 2: eps - x, 3: x - eps, 4: preconditioned
    sigma_data: f32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>; // [T, 2]: w, alpha, sigma, log_snr; ..
@group(0) @binding(3) var<storage, read> counter: array<u32>;     // [1]
@group(0) @binding(4) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> guided: array<f32>;
@group(0) @binding(2) var<uniform> q: Params;

// Where element i of [.., C] lies in [.., E].
fn place(i: u32, o: Params) -> u32 {
    return i / o.channels * o.out_channels + i % o.channels;
}

@compute @workgroup_size(64)
fn to_eps(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let step = table[min(counter[0], p.steps - 1u) * 2u];
    let value = z[i % (p.samples * p.length)];
    let at = place(i, p);
    if (p.velocity == 1u) {
        out[at] = step.z * value + step.y * out[at];
    } else if (p.velocity == 2u) {
        out[at] = value + step.y * out[at];
    } else if (p.velocity == 3u) {
        out[at] = value - step.y * out[at];
    } else if (p.velocity == 4u) {
        let signal = p.sigma_data * step.y;
        let r = sqrt(step.z * step.z + signal * signal);
        out[at] = (step.z / r * value - signal * out[at]) / r;
    } else {
        out[at] = (value - step.y * out[at]) / step.z;
    }
}

@compute @workgroup_size(64)
fn put(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i < q.count) {
        out[place(i, q)] = guided[i];
    }
}
