#import attention_params
// What attention on cooperative matrices has in common, forward and backward. Library file.
//
// Rows of scores are made against 16 columns at a time. Sums in matrices have no elements to reach, so
// the scores pass through workgroup memory: there a lane finds a row. They are made transposed and stored by columns,
// and rows are 4 elements longer than their content (8 in f16): neither the stores, nor the reads by row, nor the loads
// of matrices meet in a bank.
//
// Where 16 does not divide d the last matrices of a row reach eight channels into the next row. A subgroup's own rows have
// zeros there, so products do not see it as long as it is finite, and sums that it gets into are not read.

override HEAD: u32 = 64u;     // d: a multiple of 8, at most 160 forward, 128 backward
override SUBGROUPS: u32 = 4u; // of 32 invocations in a workgroup
override TAIL: bool = true;   // whether 16 does not divide the tokens that come by 16

override DEPTH: u32 = (HEAD + 15u) / 16u;
override THREADS: u32 = 32u * SUBGROUPS;
override EIGHTS: u32 = HEAD / 8u;         // of a token's head
override STRIDE: u32 = EIGHTS | 1u;       // of its row in workgroup memory: odd, so that rows meet in no bank
override BLOCK: u32 = 16u * EIGHTS;       // of 16 tokens
override BLOCK_SIZE: u32 = 16u * STRIDE;  // and the room that they take

const LOG2_E = 1.4426950408889634;

fn pack(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
    return vec4(
        pack2x16float(low.xy),
        pack2x16float(low.zw),
        pack2x16float(high.xy),
        pack2x16float(high.zw),
    );
}

// What weights and slopes are multiplied by before they are rounded to f16: of many tokens each has a small part.
fn weight_range(tokens: u32) -> f32 {
    return exp2(f32(firstLeadingBit(tokens) / 2u));
}
