// What the kernels of attention are told. Library file.
//
// A token's row of q has q_step slots of d numbers, one of kv kv_step; a head's query stands in slot h·head_stride of the
// one, its key and value k_at and v_at slots behind h·head_stride of the other:
//   q and kv [N, T, 3, H, d] or [N, T, H, 3, d], one and the same, of self-attention;
//   q [N, T, H, d] and kv [R, L, 2, H, d] of cross-attention.

struct Params {
    batch: u32,        // N
    tokens: u32,       // queries of a picture, T
    keys: u32,         // keys of a sequence, L
    sequences: u32,    // R
    heads: u32,
    head: u32,         // d
    q_step: u32,       // from a query to that of the next token, in slots
    kv_step: u32,      // the same of keys and of values
    head_stride: u32,  // from a head's query to that of the next, in slots; keys and values the same
    k_at: u32,         // the first head's key, in slots
    v_at: u32,         // and its value
    accumulate: u32,
    scale: f32,        // d^-½
}

override ROWS: bool = false;   // whether rows[n] is the sequence that picture n reads; else it is n
override CAUSAL: bool = false; // whether query t sees keys 0..=t alone; then T = L
