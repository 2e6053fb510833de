//! Statistics of a reference set: `mu`, `sigma`, `mu_s`, `sigma_s` as published evaluators have them, and beside them, from
//! this program, the features themselves, for KID, precision and recall.

use std::path::Path;

use super::store::Collected;
use super::{Features, Gaussian};
use crate::error::{Error, Result};
use crate::io::{NpzArrays, NpzValues, write_npz_arrays};

/// What pictures are compared with.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Of the pooled features.
    pub pooled: Gaussian,
    /// Of the spatial features, where the file has them.
    pub spatial: Option<Gaussian>,
    /// Each picture's pooled features, where the file has them.
    pub features: Option<Features>,
    /// Each picture's class, where the file has them.
    pub labels: Option<Vec<u32>>,
    /// The network of the features, where the file says it.
    pub network: Option<String>,
}

impl Reference {
    /// The statistics of collected features.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two pictures.
    pub fn of(collected: &Collected, network: &str) -> Result<Reference> {
        Ok(Reference {
            pooled: collected.pooled.gaussian()?,
            spatial: Some(collected.spatial.gaussian()?),
            features: Some(collected.features.clone()),
            labels: collected.labels.clone(),
            network: Some(network.to_owned()),
        })
    }

    /// Whether a file has statistics in it.
    pub fn is_in(path: &Path) -> bool {
        NpzArrays::open(path).is_ok_and(|file| file.has("mu") && file.has("sigma"))
    }

    /// Reads a file of statistics.
    ///
    /// # Errors
    /// When arrays are missing, damaged, or do not fit one another.
    pub fn load(path: &Path) -> Result<Reference> {
        let mut file = NpzArrays::open(path)?;
        let Some(pooled) = gaussian(path, &mut file, "mu", "sigma")? else {
            return Err(Error::format(
                path,
                "has no mu and sigma; `freeguide stats` makes such a file of pictures",
            ));
        };
        let spatial = gaussian(path, &mut file, "mu_s", "sigma_s")?;
        let features = match file.f32("features")? {
            None => None,
            Some(array) => match array.shape[..] {
                [_, dim] if dim == pooled.dim() => Some(Features { dim, values: array.values }),
                _ => {
                    return Err(Error::format(
                        path,
                        format!("features are {:?}, mu has {}", array.shape, pooled.dim()),
                    ));
                }
            },
        };
        let labels = file.i64("labels")?.map(|array| array.values);
        // A label that is none is none of any class.
        let labels = labels.map(|labels| {
            labels.iter().map(|&label| u32::try_from(label).unwrap_or(u32::MAX)).collect::<Vec<u32>>()
        });
        let labels = labels.filter(|labels| features.as_ref().is_some_and(|f| f.len() == labels.len()));
        Ok(Reference { pooled, spatial, features, labels, network: file.text("network")? })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let dim = self.pooled.dim();
        let (one, two) = ([dim], [dim, dim]);
        let mut arrays: Vec<(&str, &[usize], NpzValues<'_>)> = vec![
            ("mu", &one, NpzValues::F64(&self.pooled.mean)),
            ("sigma", &two, NpzValues::F64(&self.pooled.covariance)),
        ];
        let wide = self.spatial.as_ref().map_or(0, Gaussian::dim);
        let (one_s, two_s) = ([wide], [wide, wide]);
        if let Some(spatial) = &self.spatial {
            arrays.push(("mu_s", &one_s, NpzValues::F64(&spatial.mean)));
            arrays.push(("sigma_s", &two_s, NpzValues::F64(&spatial.covariance)));
        }
        let rows = [self.features.as_ref().map_or(0, Features::len), dim];
        if let Some(features) = &self.features {
            arrays.push(("features", &rows, NpzValues::F32(&features.values)));
        }
        let labels: Vec<i64> = self.labels.iter().flatten().map(|&label| i64::from(label)).collect();
        let count = [labels.len()];
        if self.labels.is_some() {
            arrays.push(("labels", &count, NpzValues::I64(&labels)));
        }
        let network = self.network.as_deref().unwrap_or_default().as_bytes();
        let length = [network.len()];
        if !network.is_empty() {
            arrays.push(("network", &length, NpzValues::U8(network)));
        }
        write_npz_arrays(path, &arrays)
    }
}

fn gaussian(path: &Path, file: &mut NpzArrays, mean: &str, covariance: &str) -> Result<Option<Gaussian>> {
    let (Some(mu), Some(sigma)) = (file.f64(mean)?, file.f64(covariance)?) else { return Ok(None) };
    let dim = mu.values.len();
    if mu.shape != [dim] || sigma.shape != [dim, dim] || dim == 0 {
        let what = format!("{mean} is {:?} and {covariance} is {:?}", mu.shape, sigma.shape);
        return Err(Error::format(path, format!("{what}: they must be [D] and [D, D]")));
    }
    Ok(Some(Gaussian { mean: mu.values, covariance: sigma.values }))
}
