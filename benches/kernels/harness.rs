//! Recordings timed by the GPU, inside criterion.

use std::ops::Range;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use freeguide::Result;
use freeguide::autograd::backprop_from;
use freeguide::gpu::{DeviceChoice, Gpu, Plan};
use freeguide::tensor::{Context, DType, Tensor};
use freeguide::wgpu;

use crate::row::{self, Row, Work};

/// As many submissions as a sampler has under way.
const IN_A_ROW: usize = 4;

/// Below the time after which some systems take a GPU for hung, and long enough for clocks to rise.
const SUBMISSION_SECONDS: f64 = 0.1;

/// A plan, alone or inside of what it needs to stay meaningful.
pub trait Planned {
    fn plan(&self) -> &Plan;
}

impl Planned for Plan {
    fn plan(&self) -> &Plan {
        self
    }
}

/// The benchmarks of one device.
pub struct Bench {
    pub gpu: Gpu,
    criterion: Criterion,
    rows: Vec<Row>,
}

impl Bench {
    pub fn new() -> Self {
        let gpu = Gpu::new_blocking(&DeviceChoice::Auto).expect("benchmarks need a GPU adapter");
        let software = gpu.capabilities().kind == wgpu::DeviceType::Cpu;
        let (samples, warm_up, measured) = if software { (10, 200, 700) } else { (30, 400, 1500) };
        let criterion = Criterion::default()
            .sample_size(samples)
            .warm_up_time(Duration::from_millis(warm_up))
            .measurement_time(Duration::from_millis(measured))
            .nresamples(2000)
            .without_plots()
            .configure_from_args();
        Bench { gpu, criterion, rows: Vec::new() }
    }

    /// Whether this is a software adapter, for which shapes are small.
    pub fn is_software(&self) -> bool {
        self.gpu.capabilities().kind == wgpu::DeviceType::Cpu
    }

