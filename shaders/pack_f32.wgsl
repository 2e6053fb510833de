// Sixteen bytes of a value: four f32.  A library: no entry point, no binding. Its twin for eight f16 is pack_f16.wgsl;
// `#import pack` takes the one of the storage type.
// A pack has ${vectors} vectors of four elements: part0(p), put0(&p, v); of f16 also part1, put1. So
//   #unroll v in 0..${vectors}
//   put${v}(&result, 2.0 * part${v}(value));
//   #end
// does the same to all elements, whatever the type.

const LANES: u32 = 4u; // elements of a pack

alias pack = vec4<f32>;

fn part0(p: pack) -> vec4<f32> {
    return p;
}

fn put0(p: ptr<function, pack>, v: vec4<f32>) {
    *p = v;
}
