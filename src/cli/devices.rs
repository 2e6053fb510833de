//! `freeguide devices`.

use serde_json::json;

use crate::error::Result;
use crate::gpu::{AdapterReport, Rung, adapters};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide devices
  freeguide sample --model out/digits --device 0";

/// List the adapters of this machine, what they can do, and which kernels would run on each.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let found = pollster::block_on(adapters());
    if args.json {
        let list: Vec<_> = found.iter().enumerate().map(|(i, report)| as_json(i, report)).collect();
        println!("{}", serde_json::to_string_pretty(&list).expect("plain values"));
        return Ok(());
    }
    if found.is_empty() {
        // The same words as when a command needs a device.
        crate::gpu::Gpu::new_blocking(&Default::default())?;
    }
    for (i, report) in found.iter().enumerate() {
        let AdapterReport { info, limits, features, rung } = report;
        println!("{i}: {}", info.name);
        println!(
            "   {:?}, {:?}, driver {} {}",
            info.backend, info.device_type, info.driver, info.driver_info
        );
        println!("   kernels: {rung}, storage: {}", if has_f16(*features) { "f32, f16" } else { "f32" });
        println!(
            "   largest buffer {}, binding {}; workgroup memory {} KiB, {} invocations; timestamps: {}",
            bytes(limits.max_buffer_size),
            bytes(limits.max_storage_buffer_binding_size),
            limits.max_compute_workgroup_storage_size / 1024,
            limits.max_compute_invocations_per_workgroup,
            if features.contains(wgpu::Features::TIMESTAMP_QUERY) { "yes" } else { "no" },
        );
        let matrices = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let matrices = match (matrices, rung) {
            (true, Rung::Coop) => "yes",
            (true, _) => "yes, of shapes that no kernel uses",
            (false, _) => "no",
        };
        println!("   cooperative matrices: {matrices}");
    }
    Ok(())
}

fn has_f16(features: wgpu::Features) -> bool {
    features.contains(wgpu::Features::SHADER_F16)
}

fn bytes(count: u64) -> String {
    match count {
        0..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", count >> 20),
        _ => format!("{:.1} GiB", count as f64 / (1u64 << 30) as f64),
    }
}

fn as_json(index: usize, report: &AdapterReport) -> serde_json::Value {
    let AdapterReport { info, limits, features, rung } = report;
    let names: Vec<&str> = features.iter_names().map(|(name, _)| name).collect();
    json!({
        "index": index,
        "name": info.name,
        "backend": format!("{:?}", info.backend),
        "type": format!("{:?}", info.device_type),
        "driver": info.driver,
        "driver_info": info.driver_info,
        "kernels": rung.to_string(),
        "f16": has_f16(*features),
        "features": names,
        "limits": {
            "max_buffer_size": limits.max_buffer_size,
            "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
            "max_storage_buffers_per_shader_stage": limits.max_storage_buffers_per_shader_stage,
            "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
            "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
            "max_compute_workgroups_per_dimension": limits.max_compute_workgroups_per_dimension,
        },
    })
}
