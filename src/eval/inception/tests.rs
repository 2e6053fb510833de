//! Against torchvision's and pytorch-fid's own source on made-up weights; `tests/fixtures/inception.py` made the numbers.

use std::path::Path;

use super::*;
use crate::io::Dtype;
use crate::testing::{Array, Golden, gpu};

/// Names and shapes.
type Tensors = Vec<(String, Vec<usize>)>;

/// A file whose tensors are functions of their names and the elements' numbers.
struct MadeUp {
    tensors: Tensors,
}

impl MadeUp {
    fn new(classes: usize) -> MadeUp {
        let mut tensors = Vec::new();
        let mut conv = |name: &str, inputs: usize, outputs: usize, height: usize, width: usize| {
            tensors.push((format!("{name}.conv.weight"), vec![outputs, inputs, height, width]));
            for part in ["weight", "bias", "running_mean", "running_var"] {
                tensors.push((format!("{name}.bn.{part}"), vec![outputs]));
            }
        };
        for (name, inputs, outputs, side) in [
            ("Conv2d_1a_3x3", 3, 32, 3),
            ("Conv2d_2a_3x3", 32, 32, 3),
            ("Conv2d_2b_3x3", 32, 64, 3),
            ("Conv2d_3b_1x1", 64, 80, 1),
            ("Conv2d_4a_3x3", 80, 192, 3),
        ] {
            conv(name, inputs, outputs, side, side);
        }
        for (name, inputs, pooled) in [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)] {
            conv(&format!("{name}.branch1x1"), inputs, 64, 1, 1);
            conv(&format!("{name}.branch5x5_1"), inputs, 48, 1, 1);
            conv(&format!("{name}.branch5x5_2"), 48, 64, 5, 5);
            conv(&format!("{name}.branch3x3dbl_1"), inputs, 64, 1, 1);
            conv(&format!("{name}.branch3x3dbl_2"), 64, 96, 3, 3);
            conv(&format!("{name}.branch3x3dbl_3"), 96, 96, 3, 3);
            conv(&format!("{name}.branch_pool"), inputs, pooled, 1, 1);
        }
        conv("Mixed_6a.branch3x3", 288, 384, 3, 3);
        conv("Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1);
        conv("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3);
        conv("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3);
        for (name, c) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
            conv(&format!("{name}.branch1x1"), 768, 192, 1, 1);
            conv(&format!("{name}.branch7x7_1"), 768, c, 1, 1);
            conv(&format!("{name}.branch7x7_2"), c, c, 1, 7);
            conv(&format!("{name}.branch7x7_3"), c, 192, 7, 1);
            conv(&format!("{name}.branch7x7dbl_1"), 768, c, 1, 1);
            conv(&format!("{name}.branch7x7dbl_2"), c, c, 7, 1);
            conv(&format!("{name}.branch7x7dbl_3"), c, c, 1, 7);
            conv(&format!("{name}.branch7x7dbl_4"), c, c, 7, 1);
            conv(&format!("{name}.branch7x7dbl_5"), c, 192, 1, 7);
            conv(&format!("{name}.branch_pool"), 768, 192, 1, 1);
        }
        conv("Mixed_7a.branch3x3_1", 768, 192, 1, 1);
        conv("Mixed_7a.branch3x3_2", 192, 320, 3, 3);
        conv("Mixed_7a.branch7x7x3_1", 768, 192, 1, 1);
        conv("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7);
        conv("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1);
        conv("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3);
        for (name, inputs) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
            conv(&format!("{name}.branch1x1"), inputs, 320, 1, 1);
            conv(&format!("{name}.branch3x3_1"), inputs, 384, 1, 1);
            conv(&format!("{name}.branch3x3_2a"), 384, 384, 1, 3);
            conv(&format!("{name}.branch3x3_2b"), 384, 384, 3, 1);
            conv(&format!("{name}.branch3x3dbl_1"), inputs, 448, 1, 1);
            conv(&format!("{name}.branch3x3dbl_2"), 448, 384, 3, 3);
            conv(&format!("{name}.branch3x3dbl_3a"), 384, 384, 1, 3);
            conv(&format!("{name}.branch3x3dbl_3b"), 384, 384, 3, 1);
            conv(&format!("{name}.branch_pool"), inputs, 192, 1, 1);
        }
        tensors.push(("fc.weight".into(), vec![classes, 2048]));
        tensors.push(("fc.bias".into(), vec![classes]));
        MadeUp { tensors }
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        let found = self.tensors.iter().find(|(known, _)| known == name);
        found.map(|(_, shape)| &shape[..]).ok_or_else(|| Error::tensor(self.path(), name, "is missing"))
    }
}

impl TensorSource for MadeUp {
    fn path(&self) -> &Path {
        Path::new("made-up.pth")
    }

    fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, _)| name.clone()).collect()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        Ok((Dtype::F32, self.shape(name)?.to_vec()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let shape = self.shape(name)?;
        let (low, high) = match name.rsplit('.').next() {
            _ if name == "fc.weight" => (-0.03, 0.03),
            _ if shape.len() == 4 => {
                let s = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
                (-s, s)
            }
            Some("weight" | "running_var") => (0.5, 1.5),
            _ => (-0.1, 0.1),
        };
        let mut crc = flate2::Crc::new();
        crc.update(name.as_bytes());
        let value = |i: u32| {
            let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(crc.sum());
            for _ in 0..2 {
                x = (x ^ (x >> 16)).wrapping_mul(0x045D_9F3B);
            }
            x ^= x >> 16;
            (low + (high - low) * (f64::from(x) / 2f64.powi(32))) as f32
        };
        let count = shape.iter().product::<usize>() as u32;
        Ok((0..count).flat_map(|i| value(i).to_le_bytes()).collect())
    }
}

#[test]
fn both_networks_agree_with_their_sources() {
    let golden = Golden::open("inception");
    let (height, width) = (21, 34);
    let pixels: Vec<u8> = (0..height * width * 3).map(|i| ((i as u64 * 2_654_435_761) >> 7) as u8).collect();
    for (name, classes) in [("torchvision", 1000), ("fid", 1008)] {
        let network = Inception::of(gpu(), &MadeUp::new(classes), None).unwrap();
        let pictures = Pictures { pixels: &pixels, width, height, channels: 3 };
        let got = network.extract(pictures).unwrap();
        let sizes = network.sizes();
        assert_eq!((sizes.pooled, sizes.spatial, sizes.classes), (2048, 2023, classes));
        for (part, got) in
            [("pooled", got.pooled), ("spatial", got.spatial), ("probabilities", got.probabilities)]
        {
            let want = golden.array(&format!("{name}.{part}"));
            Array::new(&[got.len()], got).check_within(&format!("{name} {part}"), &want, 1e-4);
        }
    }
}

#[test]
fn other_files_are_refused() {
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut file = MadeUp::new(1008);
        change(&mut file.tensors);
        let made = Inception::of(gpu(), &file, None);
        match made {
            Err(error) => error.to_string(),
            Ok(network) => network
                .extract(Pictures { pixels: &[0; 27], width: 3, height: 3, channels: 3 })
                .unwrap_err()
                .to_string(),
        }
    };
    assert!(refused(&|all| all.retain(|(name, _)| name != "fc.weight")).contains("holds no Inception-v3"));
    assert!(
        refused(&|all| all.iter_mut().for_each(|(name, shape)| {
            if name == "fc.weight" {
                shape[0] = 10;
            }
        }))
        .contains("[10, 2048]")
    );
    let error = refused(&|all| all.retain(|(name, _)| name != "Mixed_5b.branch1x1.bn.bias"));
    assert!(error.contains("Mixed_5b.branch1x1.bn.bias") && error.contains("missing"), "{error}");
    let error = refused(&|all| all.retain(|(name, _)| !name.starts_with("Mixed_7c.branch_pool")));
    assert!(error.contains("Mixed_7c.branch_pool"), "{error}");
}
