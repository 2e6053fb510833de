// Sixteen bytes of a value: eight f16.  A library: no entry point, no binding. See its twin, pack_f32.wgsl.
// They lie in memory as four words, because only vectors of 32-bit elements are loaded sixteen bytes at a time.

const LANES: u32 = 8u; // elements of a pack

alias pack = vec4<u32>;

fn part0(p: pack) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
}

fn part1(p: pack) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(p.z), unpack2x16float(p.w));
}

// Rounded as every other store of f16 is: how pack2x16float itself rounds depends on the backend.
fn narrowed(v: vec4<f32>) -> vec2<u32> {
    let rounded = vec4<f32>(vec4<f16>(v));
    return vec2<u32>(pack2x16float(rounded.xy), pack2x16float(rounded.zw));
}

fn put0(p: ptr<function, pack>, v: vec4<f32>) {
    let n = narrowed(v);
    (*p).x = n.x;
    (*p).y = n.y;
}

fn put1(p: ptr<function, pack>, v: vec4<f32>) {
    let n = narrowed(v);
    (*p).z = n.x;
    (*p).w = n.y;
}
