#import index
// What a student learns from its teacher, or a step on the way there, element by element:
//   o = (1 + w) out_c - w out_u where the teacher is guided, else out;  x = clip(x_z z + x_out o);
//   y = of_z z + of_x x + of_start start.
// z and start [N, L/C, C], out [N or 2N, L/C, E], y [N, L/C, E]. Channels behind C are variances: y takes the first out's.
// Always f32.

struct Params {
    count: u32, // N·L/C·E
    length: u32, // of one sample's out
    channels: u32, // C
    out_channels: u32, // E
    other: u32, // where the second half of out begins; 0 where there is none
}

struct Row {
    x_z: f32,
    x_out: f32,
    of_z: f32,
    of_x: f32,
    of_start: f32,
    w: f32,
    bound: f32,
    pad: f32,
}

@group(0) @binding(0) var<storage, read> z: array<f32>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> start: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>; // [N]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

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
    let conditional = out[i];
    let channel = i % p.out_channels;
    if (channel >= p.channels) {
        y[i] = conditional;
        return;
    }
    let row = rows[i / p.length];
    let at = i / p.out_channels * p.channels + channel;
    var o = conditional;
    if (p.other > 0u) {
        o = (1.0 + row.w) * conditional - row.w * out[p.other + i];
    }
    let x = clamp(row.x_z * z[at] + row.x_out * o, -row.bound, row.bound);
    y[i] = row.of_z * z[at] + row.of_x * x + row.of_start * start[at];
}
