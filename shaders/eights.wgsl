enable f16;
enable wgpu_int16;
// f16 values in workgroup memory by eights, sixteen bytes, the most that is fetched at once. Library file; who imports
// it declares `tile`, an array<vec4<f16>>, an eight of it two elements.

// The eight at place `at`, in eights.
fn put(at: u32, v: vec4<u32>) {
    tile[2u * at] = four(v.xy);
    tile[2u * at + 1u] = four(v.zw);
}

// Reinterprets; a bitcast from vec2<u32> itself is not translated as it should be.
fn four(v: vec2<u32>) -> vec4<f16> {
    return bitcast<vec4<f16>>(vec4<u16>(u16(v.x), u16(v.x >> 16u), u16(v.y), u16(v.y >> 16u)));
}
