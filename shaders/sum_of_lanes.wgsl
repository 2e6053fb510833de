// Sums over a workgroup of 256.  A library: no entry point, no binding; 4 KiB of workgroup memory.
// Law: a tree over the lanes, in an order that is always the same.

const LANES: u32 = 256u;
var<workgroup> sums: array<vec4<f32>, LANES>;

// The sum of all lanes' values, for all of them.
fn summed(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // nobody still reads the sum before
    sums[lane] = mine;
    for (var width = LANES / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if (lane < width) {
            sums[lane] += sums[lane + width];
        }
    }
    workgroupBarrier();
    return sums[0];
}
