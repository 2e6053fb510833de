//! Files that a training or a sampling leaves behind: tensors, images, plots.
//!
//! This layer knows how each file is laid out and how to replace one without ever leaving half of it.
//! Invariant: it never knows what a tensor means, where it was computed, or what a step of training is; it gets
//! bytes, names and numbers.
//!
//! Drawings (sheets, plots, panels) are not made in a browser: their fonts come from files.

pub mod arrays;
pub mod atomic;
#[cfg(not(target_arch = "wasm32"))]
mod axis;
mod bounds;
#[cfg(not(target_arch = "wasm32"))]
mod canvas;
pub mod checksum;
#[cfg(not(target_arch = "wasm32"))]
pub mod curve;
pub mod file_names;
pub mod generations;
#[cfg(not(target_arch = "wasm32"))]
pub mod grid;
pub mod kind_of_file;
#[cfg(not(target_arch = "wasm32"))]
mod legend;
#[cfg(not(target_arch = "wasm32"))]
pub mod lock;
pub mod npy;
pub mod npz;
#[cfg(not(target_arch = "wasm32"))]
pub mod panels;
mod pieces;
#[cfg(not(target_arch = "wasm32"))]
pub mod plot;
pub mod png;
pub mod pt;
pub mod safetensors;
mod signatures;
pub mod tensor_source;
pub mod work_folder;

pub use ::safetensors::Dtype;
pub use arrays::{NpzArray, NpzArrays, NpzValues, write_npz_arrays, write_npz_arrays_with};
pub use atomic::{AtomicFile, prove_writable, write_atomic};
pub use checksum::write_checked_to;
#[cfg(not(target_arch = "wasm32"))]
pub use curve::{Curve, curve_plot};
pub use file_names::distinct_file_names;
pub use generations::{generations, prune_generations, save_generation};
#[cfg(not(target_arch = "wasm32"))]
pub use grid::grid;
pub use kind_of_file::FileKind;
#[cfg(not(target_arch = "wasm32"))]
pub use lock::FolderLock;
pub use npy::{read_npy, write_npy};
pub use npz::{NpzImages, NpzWriter, read_npz_images, read_npz_text};
#[cfg(not(target_arch = "wasm32"))]
pub use panels::{Panel, panels, small_panels};
#[cfg(not(target_arch = "wasm32"))]
pub use plot::{Series, line_plot, loss_plot};
pub use png::{read_png_text, write_png};
pub use pt::PtFile;
pub use safetensors::{SafetensorsFile, TensorBytes, write_safetensors, write_safetensors_to};
pub use tensor_source::TensorSource;
pub use work_folder::{WorkFolder, is_work_folder};
