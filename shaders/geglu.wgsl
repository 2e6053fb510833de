#import index
#import pack
#import gelu_curve
// GEGLU.  x = [value, gate] along channels;  y = value·gelu(gate),  dvalue = dy·gelu(gate),  dgate = dy·value·gelu'(gate).
// x and dx [rows, 2C], y and dy [rows, C]; `count` elements of y, or packs of them in the entries that end in _packed, and
// then C is of packs, too.

struct Params {
    count: u32,
    channels: u32, // C
    accumulate: u32,
}

@group(0) @binding(0) var<storage, read> x: array<elem>;        // [rows, 2C]
@group(0) @binding(1) var<storage, read_write> y: array<elem>;  // [rows, C]
@group(0) @binding(2) var<uniform> p: Params;

@group(0) @binding(1) var<storage, read> dy: array<elem>;       // [rows, C]
@group(0) @binding(2) var<storage, read_write> dx: array<elem>; // [rows, 2C]
@group(0) @binding(3) var<uniform> q: Params;

@group(0) @binding(0) var<storage, read> x_pack: array<pack>;
@group(0) @binding(1) var<storage, read_write> y_pack: array<pack>;
@group(0) @binding(1) var<storage, read> dy_pack: array<pack>;
@group(0) @binding(2) var<storage, read_write> dx_pack: array<pack>;

// Where the value of element i of y stands in x; its gate is C behind it.
fn value_of(i: u32, channels: u32) -> u32 {
    return i + i / channels * channels;
}

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
    let at = value_of(i, p.channels);
    y[i] = elem(f32(x[at]) * gelu_erf4(vec4<f32>(f32(x[at + p.channels]))).x);
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
    let at = value_of(i, q.channels);
    let upstream = f32(dy[i]);
    let gate = vec4<f32>(f32(x[at + q.channels]));
    var of_value = upstream * gelu_erf4(gate).x;
    var of_gate = upstream * f32(x[at]) * gelu_erf_slope4(gate).x;
    if (q.accumulate != 0u) {
        of_value += f32(dx[at]);
        of_gate += f32(dx[at + q.channels]);
    }
    dx[at] = elem(of_value);
    dx[at + q.channels] = elem(of_gate);
}

@compute @workgroup_size(256)
fn forward_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= p.count) {
        return;
    }
    let at = value_of(i, p.channels);
    let value = x_pack[at];
    let gate = x_pack[at + p.channels];
    var result: pack;
    #unroll v in 0..${vectors}
    put${v}(&result, part${v}(value) * gelu_erf4(part${v}(gate)));
    #end
    y_pack[i] = result;
}

@compute @workgroup_size(256)
fn backward_packed(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_index(wid, groups, 256u, lane);
    if (i >= q.count) {
        return;
    }
    let at = value_of(i, q.channels);
    let value = x_pack[at];
    let gate = x_pack[at + q.channels];
    let upstream = dy_pack[i];
    var before_value: pack; // zero
    var before_gate: pack;
    if (q.accumulate != 0u) {
        before_value = dx_pack[at];
        before_gate = dx_pack[at + q.channels];
    }
    var of_value: pack;
    var of_gate: pack;
    #unroll v in 0..${vectors}
    let dy${v} = part${v}(upstream);
    let gate${v} = part${v}(gate);
    put${v}(&of_value, dy${v} * gelu_erf4(gate${v}) + part${v}(before_value));
    put${v}(&of_gate, dy${v} * part${v}(value) * gelu_erf_slope4(gate${v}) + part${v}(before_gate));
    #end
    dx_pack[at] = of_value;
    dx_pack[at + q.channels] = of_gate;
}
