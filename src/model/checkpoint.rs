//! Reading and writing models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_atomic, write_safetensors};
use crate::nn::{Arena, Parameters, UNet, Weights};

use super::config::{CLASS_NAME, ModelConfig};

/// A network with its weights on a device.
pub struct Model {
    /// Its configuration.
    pub config: ModelConfig,
    /// The network.
    pub unet: UNet,
    /// Where it was read from.
    pub path: PathBuf,
    arena: Arena,
}

impl Model {
    /// Reads a model: a folder with `model.safetensors` and `config.json`, or a `.safetensors` file beside its
    /// `config.json`.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; a damaged model names the older training state if there is one.
    pub fn load(gpu: &Gpu, path: &Path) -> Result<Model> {
        let (weights, config) = read_config(path)?;
        let unet = UNet::new(&config.unet)?;
        let file = SafetensorsFile::open(&weights)?;
        let values = load_values(&file, unet.parameters(), "")?;
        let arena = unet.parameters().arena(gpu, "weights", 1)?;
        arena.write(gpu, 0, &values)?;
        Ok(Model { config, unet, path: weights, arena })
    }

    /// A model of weights that are on the device already: copy `copy` of `arena`.
    pub fn weights(&self) -> Weights {
        self.arena.weights(self.unet.parameters(), 0)
    }
}

/// The weights file and the configuration that `path` (a folder or a file) stands for.
pub fn read_config(path: &Path) -> Result<(PathBuf, ModelConfig)> {
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    let (weights, folder) = if path.is_dir() {
        (path.join("model.safetensors"), path)
    } else {
        (path.to_owned(), path.parent().unwrap_or(Path::new(".")))
    };
    if !weights.exists() {
        return Err(Error::format(
            path,
            "holds no model: expected a folder with model.safetensors and config.json, or a .safetensors file",
        ));
    }
    let config_path = folder.join("config.json");
    let text = std::fs::read_to_string(&config_path).map_err(Error::io(&config_path))?;
    let config: ModelConfig =
        serde_json::from_str(&text).map_err(|error| Error::format(&config_path, error.to_string()))?;
    if config.class_name != CLASS_NAME {
        let what = format!("`_class_name` is {:?}, expected {CLASS_NAME:?}", config.class_name);
        return Err(Error::format(&config_path, what));
    }
    Ok((weights, config))
}

/// The values of every parameter, in the kernels' order, from the tensors named `PREFIX + name`.
///
/// # Errors
/// [`Error::Tensor`] for a missing tensor, one of another shape (with both shapes), or one with NaN or infinity; for
/// tensors nobody asked for where there is no prefix.
pub fn load_values(file: &SafetensorsFile, parameters: &Parameters, prefix: &str) -> Result<Vec<Vec<f32>>> {
    let names = file.names();
    let mut values = Vec::with_capacity(parameters.specs().len());
    for spec in parameters.specs() {
        let name = format!("{prefix}{}", spec.name);
        if !names.contains(&name) {
            return Err(Error::tensor(file.path(), name, "is missing"));
        }
        let (shape, data) = file.to_f32(&name)?;
        let expected = spec.file_shape();
        if shape != expected {
            let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
            return Err(Error::tensor(file.path(), name, what));
        }
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            return Err(Error::tensor(file.path(), name, format!("holds {} at element {at}", data[at])));
        }
        values.push(spec.from_file(&data));
    }
    if prefix.is_empty() && names.len() > values.len() {
        let known = |name: &&String| parameters.specs().iter().any(|spec| spec.name == **name);
        let unknown: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
        let what = format!("is not a part of this network ({} such tensors)", unknown.len());
        return Err(Error::tensor(file.path(), unknown[0], what));
    }
    Ok(values)
}

/// The tensors of `values` (in the kernels' order) as files hold them: (name, shape, bytes).
pub fn model_tensors(
    parameters: &Parameters,
    values: &[Vec<f32>],
    prefix: &str,
) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let tensor = |(spec, values): (&crate::nn::ParameterSpec, &Vec<f32>)| {
        let bytes = bytemuck::cast_slice(&spec.to_file(values)).to_vec();
        (format!("{prefix}{}", spec.name), spec.file_shape(), bytes)
    };
    parameters.specs().iter().zip(values).map(tensor).collect()
}

/// Writes `FILE` (weights) and, if given, `config.json` beside it, each under a temporary name that is then renamed.
pub fn write_model(
    path: &Path,
    config: Option<&ModelConfig>,
    parameters: &Parameters,
    values: &[Vec<f32>],
) -> Result<()> {
    let tensors = model_tensors(parameters, values, "");
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
        .collect();
    write_safetensors(path, &views, &BTreeMap::from([("format".into(), "pt".into())]))?;
    if let Some(config) = config {
        let path = path.with_file_name("config.json");
        let text = serde_json::to_string_pretty(config).map_err(|e| Error::format(&path, e.to_string()))?;
        write_atomic(&path, |writer| {
            writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(b"\n")).map_err(Error::io(&path))
        })?;
    }
    Ok(())
}
