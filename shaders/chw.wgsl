// Noise of channels-last images. A library: no entry point, no binding.
// Law: the random numbers of a sample [H, W, C] are those of its elements in C, H, W order, element e being word e % 4 of
//   block e / 4. So the same seed gives the same image under any memory layout.

// The block of slot i. Where whole blocks lie within a channel, neighbouring slots are neighbouring channels, so that
// neighbouring invocations touch neighbouring memory.
fn chw_block(i: u32, channels: u32, pixels: u32) -> u32 {
    if (pixels % 4u != 0u) {
        return i;
    }
    return (i % channels) * (pixels / 4u) + i / channels;
}

// The place (pixel, channel) of a block's first element, and the one after a place: no division in the inner loop.
fn chw_place(block: u32, pixels: u32) -> vec2<u32> {
    return vec2<u32>((block * 4u) % pixels, (block * 4u) / pixels);
}

fn chw_next(place: vec2<u32>, pixels: u32) -> vec2<u32> {
    if (place.x + 1u == pixels) {
        return vec2<u32>(0u, place.y + 1u);
    }
    return vec2<u32>(place.x + 1u, place.y);
}
