//! Inception-v3 (Szegedy et al., arXiv 1512.00567) as published feature extractors have it: the network's shape, with the
//! batch norms folded into the convolutions. Each block says what it records; names are those of torchvision's files.

use super::variant::Variant;
use super::weights::Convolutions;
use crate::error::Result;
use crate::ops::{self, Pool, Window};
use crate::tensor::{Context, Tensor};

/// What a forward pass gives.
pub struct FeatureMaps {
    /// `[N, 2048]`.
    pub pooled: Tensor,
    /// `[N, 17, 17, 192]`: the first branch of `Mixed_6d`.
    pub spatial: Tensor,
}

/// A recording of the network.
pub struct Recorder<'a> {
    pub cx: &'a mut Context,
    pub convolutions: &'a Convolutions,
    pub variant: Variant,
}

const VALID: [usize; 2] = [0, 0];

impl Recorder<'_> {
    /// Convolution, norm and ReLU. The kernel's size is the weights' own.
    fn conv(&mut self, x: &Tensor, name: &str, stride: usize, padding: [usize; 2]) -> Result<Tensor> {
        let (kernel, weights, bias) = self.convolutions.get(self.cx, name)?;
        let y = if kernel == [1, 1] {
            ops::linear(self.cx, x, &weights, Some(&bias))?
        } else if kernel == [3, 3] && stride == 1 && padding == [1, 1] {
            let channels = x.shape()[3];
            let weights = weights.reshape(&[3, 3, channels, bias.len()])?;
            ops::conv2d(self.cx, x, &weights, Some(&bias), 1)?
        } else {
            let patches = ops::patches(self.cx, x, Window { kernel, stride, padding })?;
            ops::linear(self.cx, &patches, &weights, Some(&bias))?
        };
        ops::relu(self.cx, &y)
    }

    /// A 1x1 convolution.
    fn point(&mut self, x: &Tensor, name: &str) -> Result<Tensor> {
        self.conv(x, name, 1, VALID)
    }

    /// Convolutions one after the other: (name, padding).
    fn path(&mut self, x: &Tensor, block: &str, steps: &[(&str, [usize; 2])]) -> Result<Tensor> {
        let mut y = x.clone();
        for (name, padding) in steps {
            y = self.conv(&y, &format!("{block}.{name}"), 1, *padding)?;
        }
        Ok(y)
    }

    fn join(&mut self, branches: &[Tensor]) -> Result<Tensor> {
        let mut all = branches[0].clone();
        for branch in &branches[1..] {
            all = ops::concat(self.cx, &all, branch)?;
        }
        Ok(all)
    }

    fn largest(&mut self, x: &Tensor, stride: usize, pad: usize) -> Result<Tensor> {
        let window = Window { kernel: [3, 3], stride, padding: [pad, pad] };
        ops::window_pool(self.cx, x, window, Pool::Max)
    }

    fn mean(&mut self, x: &Tensor) -> Result<Tensor> {
        let pool = if self.variant == Variant::Fid { Pool::MeanInside } else { Pool::Mean };
        let window = Window { kernel: [3, 3], stride: 1, padding: [1, 1] };
        ops::window_pool(self.cx, x, window, pool)
    }

    /// 35x35: 1x1, 5x5, two 3x3, pool.
    fn block_a(&mut self, x: &Tensor, name: &str) -> Result<Tensor> {
        let first = self.point(x, &format!("{name}.branch1x1"))?;
        let five = self.path(x, name, &[("branch5x5_1", VALID), ("branch5x5_2", [2, 2])])?;
        let steps = [("branch3x3dbl_1", VALID), ("branch3x3dbl_2", [1, 1]), ("branch3x3dbl_3", [1, 1])];
        let three = self.path(x, name, &steps)?;
        let pooled = self.mean(x)?;
        let pooled = self.point(&pooled, &format!("{name}.branch_pool"))?;
        self.join(&[first, five, three, pooled])
    }

    /// 35x35 to 17x17.
    fn block_b(&mut self, x: &Tensor, name: &str) -> Result<Tensor> {
        let three = self.conv(x, &format!("{name}.branch3x3"), 2, VALID)?;
        let double = self.path(x, name, &[("branch3x3dbl_1", VALID), ("branch3x3dbl_2", [1, 1])])?;
        let double = self.conv(&double, &format!("{name}.branch3x3dbl_3"), 2, VALID)?;
        let pooled = self.largest(x, 2, 0)?;
        self.join(&[three, double, pooled])
    }

    /// 17x17: 1x1, a 7x7 in two parts, two of them in four, pool. Also gives the first branch.
    fn block_c(&mut self, x: &Tensor, name: &str) -> Result<(Tensor, Tensor)> {
        let (across, down) = ([0, 3], [3, 0]);
        let first = self.point(x, &format!("{name}.branch1x1"))?;
        let steps = [("branch7x7_1", VALID), ("branch7x7_2", across), ("branch7x7_3", down)];
        let seven = self.path(x, name, &steps)?;
        let steps = [
            ("branch7x7dbl_1", VALID),
            ("branch7x7dbl_2", down),
            ("branch7x7dbl_3", across),
            ("branch7x7dbl_4", down),
            ("branch7x7dbl_5", across),
        ];
        let double = self.path(x, name, &steps)?;
        let pooled = self.mean(x)?;
        let pooled = self.point(&pooled, &format!("{name}.branch_pool"))?;
        Ok((self.join(&[first.clone(), seven, double, pooled])?, first))
    }

    /// 17x17 to 8x8.
    fn block_d(&mut self, x: &Tensor, name: &str) -> Result<Tensor> {
        let three = self.point(x, &format!("{name}.branch3x3_1"))?;
        let three = self.conv(&three, &format!("{name}.branch3x3_2"), 2, VALID)?;
        let steps = [("branch7x7x3_1", VALID), ("branch7x7x3_2", [0, 3]), ("branch7x7x3_3", [3, 0])];
        let seven = self.path(x, name, &steps)?;
        let seven = self.conv(&seven, &format!("{name}.branch7x7x3_4"), 2, VALID)?;
        let pooled = self.largest(x, 2, 0)?;
        self.join(&[three, seven, pooled])
    }

    /// 8x8: branches that split once more; the FID network's last pool takes the largest.
    fn block_e(&mut self, x: &Tensor, name: &str, last: bool) -> Result<Tensor> {
        let (across, down) = ([0, 1], [1, 0]);
        let first = self.point(x, &format!("{name}.branch1x1"))?;
        let split = |this: &mut Self, x: &Tensor, names: [&str; 2]| {
            let a = this.conv(x, &format!("{name}.{}", names[0]), 1, across)?;
            let b = this.conv(x, &format!("{name}.{}", names[1]), 1, down)?;
            this.join(&[a, b])
        };
        let three = self.point(x, &format!("{name}.branch3x3_1"))?;
        let three = split(self, &three, ["branch3x3_2a", "branch3x3_2b"])?;
        let double = self.path(x, name, &[("branch3x3dbl_1", VALID), ("branch3x3dbl_2", [1, 1])])?;
        let double = split(self, &double, ["branch3x3dbl_3a", "branch3x3dbl_3b"])?;
        let pooled =
            if last && self.variant == Variant::Fid { self.largest(x, 1, 1)? } else { self.mean(x)? };
        let pooled = self.point(&pooled, &format!("{name}.branch_pool"))?;
        self.join(&[first, three, double, pooled])
    }

    /// The whole of it on `x` `[N, 299, 299, 3]`.
    pub fn forward(&mut self, x: &Tensor) -> Result<FeatureMaps> {
        let mut h = self.conv(x, "Conv2d_1a_3x3", 2, VALID)?;
        h = self.conv(&h, "Conv2d_2a_3x3", 1, VALID)?;
        h = self.conv(&h, "Conv2d_2b_3x3", 1, [1, 1])?;
        h = self.largest(&h, 2, 0)?;
        h = self.point(&h, "Conv2d_3b_1x1")?;
        h = self.conv(&h, "Conv2d_4a_3x3", 1, VALID)?;
        h = self.largest(&h, 2, 0)?;
        for name in ["Mixed_5b", "Mixed_5c", "Mixed_5d"] {
            h = self.block_a(&h, name)?;
        }
        h = self.block_b(&h, "Mixed_6a")?;
        h = self.block_c(&h, "Mixed_6b")?.0;
        h = self.block_c(&h, "Mixed_6c")?.0;
        let (next, spatial) = self.block_c(&h, "Mixed_6d")?;
        h = self.block_c(&next, "Mixed_6e")?.0;
        h = self.block_d(&h, "Mixed_7a")?;
        h = self.block_e(&h, "Mixed_7b", false)?;
        h = self.block_e(&h, "Mixed_7c", true)?;
        let [n, height, width, channels] = h.nhwc("inception")?;
        let whole = Window { kernel: [height, width], stride: 1, padding: VALID };
        let pooled = ops::window_pool(self.cx, &h, whole, Pool::Mean)?.reshape(&[n, channels])?;
        Ok(FeatureMaps { pooled, spatial })
    }
}
