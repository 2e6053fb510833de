//! A file's tensors under other names: one for one, or several that are one parameter here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{Dtype, TensorSource};
use crate::nn::{Layout, Parameters};

/// Where a file keeps what is one tensor here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In one tensor.
    One(String),
    /// In several of one size, whose rows follow one another: the thirds of q, k and v, the halves of k and v.
    Joined(Vec<String>),
}

impl Place {
    pub fn names(&self) -> &[String] {
        match self {
            Place::One(name) => std::slice::from_ref(name),
            Place::Joined(names) => names,
        }
    }

    /// The thirds `q`, `k` and `v` of a joint projection, or its halves `k` and `v`: what `parts` of them are called.
    pub fn joined<const N: usize>(parts: [&str; N], name: impl Fn(&str) -> String) -> Place {
        Place::Joined(parts.iter().map(|part| name(part)).collect())
    }
}

/// The tensors of a file under the names that [`Place`]s say; others keep theirs.
pub(super) struct Renamed {
    inner: Box<dyn TensorSource>,
    /// Where each name's tensor lies, and its shape here.
    places: BTreeMap<String, (Place, Vec<usize>)>,
    /// Tensors under their own names.
    others: BTreeSet<String>,
}

impl Renamed {
    /// The parameters of a network under `prefix`, where `place` finds them. A matrix is one whether it is held as such or as a
    /// convolution of width 1: files of one family have both.
    ///
    /// # Errors
    /// [`Error::Tensor`] for one that is missing or of another shape than its network's, by its name in the file.
    pub fn new(
        inner: Box<dyn TensorSource>,
        parameters: &Parameters,
        prefix: &str,
        place: impl Fn(&str) -> Option<Place>,
    ) -> Result<Self> {
        let mut others: BTreeSet<String> = inner.names().into_iter().collect();
        let mut places = BTreeMap::new();
        for spec in parameters.specs() {
            let found = place(&spec.name).unwrap_or_else(|| Place::One(format!("{prefix}{}", spec.name)));
            let matrix = matches!(spec.layout, Layout::Linear | Layout::Conv1d);
            let extents = |shape: &[usize]| -> Vec<usize> {
                let ones = shape.iter().skip(2).all(|extent| *extent == 1);
                if matrix && ones { shape.iter().take(2).copied().collect() } else { shape.to_vec() }
            };
            for name in found.names() {
                if !others.remove(name) {
                    let what = match inner.opaque().get(name) {
                        Some(kind) => format!("is of the type `{kind}`, which is not read"),
                        None => "is missing".into(),
                    };
                    return Err(Error::tensor(inner.path(), name, what));
                }
                let (_, shape) = inner.about(name)?;
                let mut expected = spec.file_shape();
                expected[0] /= found.names().len();
                if extents(&shape) != extents(&expected) {
                    let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
                    return Err(Error::tensor(inner.path(), name, what));
                }
            }
            places.insert(format!("{prefix}{}", spec.name), (found, spec.file_shape()));
        }
        Ok(Renamed { inner, places, others })
    }

    /// Single tensors under other names, each name with the one in the file.
    ///
    /// # Errors
    /// When the file has none of such a name.
    pub fn singly(inner: Box<dyn TensorSource>, names: BTreeMap<String, String>) -> Result<Self> {
        let mut others: BTreeSet<String> = inner.names().into_iter().collect();
        let mut places = BTreeMap::new();
        for (name, own) in names {
            let (_, shape) = inner.about(&own)?;
            others.remove(&own);
            places.insert(name, (Place::One(own), shape));
        }
        Ok(Renamed { inner, places, others })
    }
}

impl TensorSource for Renamed {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.places.keys().chain(&self.others).cloned().collect();
        names.sort();
        names
    }

    fn opaque(&self) -> BTreeMap<String, String> {
        self.inner.opaque()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        match self.places.get(name) {
            Some((place, shape)) => Ok((self.inner.about(&place.names()[0])?.0, shape.clone())),
            None => self.inner.about(name),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let Some((place, _)) = self.places.get(name) else { return self.inner.bytes(name) };
        let [one] = place.names() else { return self.joined(place) };
        self.inner.bytes(one)
    }
}

impl Renamed {
    fn joined(&self, place: &Place) -> Result<Vec<u8>> {
        let first = self.inner.about(&place.names()[0])?.0;
        let mut bytes = Vec::new();
        for name in place.names() {
            let (dtype, _) = self.inner.about(name)?;
            if dtype != first {
                let what = format!("is of type {dtype:?}, but its neighbour of {first:?}");
                return Err(Error::tensor(self.path(), name, what));
            }
            bytes.extend(self.inner.bytes(name)?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SafetensorsFile, TensorBytes, write_safetensors_to};
    use crate::nn::layers::Linear;

    /// A file of f32 tensors of these names and shapes, each counting on from the last.
    fn file(tensors: &[(&str, &[usize])]) -> Box<dyn TensorSource> {
        let mut next = 0;
        let values: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape)| {
                let first = next;
                next += shape.iter().product::<usize>();
                (first..next).flat_map(|x| (x as f32).to_le_bytes()).collect()
            })
            .collect();
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .zip(&values)
            .map(|((name, shape), bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
            .collect();
        let mut bytes = Vec::new();
        write_safetensors_to(&mut bytes, "x".as_ref(), &views, &BTreeMap::new()).unwrap();
        Box::new(SafetensorsFile::from_bytes("x.safetensors", bytes).unwrap())
    }

    fn halves(name: &str) -> Option<Place> {
        name.contains("kv").then(|| Place::joined(["k", "v"], |part| format!("p.to_{part}.weight")))
    }

    #[test]
    fn parts_are_joined_and_a_convolution_of_width_one_is_a_matrix() {
        let mut parameters = Parameters::default();
        Linear::unbiased(&mut parameters, "kv", [3, 4]);
        Linear::new(&mut parameters, "proj", [2, 2]);
        let shapes: [(&str, &[usize]); 5] = [
            ("p.proj.bias", &[2]),
            ("p.proj.weight", &[2, 2, 1, 1]),
            ("p.to_k.weight", &[2, 3]),
            ("p.to_v.weight", &[2, 3]),
            ("other", &[1]),
        ];
        let renamed = Renamed::new(file(&shapes), &parameters, "p.", halves).unwrap();
        assert_eq!(renamed.names(), ["other", "p.kv.weight", "p.proj.bias", "p.proj.weight"]);
        let (shape, values) = renamed.values("p.kv.weight").unwrap();
        assert_eq!((shape, values), (vec![4, 3], (6..18).map(|x| x as f32).collect()));
        assert_eq!(renamed.about("p.proj.weight").unwrap().1, [2, 2]);
        assert_eq!(renamed.values("p.proj.weight").unwrap().1, [2.0, 3.0, 4.0, 5.0]);

        let refusal = |shapes: &[(&str, &[usize])]| {
            Renamed::new(file(shapes), &parameters, "p.", halves).map(|_| ()).unwrap_err().to_string()
        };
        assert!(refusal(&shapes[..3]).contains("`p.to_v.weight` is missing"), "{}", refusal(&shapes[..3]));
        let mut wrong = shapes;
        wrong[3].1 = &[3, 2];
        assert!(
            refusal(&wrong).contains("is [3, 2], but the configuration makes it [2, 3]"),
            "{}",
            refusal(&wrong)
        );
        // A convolution that is none of width 1 is no matrix.
        wrong = shapes;
        wrong[1].1 = &[2, 2, 3, 3];
        assert!(refusal(&wrong).contains("[2, 2, 3, 3]"));
    }
}
