//! What the host writes for each image of a distillation, and the target that the teacher makes of it.

use crate::diffusion::{Clip, Level, Prediction, TeacherRow, guidance_weight};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::model::Model;
use crate::nn::{Denoiser, Pass, Told};
use crate::ops::{self, TeacherMove};
use crate::tensor::{Context, DType, Tensor};
use crate::train::draws::Draw;
use crate::train::options::TrainOptions;

/// What the host writes for each image of a distillation, and what becomes of it.
pub struct Teaching {
    range: [f64; 2],
    seed: u64,
    /// What the teacher and the student predict.
    predictions: [Prediction; 2],
    /// Whether the teacher's x̂ is clipped.
    clip: bool,
    /// Of a halving: the teacher's levels, twice as many as the student's.
    levels: Option<Vec<Level>>,
    null_label: u32,
    /// `[N]` f32.
    weights: Buffer,
    /// `[2N]` u32: each image's label, then as often the null one.
    labels: Buffer,
    /// `[N, 8]` f32, of the teacher's first and second move.
    rows: [Buffer; 2],
    /// `[N]` f32: what the teacher is told in its second move.
    times: Buffer,
}

impl Teaching {
    pub fn new(gpu: &Gpu, options: &TrainOptions, teacher: &Model) -> Result<Self> {
        let steps = options.distillation.as_ref().and_then(|distillation| distillation.steps);
        let n = options.microbatch as u64;
        let levels = match steps {
            None => None,
            Some(steps) => {
                let process = options.objective.process(options.log_snr_min, options.log_snr_max)?;
                Some(process.levels.halving(2 * steps)?)
            }
        };
        let row = size_of::<TeacherRow>() as u64;
        Ok(Teaching {
            range: options.unet.guidance_range.unwrap_or_default(),
            seed: options.seed,
            predictions: [teacher.config.process()?.prediction, options.objective.prediction],
            // A dynamic clip is no function of an element; pictures lie within [-1, 1] all the same.
            clip: teacher.config.clip()? != Clip::None,
            levels,
            null_label: options.unet.null_label(),
            weights: gpu.buffer("guidance weights", n * 4)?,
            labels: gpu.buffer("teacher's labels", 2 * n * 4)?,
            rows: [gpu.buffer("teacher's moves", n * row)?, gpu.buffer("teacher's second moves", n * row)?],
            times: gpu.buffer("teacher's second times", n * 4)?,
        })
    }

    /// The three levels of a halving that image `index` is at, by its draw.
    fn place(&self, draw: &Draw) -> Option<[Level; 3]> {
        let levels = self.levels.as_ref()?;
        let step = ((draw.u * (levels.len() / 2) as f64) as usize).min(levels.len() / 2 - 1);
        let to = levels.get(2 * step + 2).copied().unwrap_or(Level::CLEAN);
        Some([levels[2 * step], levels[2 * step + 1], to])
    }

    /// Puts a draw on one of the student's levels, where it has only few.
    pub fn redraw(&self, draw: Draw) -> Draw {
        match self.place(&draw) {
            None => draw,
            Some([Level { alpha, sigma, time }, ..]) => {
                Draw { alpha, sigma, time, log_snr: 2.0 * (alpha / sigma).ln(), ..draw }
            }
        }
    }

    /// Writes what images `first..` are taught by; `labels` are those the student is shown.
    pub fn write(&self, gpu: &Gpu, draws: &[Draw], labels: &[u32], first: u64) -> Result<()> {
        let [teacher, student] = self.predictions;
        let (mut weights, mut times) = (Vec::new(), Vec::new());
        let mut rows = [Vec::new(), Vec::new()];
        for (index, draw) in (first..).zip(draws) {
            let w = guidance_weight(self.seed, index, self.range);
            weights.push(w as f32);
            match self.place(draw) {
                None => {
                    let level = Level { alpha: draw.alpha, sigma: draw.sigma, time: draw.time };
                    rows[0].push(TeacherRow::guided(&level, teacher, student, self.clip, w));
                }
                Some(levels) => {
                    let both = TeacherRow::halving(&levels, teacher, student, self.clip);
                    rows.iter_mut().zip(both).for_each(|(rows, row)| rows.push(row));
                    times.push(levels[1].time as f32);
                }
            }
        }
        let mut both = labels.to_vec();
        both.resize(2 * labels.len(), self.null_label);
        gpu.write(&self.weights, 0, bytemuck::cast_slice(&weights))?;
        gpu.write(&self.labels, 0, bytemuck::cast_slice(&both))?;
        gpu.write(&self.rows[0], 0, bytemuck::cast_slice(&rows[0]))?;
        if self.levels.is_some() {
            gpu.write(&self.rows[1], 0, bytemuck::cast_slice(&rows[1]))?;
            gpu.write(&self.times, 0, bytemuck::cast_slice(&times))?;
        }
        Ok(())
    }

    /// w of each image, `[N]`.
    pub fn weights(&self, n: usize) -> Tensor {
        Tensor::over(&self.weights, &[n], DType::F32)
    }

    /// Records what the student at `z`, `time` has to predict.
    pub fn target(
        &self,
        cx: &mut Context,
        teacher: &Model,
        z: &Tensor,
        time: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        let n = time.len();
        // Where nothing runs, copies in f16 are a part of the recording: they take as much.
        let weights = match cx.gpu().is_estimating() && dtype == DType::F16 {
            true => teacher.weights().with_halves(cx)?,
            false => teacher.weights().fixed_in(cx.gpu(), dtype)?,
        };
        let pass = Pass::inference(dtype);
        let [first, second] = [0, 1].map(|i| Tensor::over(&self.rows[i], &[n, 8], DType::F32));
        if self.levels.is_none() {
            let labels = Tensor::over(&self.labels, &[2 * n], DType::U32);
            let told = Told { conditions: 2, class: Some(&labels), ..Told::default() };
            let out = teacher.unet.record(cx, &weights, z, time, told, &pass)?;
            return ops::teacher_move(cx, TeacherMove { z, out: &out, start: z, rows: &first });
        }
        let labels = Tensor::over(&self.labels, &[n], DType::U32);
        let w = self.weights(n);
        let told = Told { class: Some(&labels), guidance: Some(&w), ..Told::default() };
        let out = teacher.unet.record(cx, &weights, z, time, told, &pass)?;
        let middle = ops::teacher_move(cx, TeacherMove { z, out: &out, start: z, rows: &first })?;
        let time = Tensor::over(&self.times, &[n], DType::F32);
        let out = teacher.unet.record(cx, &weights, &middle, &time, told, &pass)?;
        ops::teacher_move(cx, TeacherMove { z: &middle, out: &out, start: z, rows: &second })
    }
}
