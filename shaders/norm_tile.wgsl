// How the tiled group norms share out their work.  A library: no entry point, no binding.
// x [N, P, C] with P pixels, in packs of sixteen bytes. Channels come in slabs of whole groups and whole packs, pixels in
// blocks. Workgroup (x, y, n) has block x of slab y of image n: its lanes are rows of as many pixels as fit, a lane takes one
// pack of channels of every `rows`-th pixel.

const SIZE: u32 = 192u; // lanes of a workgroup
const PACKS: u32 = 96u; // the most packs of a slab: two rows at the least

struct Params {
    batch: u32,
    pixels: u32,      // P
    channels: u32,    // C
    groups: u32,      // G
    width: u32,       // C/G
    packs: u32,       // of a slab
    rows: u32,        // SIZE / packs
    slab_groups: u32, // groups of a slab
    block: u32,       // pixels of a block
    blocks: u32,      // ceil(P / block)
    tile: u32,        // pixels of a block of an element-wise pass
    silu: u32,
    scale_shift: u32, // 0: none, 1: f32, 2: f16
    accumulate: u32,
    of_beta: u32,     // affine_gradient: that of beta instead of gamma
    eps: f32,
}

// What a lane takes: packs base + pixel·stride of x, for pixel = row, row + rows, .. below count.
struct Share {
    base: u32,
    stride: u32,
    row: u32,
    count: u32,
    channel: u32, // the first of the lane's
}

// In blocks of `size` pixels. Lanes left over have a row that no pixel has: theirs is `count`.
fn share(wid: vec3<u32>, lane: u32, size: u32, m: Params) -> Share {
    var s: Share;
    s.stride = m.channels / LANES;
    s.count = min(size, m.pixels - wid.x * size);
    s.row = lane / m.packs;
    let pack = wid.y * m.packs + lane - s.row * m.packs;
    s.base = (wid.z * m.pixels + wid.x * size) * s.stride + pack;
    s.channel = pack * LANES;
    if (s.row >= m.rows) {
        s.row = s.count;
    }
    return s;
}
