//! What attention is of, and what its kernels are told of it.

use bytemuck::{Pod, Zeroable};

use crate::tensor::{Launch, Tensor};

/// Of the gradients, which part is whose.
pub(super) const PARTS: [&str; 3] = ["q", "k", "v"];

/// As `shaders/attention_params.wgsl` declares it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub batch: u32,
    pub tokens: u32,
    pub keys: u32,
    pub sequences: u32,
    pub heads: u32,
    pub head: u32,
    pub q_step: u32,
    pub kv_step: u32,
    pub head_stride: u32,
    pub k_at: u32,
    pub v_at: u32,
    pub accumulate: u32,
    pub scale: f32,
}

/// Queries, keys and values, and who reads which.
#[derive(Clone)]
pub(super) struct Problem {
    /// The operation, for messages and labels.
    pub op: &'static str,
    pub q: Tensor,
    pub kv: Tensor,
    /// Which sequence of kv each picture reads; without it, its own.
    pub rows: Option<Tensor>,
    /// Whether a query sees only keys up to its own token.
    pub causal: bool,
    pub params: Params,
}

impl Problem {
    /// Numbers of a head, of all pictures' queries against the keys that they see.
    pub fn scores(&self) -> f64 {
        let [batch, heads, tokens, keys] =
            [self.params.batch, self.params.heads, self.params.tokens, self.params.keys].map(f64::from);
        let seen = if self.causal { (keys + 1.0) / 2.0 } else { keys };
        batch * heads * tokens * seen
    }

    /// Binds q, kv and rows, and sets what depends on them.
    pub fn launch<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        // Without rows q holds their place, unread.
        let launch = launch.bind(&self.q).bind(&self.kv).bind(self.rows.as_ref().unwrap_or(&self.q));
        let flag = |on: bool| f64::from(u8::from(on));
        launch.constant("ROWS", flag(self.rows.is_some())).constant("CAUSAL", flag(self.causal))
    }

    /// What a launch's label says of it, before its variant.
    pub fn kind(&self) -> &'static str {
        match (self.is_joint(), self.causal) {
            (true, false) => "",
            (true, true) => "causal ",
            (false, _) => "cross ",
        }
    }

    /// Whether q, k and v are parts of one projection, and their gradients of one gradient.
    pub fn is_joint(&self) -> bool {
        self.params.q_step == self.params.kv_step
    }

    /// Rows that a gradient's part has: of q the queries, of k and v the keys.
    pub fn length(&self, part: usize) -> usize {
        (if part == 0 { self.params.tokens } else { self.params.keys }) as usize
    }

    /// A picture's heads, all pictures.
    pub fn heads(&self) -> usize {
        self.params.batch as usize * self.params.heads as usize
    }
}
