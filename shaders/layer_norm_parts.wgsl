// What forward and backward of layer norm share: parameters, and sums over the invocations of a row. Library file; 2 KiB of
// workgroup memory.
// Law: a tree over the invocations, in an order that depends on C alone.

struct Params {
    rows: u32,
    channels: u32,
    eps: f32,
    gamma: u32,      // whether there is one
    beta: u32,
    accumulate: u32,
    of_beta: u32,    // affine: dbeta instead of dgamma
    block: u32,      // rows of a block
    blocks: u32,
}

override TEAM: u32 = 64u; // invocations a row: a power of two, at most 256
const SIZE: u32 = 256u;
var<workgroup> sums: array<vec2<f32>, SIZE>;

// The sum of a team's values, for all of the team.
fn of_team(lane: u32, mine: vec2<f32>) -> vec2<f32> {
    workgroupBarrier(); // nobody still reads the sum before
    sums[lane] = mine;
    for (var width = TEAM / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane % TEAM < width) {
            sums[lane] += sums[lane + width];
        }
    }
    workgroupBarrier();
    return sums[lane - lane % TEAM];
}

fn total4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
