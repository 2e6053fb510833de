// A random word as a uniform or a standard normal number.  A library: no entry point, no binding.
// Law: sign = w & 1, r = w >> 1; the leading zeros of r and its next 4 bits choose coefficients c0, c1, c2, its next 16 bits
//   are t; |z| = (c0 - ((c1 - (c2 t >> 16)) t >> 16)) 2^-20.
// Use: normal_from_word(w, table[normal_segment(w)]), with the 512 rows of `normal_table()` in the kernel's own binding,
//   array<vec2<u32>, 512>: (0x41000000 + c0, c1 << 16 | c2), in the order of normal_segment. Eight bytes a row, because
//   that a subgroup gathers rows costs more than the arithmetic.  Host twin: src/random/normal.rs.
// Limits: |z| <= 6.17, 3.8e-6 from the exact quantile (w > 1).  Integers and one exact difference: the same bits everywhere.

// r without its sign, its leading one moved to bit 31. r = 0 is taken for 1.
fn normal_fraction(w: u32) -> u32 {
    let r = max(w, 2u);
    return (r & 0xfffffffeu) << countLeadingZeros(r);
}

// The row of the table that the word w needs: 16 to 511.
fn normal_segment(w: u32) -> u32 {
    return countLeadingZeros(max(w, 2u)) * 16u + (normal_fraction(w) >> 27u);
}

// The standard normal number of the word w, given its row of the table.
fn normal_from_word(w: u32, row: vec2<u32>) -> f32 {
    let t = (normal_fraction(w) >> 11u) & 0xffffu;
    // c1 - (c2 t >> 16), in one product: c1 - floor(a) = floor(c1 + 1 - 2^-16 - a) for a of 16 fractional bits.
    let slope = ((row.y | 0xffffu) - (row.y & 0xffffu) * t) >> 16u;
    // These bits are the float 8 + |z|, whose last one is 2^-20.
    let eight_more = row.x - ((slope * t) >> 16u);
    let sign = w << 31u;
    return bitcast<f32>(eight_more ^ sign) - bitcast<f32>(0x41000000u ^ sign);
}

// A uniform number in [0, 1) on a grid of 2^-24.
fn uniform_from_word(w: u32) -> f32 {
    return f32(w >> 8u) * 0x1p-24;
}
