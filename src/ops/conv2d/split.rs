//! Tiled convolutions of small images, of which a few have too few tiles to fill a GPU: the sum over taps and channels is
//! split among workgroups, whose partial sums a second kernel adds in their order.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, groups_over};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::problem::{Direction, Params, STEP, TWICE, Tensors, Tile, images_of};

use Access::{Read, Update, Write};

const CHECKED: Kernel = Kernel::new("conv2d", wgsl!("conv2d_tiled_split"), "gather", TWICE);
// Trusted: conv2d_gather.wgsl says why no access is out of bounds; every loop counts up to a number of the launch.
const PARTS: Kernel = unsafe { CHECKED.trusted() };
const FINISH: [Kernel; 2] = [
    Kernel::new("conv2d_finish", wgsl!("conv2d_tiled_split"), "finish", &[Read, Write]),
    Kernel::new("conv2d_finish", wgsl!("conv2d_tiled_split"), "finish", &[Read, Update]),
];

/// Tiles of one image, splits counted, that are enough; the fewest steps of a split; and the most splits, for their sums are
/// written and read again. On an H100 in f32 two images of the 64x64 ADM network take 21.8 ms so, without splits 34.6; 16 take
/// 103 instead of 107 ms, as the last round of workgroups is a smaller part of all; 64 take 390 instead of 377. One image of
/// the CIFAR-size network takes 5.5 instead of 10.9 ms, 128 take 59 instead of 55.
const ENOUGH: u32 = 96;
const SHORTEST: u32 = 48;
const MOST: u32 = 8;

/// WebGPU's default alignment of a binding's offset.
const ALIGNMENT: u64 = 256;

/// In how many splits: by image size and channels alone, as the order of a sum must not depend on the batch.
pub(super) fn count(params: &Params) -> u32 {
    if params.side() != Some(3) || params.spread != 1 || !params.fours() {
        return 1;
    }
    let tiles = (params.out_h * params.out_w).div_ceil(64) * params.out_c.div_ceil(64);
    let steps = 9 * params.in_c.div_ceil(STEP);
    ENOUGH.div_ceil(tiles).min(steps / SHORTEST).clamp(1, MOST)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Finish {
    fours: u32,
    splits: u32,
    accumulate: u32,
    unused: u32,
}

/// A gather in `splits`, in as many images at once as have partial sums of at most `most_bytes`; `checked` as a test wants it.
pub(super) fn gather(
    cx: &mut Context,
    direction: Direction,
    tensors: Tensors<'_>,
    params: Params,
    splits: u32,
    most_bytes: u64,
    checked: bool,
) -> Result<()> {
    let batch = params.batch as usize;
    let at_once = images_at_once(&tensors, batch, u64::from(splits), most_bytes);
    for first in (0..batch).step_by(at_once) {
        let images = at_once.min(batch - first);
        let [x, y] = [tensors.x, tensors.y].map(|tensor| images_of(tensor, batch, first, images));
        let params = Params { batch: images as u32, ..params };
        some_images(cx, direction, Tensors { x: &x, y: &y, ..tensors }, params, splits, checked)?;
    }
    Ok(())
}

/// As many as fit, of those numbers at which a binding may begin; all where there is none, for an error that says so.
fn images_at_once(tensors: &Tensors<'_>, batch: usize, splits: u64, most_bytes: u64) -> usize {
    let of_image = |tensor: &Tensor| tensor.bytes() / batch as u64;
    let partial = splits * (tensors.y.len() / batch) as u64 * 4;
    let fits = |images: u64| {
        let begins = [tensors.x, tensors.y].iter().all(|x| (images * of_image(x)).is_multiple_of(ALIGNMENT));
        images * partial <= most_bytes && begins
    };
    if batch as u64 * partial <= most_bytes {
        return batch;
    }
    (1..batch).rev().find(|images| fits(*images as u64)).unwrap_or(batch)
}

fn some_images(
    cx: &mut Context,
    direction: Direction,
    Tensors { x, w, bias, y }: Tensors<'_>,
    params: Params,
    splits: u32,
    checked: bool,
) -> Result<()> {
    let chunk = params.steps().div_ceil(splits);
    let splits = params.steps().div_ceil(chunk);
    let (rows, columns) = (params.phase_pixels(), u64::from(params.out_c));
    let tile = Tile::choose(&Tile::GATHER, rows, columns, splits.into());
    let partial = cx.output("conv2d partial sums", &[splits as usize, y.len()], DType::F32)?;
    let kernel = if checked { &CHECKED } else { &PARTS };
    let launch = cx.launch(kernel).bind(x).bind(x).bind(w).bind(w).bind(bias).bind(&partial);
    let launch = tile.set(params.set_fours(launch.params(&Params { chunk, splits, ..params })));
    let launch = launch.constant("SPLIT", 1.0).variant(format!("tiled {tile} in {splits}"));
    let [across, down, _] = groups_over(tile.groups(rows, columns));
    launch.groups([across, down, splits]);
    let finish = Finish { fours: (y.len() / 4) as u32, splits, accumulate: params.accumulate, unused: 0 };
    let launch = cx.launch(&FINISH[direction as usize]).bind(&partial).bind(y);
    launch.elem(y.dtype()).params(&finish).variant("tiled").over(y.len() / 4, 64);
    Ok(())
}