    /// The storage types worth measuring: f16 too on GPUs that have it.
    pub fn dtypes(&self) -> &'static [DType] {
        let both = self.gpu.capabilities().f16 && !self.is_software();
        if both { &[DType::F32, DType::F16] } else { &[DType::F32] }
    }

    /// Measures what `record` records after its last [`Recorder::start_here`], under `family/name/shape dtype`.
    pub fn measure(
        &mut self,
        family: &str,
        name: &str,
        shape: impl std::fmt::Display,
        dtype: DType,
        work: Work,
        record: impl Fn(&mut Recorder) -> Result<()>,
    ) {
        let shape = format!("{shape} {}", row::dtype(dtype));
        self.measure_plan(family, name, shape, dtype, work, |gpu| Timed::record(gpu, &record));
    }

    /// As [`Bench::measure`], for a plan made elsewhere.
    pub fn measure_plan(
        &mut self,
        family: &str,
        name: &str,
        shape: String,
        dtype: DType,
        work: Work,
        make: impl Fn(&Gpu) -> Result<Timed>,
    ) {
        let gpu = self.gpu.clone();
        let warm_up = Duration::from_millis(if self.is_software() { 200 } else { 400 });
        // Nothing is made for a benchmark that the filter leaves out: criterion never calls the closure then.
        let mut timed: Option<Result<Timed>> = None;
        let mut samples: Vec<f64> = Vec::new();
        let mut warming = Vec::new();
        let mut group = self.criterion.benchmark_group(family);
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(format!("{name}/{shape}"), |bencher| {
            let timed = timed.get_or_insert_with(|| make(&gpu));
            bencher.iter_custom(|times| {
                // Criterion wants a time; a shape that this device has no room for gets no row below.
                let Ok(timed) = timed else { return Duration::from_millis(times) };
                let seconds = timed.seconds(times as usize).expect("it ran before");
                let kept = if timed.begun.elapsed() > warm_up { &mut samples } else { &mut warming };
                kept.push(seconds / times as f64);
                Duration::from_secs_f64(seconds)
            });
        });
        group.finish();
        if let Some(Err(error)) = &timed {
            println!("{family}/{name}/{shape} is left out: {error}");
        }
        if let Some(Ok(timed)) = timed {
            if std::env::var_os("FREEGUIDE_BENCH_PROFILE").is_some() {
                println!("host: {:.3} ms to encode and submit it once", 1e3 * timed.host_seconds(1));
                match timed.plan.plan().profile() {
                    Ok(profile) => println!("{profile}"),
                    Err(error) => println!("no profile: {error}"),
                }
            }
            let samples = if samples.is_empty() { warming } else { samples };
            let (bench, rung) = (format!("{family}/{name}"), timed.variants());
            let host = (family == "sampler").then(|| [timed.host_seconds(1), timed.host_seconds(IN_A_ROW)]);
            self.rows.push(Row { bench, shape: shape.clone(), dtype, rung, seconds: median(samples), work });
            // What of a step the host has to do.
            for (name, seconds) in ["host", "host in a row"].iter().zip(host.into_iter().flatten()) {
                let (bench, rung, shape) = (format!("{family}/{name}"), "-".to_owned(), shape.clone());
                self.rows.push(Row { bench, shape, dtype, rung, seconds, work: Work::Images(1) });
            }
        }
        self.gpu.trim();
    }

    /// Measures without criterion, for ceilings that the filter left out.
    pub fn quickly(&self, record: impl Fn(&mut Recorder) -> Result<()>) -> f64 {
        let mut timed = Timed::record(&self.gpu, &record).expect("a ceiling fits every device");
        let (mut samples, begun) = (Vec::new(), Instant::now());
        while samples.len() < 5 || begun.elapsed() < Duration::from_millis(800) {
            samples.push(timed.seconds(1).expect("it ran before"));
        }
        // The first half warms up.
        let half = samples.len() / 2;
        median(samples.split_off(half))
    }

    /// Whether a benchmark of this name is to be run: outside of criterion, which asks nobody.
    pub fn wants(&self, name: &str) -> bool {
        let args = || std::env::args().skip(1);
        let mut filters = args().filter(|arg| !arg.starts_with('-')).peekable();
        let measured =
            args().any(|arg| arg == "--bench") && !args().any(|arg| arg == "--test" || arg == "--list");
        let fits = |filter: String| filter.split('|').any(|part| part.starts_with(name));
        measured && (filters.peek().is_none() || filters.any(fits))
    }

    /// A row measured outside of criterion.
    pub fn keep(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Criterion's last words. Gives every row that was measured; none where criterion only listed or tried them.
    pub fn finish(&mut self) -> Vec<Row> {
        self.criterion.final_summary();
        let measured = std::env::args().any(|arg| arg == "--bench")
            && !std::env::args().any(|arg| arg == "--test" || arg == "--list");
        if measured { std::mem::take(&mut self.rows) } else { Vec::new() }
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A recording, or the part of it that is measured.
pub struct Timed {
    gpu: Gpu,
    plan: Box<dyn Planned>,
    range: Range<usize>,
    estimate: f64,
    begun: Instant,
}

impl Timed {
    /// A recording.
    pub fn record(gpu: &Gpu, record: &impl Fn(&mut Recorder) -> Result<()>) -> Result<Self> {
        let mut recorder = Recorder { cx: Context::with_tape(gpu), seed: 1, first: 0 };
        record(&mut recorder)?;
        let range = recorder.first..recorder.cx.len();
        Timed::part(gpu, recorder.cx.finish("bench")?, range)
    }

    /// All of a plan.
    pub fn whole(gpu: &Gpu, planned: impl Planned + 'static) -> Result<Self> {
        let range = 0..planned.plan().len();
        Timed::part(gpu, planned, range)
    }

    /// Dispatches `range` of a plan, which is run once as a whole, so that what they read is there.
    fn part(gpu: &Gpu, planned: impl Planned + 'static, range: Range<usize>) -> Result<Self> {
        planned.plan().run()?;
        gpu.wait()?;
        let plan = Box::new(planned);
        let mut timed = Timed { gpu: gpu.clone(), plan, range, estimate: 1.0, begun: Instant::now() };
        timed.estimate = timed.once(1)?;
        Ok(timed)
    }

    /// Seconds in which the host encodes and submits all of the plan, so many times in a row, the device being idle before: for
    /// one of them. The first of a row finds the processor as a wait left it.
    fn host_seconds(&self, in_a_row: usize) -> f64 {
        let once = |_| {
            self.gpu.wait().expect("it ran before");
            let begun = Instant::now();
            (0..in_a_row).for_each(|_| self.plan.plan().run().expect("it ran before"));
            begun.elapsed().as_secs_f64() / in_a_row as f64
        };
        let seconds = median((0..30).map(once).collect());
        self.gpu.wait().expect("it ran before");
        seconds
    }

    /// Seconds for all of `times` runs, in submissions of a bearable length.
    fn seconds(&mut self, times: usize) -> Result<f64> {
        let (mut total, mut done) = (0.0, 0);
        while done < times {
            let most = (SUBMISSION_SECONDS / self.estimate.max(1e-7)) as usize;
            let now = (times - done).min(most.max(1));
            let seconds = self.once(now)?;
            self.estimate = seconds / now as f64;
            total += seconds;
            done += now;
        }
        Ok(total)
    }

    fn once(&self, times: usize) -> Result<f64> {
        if self.gpu.capabilities().timestamps {
            return Ok(self.plan.plan().seconds_of(self.range.clone(), times)? * times as f64);
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        (0..times).for_each(|_| self.plan.plan().encode(&mut encoder, self.range.clone()));
        let commands = encoder.finish();
        let begun = Instant::now();
        self.gpu.queue().submit([commands]);
        self.gpu.wait()?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// The variants of the kernels that run, from their labels.
    fn variants(&self) -> String {
        let labels = self.plan.plan().labels().skip(self.range.start).take(self.range.len());
        let mut seen: Vec<&str> = Vec::new();
        for variant in labels.filter_map(|label| Some(label.split_once(' ')?.1)) {
            if !seen.contains(&variant) {
                seen.push(variant);
            }
        }
        if seen.is_empty() { "-".to_owned() } else { seen.join(" + ") }
    }
}

/// A recording under way, with tensors to record it of.
pub struct Recorder {
    pub cx: Context,
    seed: u64,
    first: usize,
}

impl Recorder {
    /// Uniform in [-1, 1), exact in f16.
    pub fn random(&mut self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.seed += 1;
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let values = (0..shape.iter().product()).map(|_: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 54) as f32 - 512.0) / 512.0
        });
        match dtype {
            DType::F16 => {
                let values: Vec<half::f16> = values.map(half::f16::from_f32).collect();
                self.cx.constant("random", shape, dtype, bytemuck::cast_slice(&values))
            }
            _ => self.cx.constant_f32("random", shape, &values.collect::<Vec<f32>>()),
        }
    }

    /// A random f32 parameter whose gradient is wanted, added to what is there, as in training.
    pub fn parameter(&mut self, shape: &[usize]) -> Result<Tensor> {
        let (parameter, gradient) = (self.random(shape, DType::F32)?, self.random(shape, DType::F32)?);
        self.cx.track_parameter(&parameter, &gradient);
        Ok(parameter)
    }

    /// What was recorded up to here is only run once, not measured.
    pub fn start_here(&mut self) {
        self.first = self.cx.len();
    }

    /// Records the backward pass alone of what made `y`, from random gradients.
    pub fn backward_of(&mut self, y: &Tensor) -> Result<()> {
        let dy = self.random(y.shape(), y.dtype())?;
        self.start_here();
        backprop_from(&mut self.cx, y, &dy)
    }
}
