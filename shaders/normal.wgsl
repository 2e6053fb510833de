// A random word as a uniform or a standard normal number.  A library: no entry point, no binding.
// Law: sign = w & 1, r = w >> 1; the leading zeros of r and its next 4 bits choose a row [c0, c1, c2, 0] of the table,
//   its next 16 bits are t; |z| = (c0 - ((c1 - (c2 t >> 16)) t >> 16)) 2^-20.
// Use: normal_from_word(w, table[normal_segment(w)]), with the 512 rows of src/random/normal_table.bin in the
//   kernel's own binding, array<vec4<u32>>.  Host twin: src/random/normal.rs.
// Limits: |z| <= 6.17, 3.8e-6 from the exact quantile (w > 1).  Integers and one exact scaling: the same bits everywhere.

// Leading zeros of w >> 1, at most 31: a zero shares the octave of a one.
fn normal_octave(w: u32) -> u32 {
    return min(countLeadingZeros(w >> 1u), 31u);
}

// The row of the table that the word w needs, below 496.
fn normal_segment(w: u32) -> u32 {
    let octave = normal_octave(w);
    let fraction = (w >> 1u) << octave;
    return (octave - 1u) * 16u + ((fraction >> 27u) & 15u);
}

// The standard normal number of the word w, given its row of the table.
fn normal_from_word(w: u32, row: vec4<u32>) -> f32 {
    let fraction = (w >> 1u) << normal_octave(w);
    let t = (fraction >> 11u) & 0xffffu;
    let q = i32(row.x - (((row.y - ((row.z * t) >> 16u)) * t) >> 16u));
    // q is below 2^23: the conversion and the scaling by 2^-20 are exact.
    return f32(select(q, -q, (w & 1u) == 1u)) * 0x1p-20;
}

// A uniform number in [0, 1) on a grid of 2^-24.
fn uniform_from_word(w: u32) -> f32 {
    return f32(w >> 8u) * 0x1p-24;
}
