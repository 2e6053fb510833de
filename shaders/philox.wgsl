#import multiply_wide
// Philox 4x32-10: four random words from a counter and a key.  A library: no entry point, no binding.
// Law: ten times (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)), then the key
//   moves by the Weyl constants.  M0 = 0xD2511F53, M1 = 0xCD9E8D57.
// Use: key = (low, high) of the seed; counter = (element / 4, index low, index high, stream).
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.  Host twin: src/random/philox.rs.
// Limits: integers only, so the same bits on every adapter.

fn philox4x32_10(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    // Written out: a loop of ten would cost as much again in counting.
    #unroll round in 0..10
    let m${round} = multiply_wide(0xD2511F53u, c.x);
    let n${round} = multiply_wide(0xCD9E8D57u, c.z);
    c = vec4<u32>(n${round}.y ^ c.y ^ k.x, n${round}.x, m${round}.y ^ c.w ^ k.y, m${round}.x);
    k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    #end
    return c;
}
