// How the group norms of one workgroup a slab share out their work.  A library: no entry point, no binding.
// x [N, P, C] with P pixels, in packs of sixteen bytes. Channels come in slabs of whole groups and whole packs. Workgroup
// (s, n) has slab s of image n: its lanes are rows of as many pixels as fit, a lane takes one pack of channels of every
// `rows`-th pixel. A pack is of at most two groups, the lower one and the next.
// Rows times packs and packs times PARTS are at most SIZE: `of_lanes` holds both.

override SIZE: u32 = 256u; // lanes of a workgroup
const GROUPS: u32 = 32u;   // the most groups of a slab
const PARTS: u32 = 32u;    // lanes that put a pack's rows together

struct Params {
    pixels: u32,      // P
    channels: u32,    // C
    width: u32,       // C/G
    packs: u32,       // of a slab: at most SIZE / PARTS
    rows: u32,        // SIZE / packs
    slab_groups: u32, // groups of a slab
    silu: u32,
    scale_shift: u32, // 0: none, 1: f32, 2: f16
    eps: f32,
}

// What a lane takes: packs base + pixel·stride of x, for pixel = row, row + rows, .. below P.
struct Share {
    base: u32,
    stride: u32,
    row: u32,
    slab_channel: u32, // the first of the slab
    first: u32,        // the first of the lane's, counted in the slab
}

// Lanes left over have a row that no pixel has.
fn share(wid: vec3<u32>, lane: u32, m: Params) -> Share {
    var s: Share;
    s.stride = m.channels / LANES;
    s.row = lane / m.packs;
    let pack = lane - s.row * m.packs;
    s.slab_channel = wid.x * m.packs * LANES;
    s.base = wid.y * m.pixels * s.stride + wid.x * m.packs + pack;
    s.first = pack * LANES;
    if (s.row >= m.rows) {
        s.row = m.pixels;
    }
    return s;
}

var<workgroup> of_lanes: array<vec4<f32>, SIZE>;

// Of every lane two sums for its lower group (x, y) and two for the next (z, w); the two of group `lane`, for lanes that are
// one, in an order that is always the same.
fn sums_of_group(lane: u32, sums: vec4<f32>, m: Params) -> vec2<f32> {
    of_lanes[lane] = sums;
    workgroupBarrier();
    // Rows of a pack: 32 lanes take every 32nd.
    let pack = lane / PARTS;
    var part = vec4<f32>();
    if (pack < m.packs) {
        for (var row = lane % PARTS; row < m.rows; row += PARTS) {
            part += of_lanes[row * m.packs + pack];
        }
    }
    workgroupBarrier();
    of_lanes[lane] = part;
    workgroupBarrier();
    if (lane < m.packs) {
        part = vec4<f32>();
        for (var i = 0u; i < PARTS; i++) {
            part += of_lanes[lane * PARTS + i];
        }
    }
    workgroupBarrier();
    if (lane < m.packs) {
        of_lanes[lane] = part;
    }
    workgroupBarrier();
    var total = vec2<f32>();
    if (lane < m.slab_groups) {
        for (var i = lane * m.width / LANES; i <= ((lane + 1u) * m.width - 1u) / LANES; i++) {
            total += select(of_lanes[i].zw, of_lanes[i].xy, i * LANES / m.width == lane);
        }
    }
    return total;
}
