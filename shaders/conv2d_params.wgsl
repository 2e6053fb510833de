// What every convolution kernel is told; `Params` of ops/conv2d in the same order. Library file.
//
// `in` is what is read, `out` what is written or, for weight gradients, x and dy.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel: u32,     // its width: 1 or 3
    step: u32,       // the stride; 1 for input gradients
    spread: u32,     // the stride that an input gradient undoes; else 1
    pad: u32,        // before the first column
    accumulate: u32, // add to what is there
    has_bias: u32,
    chunk: u32,      // steps a split; weight gradients: pixels
    splits: u32,     // and how many splits
    has_residual: u32,
    kernel_h: u32,   // its height: its width, or 1
    pad_h: u32,      // before the first row
}
