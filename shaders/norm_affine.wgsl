#import silu_curve
// What follows the normalisation of a group norm.  A library: no entry point; who imports it declares `scale_shift`, f32 or
// f16 in pairs of words.

// Four of scale and shift, from vector i on; kind 1: f32, 2: f16.
fn modulation4(i: u32, kind: u32) -> vec4<f32> {
    if (kind == 2u) {
        return vec4<f32>(unpack2x16float(scale_shift[i].x), unpack2x16float(scale_shift[i].y));
    }
    return bitcast<vec4<f32>>(vec4<u32>(scale_shift[2u * i], scale_shift[2u * i + 1u]));
}

fn activated(u: vec4<f32>, silu: u32) -> vec4<f32> {
    if (silu != 0u) {
        return silu4(u);
    }
    return u;
}
