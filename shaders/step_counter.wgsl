// The step a replayed plan is at.  advance: counter <- counter + 1.  times: t[m] = a word of the current step's row.
// steps [T, 12] words as in guided_step.wgsl and sampler_step.wgsl; the network's time is word 7 of both. A counter past the
// end stays at the last step.

struct Params {
    count: u32, // M
    steps: u32, // T
    word: u32,
}

@group(0) @binding(0) var<storage, read_write> counter: array<u32>; // [1]

@group(0) @binding(0) var<storage, read> steps: array<u32>;         // [T, 12]
@group(0) @binding(1) var<storage, read> current: array<u32>;       // [1]
@group(0) @binding(2) var<storage, read_write> t: array<f32>;       // [M]
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(1)
fn advance() {
    counter[0] += 1u;
}

@compute @workgroup_size(64)
fn times(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < p.count) {
        t[id.x] = bitcast<f32>(steps[min(current[0], p.steps - 1u) * 12u + p.word]);
    }
}
