//! What the page asks of freeguide: a session that draws into two canvases, and the toy of the paper.
//!
//! The page itself (`page/`) is plain JavaScript; here is nothing but the library's calls and the host's part of WebGPU.

mod digits;
mod toy;

use wasm_bindgen::prelude::*;

/// Panics are told in the browser's console with their place in the source.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}
