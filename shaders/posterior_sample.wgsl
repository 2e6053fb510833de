#import index
// What an encoder says as a latent.  z = mean + exp(l/2)·ε, l clamped to [-30, 20]; without noise z = mean.
// dmean (+)= dz,  dl (+)= dz·ε·exp(l/2)/2 where l was not clamped.
// moments [pixels, 2, C]: mean, l;  ε, z, dz [pixels, C].

struct Params {
    count: u32,    // elements of z
    channels: u32, // C
    has_noise: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> moments: array<f32>;
@group(0) @binding(1) var<storage, read> noise: array<f32>; // anything without has_noise
@group(0) @binding(2) var<storage, read_write> z: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

@group(0) @binding(2) var<storage, read> dz: array<f32>;
@group(0) @binding(3) var<storage, read_write> d: array<f32>; // of the moments
@group(0) @binding(4) var<uniform> q: Params;

@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= p.count) {
        return;
    }
    let at = i / p.channels * 2u * p.channels + i % p.channels;
    var v = moments[at];
    if (p.has_noise != 0u) {
        v += exp(0.5 * clamp(moments[at + p.channels], -30.0, 20.0)) * noise[i];
    }
    z[i] = v;
}

@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 64u, lane);
    if (i >= q.count) {
        return;
    }
    let at = i / q.channels * 2u * q.channels + i % q.channels;
    var of_mean = dz[i];
    var of_spread = 0.0;
    let l = moments[at + q.channels];
    if (q.has_noise != 0u && l > -30.0 && l < 20.0) {
        of_spread = 0.5 * dz[i] * noise[i] * exp(0.5 * l);
    }
    if (q.accumulate != 0u) {
        of_mean += d[at];
        of_spread += d[at + q.channels];
    }
    d[at] = of_mean;
    d[at + q.channels] = of_spread;
}
