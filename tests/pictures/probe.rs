//! Which bits the arithmetic of an adapter and of the host has, told by a kernel of the test's own: one of the library's
//! would hide its own change.

use std::hint::black_box;

use freeguide::gpu::Gpu;
use freeguide::wgpu;

use super::record::Hash;

/// Functions that implementations round in their own ways, and sums that they may contract.
const KERNEL: &str = "
@group(0) @binding(0) var<storage, read_write> found: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = f32(id.x) * 0.37 - 11.03;
    let y = abs(x) + 0.013;
    let at = id.x * 12u;
    found[at] = exp(x * 0.7);
    found[at + 1u] = sin(x);
    found[at + 2u] = cos(x * 173.0);
    found[at + 3u] = fma(x, y, -0.1);
    found[at + 4u] = x * y + 0.3 * x;
    found[at + 5u] = 1.0 / y;
    found[at + 6u] = sqrt(y);
    found[at + 7u] = inverseSqrt(y);
    found[at + 8u] = tanh(x * 0.3);
    found[at + 9u] = log(y);
    found[at + 10u] = pow(y, 1.7);
    found[at + 11u] = dot(vec4<f32>(x, y, x * y, 1.1), vec4<f32>(y, 0.7, x, x));
}
";

const FOUND: u64 = 64 * 12 * 4;

/// A hash of the adapter's name, its driver, what the kernel returns, and what the host's own functions do: levels and
/// factors of steps are computed with them.
pub fn fingerprint(gpu: &Gpu) -> u64 {
    let info = gpu.device().adapter_info();
    let mut hash = Hash::new();
    for text in [&info.name, &info.driver, &info.driver_info, &format!("{:?}", info.backend)] {
        hash.bytes(text.as_bytes());
        hash.bytes(&[0]);
    }
    hash.bytes(&run(gpu));
    for i in 0..64 {
        let x = black_box(f64::from(i) * 0.37 + 0.013);
        let found = [
            x.exp(),
            x.ln(),
            x.sin(),
            x.cos(),
            x.tan(),
            x.atan(),
            x.tanh(),
            x.powf(1.7),
            x.exp_m1(),
            x.ln_1p(),
        ];
        found.iter().for_each(|value| hash.bytes(&value.to_bits().to_le_bytes()));
    }
    hash.finish()
}

fn run(gpu: &Gpu) -> Vec<u8> {
    let device = gpu.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("probe"),
        source: wgpu::ShaderSource::Wgsl(KERNEL.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("probe"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let found = gpu.buffer("probe", FOUND).unwrap();
    let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("probe"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: found.raw().as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    gpu.queue().submit([encoder.finish()]);
    gpu.read(&found, 0..FOUND).unwrap()
}
