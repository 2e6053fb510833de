//! A text encoder with its weights on a device and its table of tokens in its file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::TextCheckpoint;
use super::family::TextFamily;
#[cfg(not(target_arch = "wasm32"))]
use super::states::{TextStates, read};
use super::table::Table;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{Arena, ClipText, Encoded, Pass, Sequences, TextAbout, TextEncoder};
use crate::tensor::{Context, DType};
use crate::text::{ClipTokenizer, Tokens};

/// A text encoder, ready to encode. The rows of its table of tokens are read from its file when they are needed.
pub struct TextModel {
    /// Where it was read from.
    pub path: PathBuf,
    /// Whose it is.
    pub family: TextFamily,
    encoder: ClipText,
    tokenizer: Arc<ClipTokenizer>,
    pad: u32,
    eos: Option<u32>,
    gpu: Gpu,
    arena: Arena,
    dtype: DType,
    checksum: u32,
    table: Table,
}

impl TextModel {
    /// The text encoders of a model, in their order, with activations of `dtype`: see [`TextCheckpoint::open`].
    ///
    /// # Errors
    /// As [`TextCheckpoint::open`] and [`TextModel::of`].
    pub fn open_all(gpu: &Gpu, path: &Path, dtype: DType) -> Result<Vec<TextModel>> {
        TextCheckpoint::open(path)?.iter().map(|checkpoint| TextModel::of(gpu, checkpoint, dtype)).collect()
    }

    /// The text encoder of a model that has one.
    ///
    /// # Errors
    /// As [`TextModel::open_all`]; [`Error::Format`] for a model with several.
    pub fn open(gpu: &Gpu, path: &Path, dtype: DType) -> Result<TextModel> {
        match &TextCheckpoint::open(path)?[..] {
            [only] => TextModel::of(gpu, only, dtype),
            several => {
                let what = format!("has {} text encoders, where one is expected", several.len());
                Err(Error::format(path, what))
            }
        }
    }

    /// Brings the weights of an encoder to a device; with [`DType::F16`] its matrices lie there in f16.
    ///
    /// # Errors
    /// [`Error::Tensor`] for weights that are not finite, or that f16 cannot hold; [`Error::Config`] for f16 on a device
    /// without it; [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn of(gpu: &Gpu, checkpoint: &TextCheckpoint, dtype: DType) -> Result<TextModel> {
        let encoder = ClipText::new(&checkpoint.config, checkpoint.given)?;
        let (arena, checksum) = checkpoint.renamed(&encoder)?.upload(gpu, encoder.parameters(), dtype)?;
        let (source, name) = (Arc::clone(&checkpoint.source), checkpoint.root.table());
        let table = Table { source, name, width: checkpoint.config.width };
        Ok(TextModel {
            path: checkpoint.file.clone(),
            family: checkpoint.family,
            tokenizer: Arc::clone(&checkpoint.tokenizer),
            pad: checkpoint.pad,
            eos: checkpoint.eos,
            gpu: gpu.clone(),
            arena,
            dtype,
            checksum,
            table,
            encoder,
        })
    }

    /// What it takes and gives.
    pub fn about(&self) -> &TextAbout {
        self.encoder.about()
    }

    /// The network.
    pub fn encoder(&self) -> &ClipText {
        &self.encoder
    }

    /// What takes texts apart for it.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// The device its weights lie on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The CRC-32 of the weights that it uses, f32 in the kernels' order, the table of tokens left out.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The tokens of a text, as many as it has places for; [`Tokens::warning`] says what had none.
    pub fn tokenize(&self, text: &str) -> Tokens {
        self.tokenizer.encode(text, self.about().places, self.pad)
    }

    /// The place of the token that stands for a text: the first of the end token's, or, where no configuration names it, of the
    /// highest number's.
    fn end_of(&self, tokens: &Tokens) -> Result<usize> {
        let eos = self.eos.or_else(|| tokens.ids.iter().copied().max()).unwrap_or_default();
        tokens.ids.iter().position(|id| *id == eos).ok_or_else(|| {
            let what = format!(
                "the text encoder pools at token {eos}, which its tokenizer did not end the text with"
            );
            Error::format(&self.path, what)
        })
    }

    /// Records the encoding of texts of one length into a plan; rows of the table are read now. Waits for nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] for texts of different or too great length, or none; when the file cannot be read any more.
    pub fn record(&self, cx: &mut Context, texts: &[Tokens]) -> Result<Encoded> {
        let length = texts.first().map_or(0, |text| text.ids.len());
        if let Some(other) = texts.iter().find(|text| text.ids.len() != length) {
            let what =
                format!("a text of {length} tokens and one of {} are not encoded together", other.ids.len());
            return Err(Error::shape("text encoder", what));
        }
        let shape = [texts.len(), length, self.about().width];
        let values = self.table.rows(texts.iter().flat_map(|text| &text.ids))?;
        let tokens = cx.constant_f32("tokens", &shape, &values)?;
        let ends = match self.about().pooled {
            Some(_) => {
                let end = |(i, text)| Ok((i * length + self.end_of(text)?) as u32);
                let rows = texts.iter().enumerate().map(end).collect::<Result<Vec<u32>>>()?;
                Some(cx.constant_u32("ends of texts", &[texts.len()], &rows)?)
            }
            None => None,
        };
        let weights = self.arena.weights(self.encoder.parameters(), 0);
        let texts = Sequences { tokens: &tokens, ends: ends.as_ref() };
        self.encoder.record(cx, &weights, texts, &Pass::inference(self.dtype))
    }

    /// Encodes texts. What of them has no place is left out: [`Self::tokenize`] says what. Waits for the device.
    ///
    /// # Errors
    /// As [`Self::record`]; what the device objects to.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode(&self, texts: &[&str]) -> Result<TextStates> {
        self.encode_tokens(&texts.iter().map(|text| self.tokenize(text)).collect::<Vec<_>>())
    }

    /// Encodes tokens. Waits for the device.
    ///
    /// # Errors
    /// As [`Self::encode`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode_tokens(&self, texts: &[Tokens]) -> Result<TextStates> {
        let mut cx = Context::new(&self.gpu);
        let Encoded { states, pooled } = self.record(&mut cx, texts)?;
        let &[texts, tokens, width] = states.shape() else { unreachable!("states are [R, L, D]") };
        [Some(&states), pooled.as_ref()].into_iter().flatten().for_each(|tensor| cx.keep(tensor));
        let plan = cx.finish("text encoder")?;
        plan.run()?;
        let pooled = pooled.as_ref().map(|pooled| read(&self.gpu, &plan, pooled)).transpose()?;
        let states = read(&self.gpu, &plan, &states)?;
        Ok(TextStates { texts, tokens, width, lengths: vec![tokens; texts], states, pooled })
    }
}
