//! Values of parameters in files: from tensors to the kernels' order and back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::io::{Dtype, TensorBytes, TensorSource, write_atomic, write_safetensors};
use crate::nn::{ParameterSpec, Parameters};

use super::config::ModelConfig;
use super::weights_kind::WeightsKind;

/// Numbers that are read at a time, more only of a tensor that has more: the host holds them once as they are in the file, and
/// once in order.
const AT_ONCE: usize = 32 << 20;

/// Threads at most that read; more only wait for the disk or the memory.
const THREADS: usize = 8;

/// The values of every parameter, in the kernels' order, from the tensors named `PREFIX + name`.
///
/// # Errors
/// [`Error::Tensor`] for a missing tensor, one of another shape (with both shapes), or one with NaN or infinity; for
/// tensors under the prefix that nobody asked for.
pub fn load_values(file: &dyn TensorSource, parameters: &Parameters, prefix: &str) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::with_capacity(parameters.specs().len());
    for_each_value(file, parameters, prefix, |_, values| {
        all.push(values);
        Ok(())
    })?;
    Ok(all)
}

/// As [`load_values`], handing each parameter's place and values on.
pub(super) fn for_each_value(
    file: &dyn TensorSource,
    parameters: &Parameters,
    prefix: &str,
    mut take: impl FnMut(usize, Vec<f32>) -> Result<()>,
) -> Result<()> {
    check_tensors(file, parameters, prefix)?;
    let read = |spec: &ParameterSpec| -> Result<Vec<f32>> {
        let name = format!("{prefix}{}", spec.name);
        let (_, data) = file.values(&name)?;
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            return Err(Error::tensor(file.path(), name, format!("holds {} at element {at}", data[at])));
        }
        Ok(spec.from_file(&data))
    };
    let (specs, mut first) = (parameters.specs(), 0);
    while first < specs.len() {
        let mut numbers = 0;
        let fits = |spec: &&ParameterSpec| {
            numbers += spec.len();
            numbers <= AT_ONCE
        };
        let some = &specs[first..][..specs[first..].iter().take_while(fits).count().max(1)];
        for (place, values) in in_threads(some, read).into_iter().enumerate() {
            take(first + place, values?)?;
        }
        first += some.len();
    }
    Ok(())
}

/// What `make` makes of each item, in their order, by as many threads as there are processors for, up to [`THREADS`].
fn in_threads<T: Sync, R: Send>(items: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(items.len());
    // A browser has one.
    if threads < 2 {
        return items.iter().map(make).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, make(item)))
        });
        mine.collect::<Vec<_>>()
    };
    let mut made: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = running.into_iter().map(|thread| thread.join());
        joined.flat_map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, made)| made).collect()
}

/// Checks that the names under `prefix` and their shapes are exactly the network's.
pub(super) fn check_tensors(file: &dyn TensorSource, parameters: &Parameters, prefix: &str) -> Result<()> {
    let names = file.names();
    let known: HashSet<&str> = parameters.specs().iter().map(|spec| spec.name.as_str()).collect();
    for spec in parameters.specs() {
        let name = format!("{prefix}{}", spec.name);
        if names.binary_search(&name).is_err() {
            let what = match file.opaque().get(&name) {
                Some(kind) => format!("is of the type `{kind}`, which is not read"),
                None => "is missing".into(),
            };
            return Err(Error::tensor(file.path(), name, what));
        }
        let (_, shape) = file.about(&name)?;
        let expected = spec.file_shape();
        if shape != expected {
            let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
            return Err(Error::tensor(file.path(), name, what));
        }
    }
    let under = names.iter().filter_map(|name| name.strip_prefix(prefix));
    let unknown: Vec<&str> = under.filter(|name| !known.contains(name)).collect();
    if let Some(first) = unknown.first() {
        let what = format!("is not a part of this network ({} such tensors)", unknown.len());
        return Err(Error::tensor(file.path(), format!("{prefix}{first}"), what));
    }
    Ok(())
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
    write_weights(path, config.and_then(WeightsKind::of_config), parameters, values)?;
    if let Some(config) = config {
        let path = path.with_file_name("config.json");
        let text = serde_json::to_string_pretty(config).map_err(|e| Error::format(&path, e.to_string()))?;
        write_atomic(&path, |writer| {
            writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(b"\n")).map_err(Error::io(&path))
        })?;
    }
    Ok(())
}

/// Writes weights alone, which say in their notes of what kind they are.
///
/// # Errors
/// When the disk refuses.
pub fn write_weights(
    path: &Path,
    kind: Option<WeightsKind>,
    parameters: &Parameters,
    values: &[Vec<f32>],
) -> Result<()> {
    let tensors = model_tensors(parameters, values, "");
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
        .collect();
    let mut notes = kind.map(WeightsKind::to_notes).unwrap_or_default();
    notes.insert("format".into(), "pt".into());
    write_safetensors(path, &views, &notes)
}
