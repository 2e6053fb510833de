//! Networks with their weights on a device.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{Arena, Classifier, Parameters, UNet, Weights};
use crate::tensor::DType;

use super::architecture::Kind;
use super::checkpoint::{Checkpoint, Found};
use super::config::ModelConfig;
use super::locate::Choice;
use super::values::for_each_value;

/// A network with its weights on a device.
pub struct Model {
    /// Its configuration.
    pub config: ModelConfig,
    /// The network.
    pub unet: UNet,
    /// Where it was read from.
    pub path: PathBuf,
    /// Its file's name, and behind a `#` the network's where the file holds several.
    pub name: String,
    /// Which file, which network and which average it is; nothing of values that were at hand.
    pub found: Option<Found>,
    gpu: Gpu,
    arena: Arena,
    checksum: u32,
}

impl Model {
    /// Reads a model of any kind that [`Checkpoint::open`] knows.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name.
    pub fn load(gpu: &Gpu, path: &Path) -> Result<Model> {
        Model::of(gpu, Checkpoint::open(path, None)?)
    }

    /// As [`Model::load`], of several networks or averages the one that is asked for.
    ///
    /// # Errors
    /// As [`Checkpoint::choose`].
    pub fn choose(gpu: &Gpu, path: &Path, choice: &Choice) -> Result<Model> {
        Model::of(gpu, Checkpoint::choose(path, choice)?)
    }

    /// Reads the weights of a checkpoint.
    ///
    /// # Errors
    /// When it is a classifier, or its weights cannot be read or are not finite.
    pub fn of(gpu: &Gpu, checkpoint: Checkpoint) -> Result<Model> {
        Model::of_in(gpu, checkpoint, DType::F32)
    }

    /// As [`Model::of`], for evaluations with activations of `dtype`. With [`DType::F16`] the matrices lie on the device in f16
    /// alone, a third of the memory that a model of [`Model::of`] takes for the same pictures; it is then refused wherever f32
    /// is computed, and [`Model::values`] gives rounded values.
    ///
    /// # Errors
    /// As of `of`; [`Error::Config`] for f16 on a device without it, [`Error::Tensor`] for a weight that f16 cannot hold.
    pub fn of_in(gpu: &Gpu, checkpoint: Checkpoint, dtype: DType) -> Result<Model> {
        let path = checkpoint.source.path().to_owned();
        if checkpoint.kind() == Kind::Classifier {
            return Err(Error::format(path, "is a classifier, where a diffusion model is expected"));
        }
        let (name, found) = (checkpoint.found.name(), Some(checkpoint.found.clone()));
        let unet = UNet::new(&checkpoint.config.unet)?;
        let (arena, checksum) = upload(gpu, &checkpoint, unet.parameters(), dtype)?;
        Ok(Model { config: checkpoint.config, unet, path, name, found, gpu: gpu.clone(), arena, checksum })
    }

    /// Reads a model from memory, for programs that carry theirs and for browsers: the texts of `config.json` and of
    /// `model.safetensors`. Errors call the files `name`.
    ///
    /// # Errors
    /// As [`Model::of`]; when configuration and weights do not fit each other.
    pub fn from_bytes(gpu: &Gpu, name: &str, config: &str, weights: &[u8]) -> Result<Model> {
        Model::of(gpu, Checkpoint::from_bytes(name, config, weights)?)
    }

    /// A model of values that are at hand, one list for each parameter of the network in the kernels' order; `path` is
    /// what it is called.
    ///
    /// # Errors
    /// [`Error::Config`] for a network that cannot be, [`Error::Format`] for values that are not the network's;
    /// [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn of_values(gpu: &Gpu, config: ModelConfig, values: &[Vec<f32>], path: &Path) -> Result<Model> {
        let unet = UNet::new(&config.unet)?;
        let specs = unet.parameters().specs();
        let fits = specs.len() == values.len() && specs.iter().zip(values).all(|(s, v)| s.len() == v.len());
        if !fits {
            let (want, got) = (unet.parameters().count(), values.iter().map(Vec::len).sum::<usize>());
            let what = format!("the network has {want} numbers in {} parameters", specs.len());
            return Err(Error::format(path, format!("{what}, given were {got} in {}", values.len())));
        }
        let arena = unet.parameters().read_only_arena(gpu, "weights", DType::F32)?;
        arena.write(gpu, 0, values)?;
        let mut sum = crc32fast::Hasher::new();
        values.iter().for_each(|values| sum.update(bytemuck::cast_slice(values)));
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let (path, gpu, checksum) = (path.to_owned(), gpu.clone(), sum.finalize());
        Ok(Model { config, unet, path, name, found: None, gpu, arena, checksum })
    }

    /// The CRC-32 of its weights, f32 in the kernels' order: which weights these are, whatever file they came from.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The device its weights lie on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Its weights on the device.
    pub fn weights(&self) -> Weights {
        self.arena.weights(self.unet.parameters(), 0)
    }

    /// Its weights, one list for each parameter of the network in the kernels' order. Waits for the device.
    ///
    /// # Errors
    /// What the device objects to.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.arena.read(&self.gpu, self.unet.parameters(), 0)
    }
}

/// A classifier of noisy pictures with its weights on a device.
pub struct ClassifierModel {
    /// Its configuration.
    pub config: ModelConfig,
    /// The network.
    pub network: Classifier,
    /// Where it was read from.
    pub path: PathBuf,
    /// Which file, which network and which average it is.
    pub found: Found,
    arena: Arena,
    checksum: u32,
}

impl ClassifierModel {
    /// Reads a classifier of any kind that [`Checkpoint::open`] knows.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; when it is a diffusion model.
    pub fn load(gpu: &Gpu, path: &Path) -> Result<ClassifierModel> {
        ClassifierModel::of(gpu, Checkpoint::open(path, None)?)
    }

    /// Reads the weights of a checkpoint.
    ///
    /// # Errors
    /// When it is no classifier, or its weights cannot be read or are not finite.
    pub fn of(gpu: &Gpu, checkpoint: Checkpoint) -> Result<ClassifierModel> {
        let path = checkpoint.source.path().to_owned();
        if checkpoint.kind() != Kind::Classifier {
            return Err(Error::format(path, "is a diffusion model, where a classifier is expected"));
        }
        let network = Classifier::new(&checkpoint.config.unet)?;
        let (arena, checksum) = upload(gpu, &checkpoint, network.parameters(), DType::F32)?;
        Ok(ClassifierModel {
            config: checkpoint.config,
            network,
            path,
            found: checkpoint.found,
            arena,
            checksum,
        })
    }

    /// As [`Model::checksum`].
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Its weights on the device.
    pub fn weights(&self) -> Weights {
        self.arena.weights(self.network.parameters(), 0)
    }
}

/// Brings the weights to the device one by one: the host holds no more than the largest. With their checksum.
fn upload(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    parameters: &Parameters,
    matrices: DType,
) -> Result<(Arena, u32)> {
    // A checkpoint was checked to have the network's tensors when it was opened, so the room is really needed.
    let arena = parameters.read_only_arena(gpu, "weights", matrices)?;
    let mut sum = crc32fast::Hasher::new();
    for_each_value(checkpoint.source.as_ref(), parameters, &checkpoint.prefix, |place, values| {
        sum.update(bytemuck::cast_slice(&values));
        arena.write_one(gpu, 0, place, &values).map_err(|error| match error {
            Error::Config(what) => {
                Error::tensor(checkpoint.source.path(), parameters.specs()[place].name.clone(), what)
            }
            other => other,
        })
    })?;
    Ok((arena, sum.finalize()))
}
