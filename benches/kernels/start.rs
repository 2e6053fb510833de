//! From the start of a process to its first picture by the network of the `imagenet64` preset (on software adapters that of
//! the digits), without the time that making weights takes: cold, nothing being compiled, and warm, with what a process
//! before it compiled. Each is measured in processes of its own, the benchmark's executable again, by the wall clock; the
//! NVIDIA driver's own cache of shaders is off in all of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use freeguide::Result;
use freeguide::diffusion::{ContinuousSchedule, Guidance};
use freeguide::gpu::{DeviceChoice, Gpu};
use freeguide::sample::{Request, Sampler};
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::networks::{self, Case};
use crate::row::{self, Row, Work};

/// The file of compiled kernels; that it is set makes a process a measured one.
const FILE: &str = "FREEGUIDE_BENCH_START";
/// When the process was started, in seconds since 1970.
const BEGUN: &str = "FREEGUIDE_BENCH_START_AT";

/// Processes of each kind.
const TIMES: usize = 2;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}

/// Whether this process is one of those that are measured, having done its work.
pub fn was_child() -> bool {
    let Some(file) = std::env::var_os(FILE) else { return false };
    let begun: f64 = std::env::var(BEGUN).expect("set with the file").parse().expect("a number of seconds");
    let weights = first_picture(Path::new(&file)).expect("the first picture is made");
    println!("{}", weights.0 - begun - weights.1);
    true
}

/// When the picture was there, and how long the weights took.
fn first_picture(file: &Path) -> Result<(f64, f64)> {
    let gpu = Gpu::new_blocking(&DeviceChoice::Auto)?;
    let compiled = std::fs::read(file).ok();
    // Sound: this function wrote the file.
    unsafe { gpu.use_compiled_pipelines(compiled.as_deref()) }?;
    let (case, dtype) = case(&gpu);
    let options = case.options(dtype)?;
    let making = Instant::now();
    let (unet, arena) = networks::network(&gpu, &options)?;
    gpu.wait()?;
    let making = making.elapsed().as_secs_f64();
    let schedule = ContinuousSchedule::new(options.log_snr_min, options.log_snr_max)?;
    let weights = arena.weights(unet.parameters(), 0);
    let sampler = Sampler::new(&gpu, &unet, &weights, &schedule, networks::guided(1, dtype))?;
    let request = Request::new(Some(1), 1);
    sampler.sample(&[request], Guidance::from_weight(1.0)?, || Ok(()))?;
    let there = now().as_secs_f64();
    if let (None, Some(bytes)) = (compiled, gpu.compiled_pipelines()) {
        std::fs::write(file, bytes).expect("the compiled kernels can be written");
    }
    Ok((there, making))
}

fn case(gpu: &Gpu) -> (&'static Case, DType) {
    let capabilities = gpu.capabilities();
    let software = capabilities.kind == freeguide::wgpu::DeviceType::Cpu;
    let half = capabilities.f16 && !software;
    (networks::largest(software), if half { DType::F16 } else { DType::F32 })
}

pub fn run(bench: &mut Bench) {
    if !bench.wants("start") {
        return;
    }
    let (case, dtype) = case(&bench.gpu);
    let shape = format!("{} 1 image {}", case.name, row::dtype(dtype));
    let folder = std::env::temp_dir().join(format!("freeguide-start-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for compiled kernels");
    let file = |i: usize| folder.join(format!("{i}.bin"));
    // The first of each file finds none.
    for (name, first) in [("cold", true), ("warm", false)] {
        let measured = (0..TIMES).filter_map(|i| child(&file(if first { i } else { 0 })));
        let mut seconds: Vec<f64> = measured.collect();
        seconds.sort_by(f64::total_cmp);
        println!("start/{name}/{shape}: {seconds:.3?} s");
        if !first && !file(0).exists() {
            break; // the driver does not give out what it compiled
        }
        if let Some(&seconds) = seconds.get(seconds.len() / 2) {
            let (bench_name, rung) = (format!("start/{name}"), "-".to_owned());
            let work = Work::Images(1);
            bench.keep(Row { bench: bench_name, shape: shape.clone(), dtype, rung, seconds, work });
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// Seconds that a process of its own took.
fn child(file: &Path) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let mut command = Command::new(program);
    command.env(FILE, file).env(BEGUN, now().as_secs_f64().to_string()).env("__GL_SHADER_DISK_CACHE", "0");
    let output = command.output().ok()?;
    if !output.status.success() {
        println!("start is left out: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
