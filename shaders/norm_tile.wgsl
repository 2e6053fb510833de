// How the tiled group norms share out their work.  A library: no entry point, no binding.
// x [N, P, C] with P pixels, in packs of sixteen bytes. Channels come in slabs of whole groups and whole packs, pixels in
// blocks. Workgroup (x, n) has slab x / blocks and block x % blocks of image n: its lanes are rows of as many pixels as fit,
// a lane takes one pack of channels of every `rows`-th pixel.

const SIZE: u32 = 192u; // lanes of a workgroup
const PACKS: u32 = 96u; // the most packs of a slab: two rows at the least

struct Params {
    batch: u32,
    pixels: u32,      // P
    channels: u32,    // C
    groups: u32,      // G
    slabs: u32,
    block: u32,       // pixels of a block
    blocks: u32,      // ceil(P / block)
    tile: u32,        // pixels of a block of an element-wise pass
    tiles: u32,       // ceil(P / tile)
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
    rows: u32,
    count: u32,
    slab: u32,
    block: u32,
    packs: u32,   // of the slab
    channel: u32, // the first of the lane's
}

// Pixels in `blocks` blocks of `size`. Lanes left over have a row that no pixel has: theirs is `count`.
fn share(wid: vec3<u32>, lane: u32, size: u32, blocks: u32, m: Params) -> Share {
    var s: Share;
    s.slab = wid.x / blocks;
    s.block = wid.x % blocks;
    s.stride = m.channels / LANES;
    s.packs = s.stride / m.slabs;
    s.rows = SIZE / s.packs;
    s.count = min(size, m.pixels - s.block * size);
    s.row = lane / s.packs;
    if (s.row >= s.rows) {
        s.row = s.count;
    }
    let pack = s.slab * s.packs + lane % s.packs;
    s.base = (wid.y * m.pixels + s.block * size) * s.stride + pack;
    s.channel = pack * LANES;
    return s;
}
