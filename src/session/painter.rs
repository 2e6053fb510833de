//! Draws a picture into a texture of the host: a render pass where the texture can be rendered to, a storage write else.

use std::collections::HashMap;

use wgpu::util::DeviceExt;
use wgpu::{TextureFormat, TextureUsages};

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

use super::options::{Render, Show};

const SOURCE: &str = crate::wgsl!("picture");
/// The format in the shader's text.
const WRITTEN: &str = "rgba8unorm";
const LABEL: &str = "session picture";

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    format: TextureFormat,
    linear_light: bool,
    smooth: bool,
    stretch: bool,
}

/// Pipelines by format, compiled at their first use, and what they read.
pub(super) struct Painter {
    gpu: Gpu,
    /// H, W, C.
    shape: [usize; 3],
    params: wgpu::Buffer,
    /// Width and height of the texture that `params` tell of.
    target: [u32; 2],
    picture: Buffer,
    latent: Buffer,
    /// Buffers as the fragment shader reads them: the picture's, then the latent's.
    layout: wgpu::BindGroupLayout,
    groups: [wgpu::BindGroup; 2],
    module: wgpu::ShaderModule,
    draw: HashMap<Key, wgpu::RenderPipeline>,
    store: HashMap<Key, (wgpu::BindGroupLayout, wgpu::ComputePipeline)>,
}

impl Painter {
    pub fn new(gpu: &Gpu, shape: [usize; 3], picture: &Buffer, latent: &Buffer) -> Result<Painter> {
        gpu.scoped(LABEL, PARAMS, || {
            let device = gpu.device();
            let target = [shape[1] as u32, shape[0] as u32];
            let params = params(device, shape, target);
            let layout = layout(device, wgpu::ShaderStages::FRAGMENT, None);
            let groups = [picture, latent].map(|buffer| group(device, &layout, buffer, &params));
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(LABEL),
                source: wgpu::ShaderSource::Wgsl(SOURCE.into()),
            });
            let (draw, store) = Default::default();
            let (gpu, picture, latent) = (gpu.clone(), picture.clone(), latent.clone());
            Ok(Painter { gpu, shape, params, target, picture, latent, layout, groups, module, draw, store })
        })
    }

    /// Tells the shader of a target of another size, as a window's is when it was dragged. What was recorded keeps what it was
    /// told.
    fn fit(&mut self, target: [u32; 2]) -> Result<()> {
        if self.target != target {
            let (gpu, buffers) = (&self.gpu, [&self.picture, &self.latent]);
            (self.params, self.groups) = gpu.scoped(LABEL, PARAMS, || {
                let params = params(gpu.device(), self.shape, target);
                let groups = buffers.map(|buffer| group(gpu.device(), &self.layout, buffer, &params));
                Ok((params, groups))
            })?;
            self.target = target;
        }
        Ok(())
    }

    pub fn paint(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        view: &wgpu::TextureView,
        render: &Render,
    ) -> Result<()> {
        let texture = view.texture();
        let format = render.format.unwrap_or(texture.format());
        if texture.dimension() != wgpu::TextureDimension::D2 || texture.sample_count() != 1 {
            return Err(Error::Config("a picture is drawn into a 2D texture of one sample a pixel".into()));
        }
        let linear_light = render.linear_light.unwrap_or(format.is_srgb() || is_float(format));
        let key = Key { format, linear_light, smooth: render.smooth, stretch: render.stretch };
        // A view of a smaller level has the proportions of the whole.
        self.fit([texture.width(), texture.height()])?;
        let usage = texture.usage();
        if usage.contains(TextureUsages::RENDER_ATTACHMENT) {
            self.draw(encoder, view, key, render.show)
        } else if usage.contains(TextureUsages::STORAGE_BINDING) {
            self.store(encoder, view, key, render.show)
        } else {
            Err(Error::Config(format!(
                "the texture has the usages {usage:?}; drawing needs RENDER_ATTACHMENT or STORAGE_BINDING"
            )))
        }
    }

    fn draw(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        view: &wgpu::TextureView,
        key: Key,
        show: Show,
    ) -> Result<()> {
        if !self.draw.contains_key(&key) {
            let made = self.draw_pipeline(key)?;
            self.draw.insert(key, made);
        }
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some(LABEL),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.draw[&key]);
        pass.set_bind_group(0, &self.groups[usize::from(show == Show::Latent)], &[]);
        pass.draw(0..3, 0..1);
        Ok(())
    }

    fn draw_pipeline(&self, key: Key) -> Result<wgpu::RenderPipeline> {
        let device = self.gpu.device();
        let sample = key.format.sample_type(None, Some(device.features()));
        if !matches!(sample, Some(wgpu::TextureSampleType::Float { .. })) {
            return Err(no_colours(key.format));
        }
        self.gpu.scoped(LABEL, 0, || {
            let layout = pipeline_layout(device, &self.layout);
            let constants = key.constants();
            let compilation_options =
                wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() };
            Ok(device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(LABEL),
                layout: Some(&layout),
                vertex: wgpu::VertexState {
                    module: &self.module,
                    entry_point: Some("corners"),
                    compilation_options: Default::default(),
                    buffers: &[],
                },
                fragment: Some(wgpu::FragmentState {
                    module: &self.module,
                    entry_point: Some("draw"),
                    compilation_options,
                    targets: &[Some(key.format.into())],
                }),
                primitive: Default::default(),
                depth_stencil: None,
                multisample: Default::default(),
                multiview_mask: None,
                cache: None,
            }))
        })
    }

    fn store(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        view: &wgpu::TextureView,
        key: Key,
        show: Show,
    ) -> Result<()> {
        if !self.store.contains_key(&key) {
            let made = self.store_pipeline(key)?;
            self.store.insert(key, made);
        }
        let (layout, pipeline) = &self.store[&key];
        let buffer = if show == Show::Latent { &self.latent } else { &self.picture };
        let target = wgpu::BindGroupEntry { binding: 2, resource: wgpu::BindingResource::TextureView(view) };
        let group = self.gpu.scoped(LABEL, 0, || {
            Ok(self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(LABEL),
                layout,
                entries: &[entry(0, buffer.raw()), entry(1, &self.params), target],
            }))
        })?;
        let descriptor = wgpu::ComputePassDescriptor { label: Some(LABEL), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        // The view may show a smaller level; the shader asks for its size.
        let size = view.texture().size();
        pass.dispatch_workgroups(size.width.div_ceil(8), size.height.div_ceil(8), 1);
        Ok(())
    }

    fn store_pipeline(&self, key: Key) -> Result<(wgpu::BindGroupLayout, wgpu::ComputePipeline)> {
        let name = storage_name(key.format).ok_or_else(|| no_colours(key.format))?;
        let device = self.gpu.device();
        self.gpu.scoped(LABEL, 0, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(LABEL),
                source: wgpu::ShaderSource::Wgsl(SOURCE.replace(WRITTEN, name).into()),
            });
            let layout = layout(device, wgpu::ShaderStages::COMPUTE, Some(key.format));
            let constants = key.constants();
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(LABEL),
                layout: Some(&pipeline_layout(device, &layout)),
                module: &module,
                entry_point: Some("store"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    ..Default::default()
                },
                cache: None,
            });
            Ok((layout, pipeline))
        })
    }
}

impl Key {
    fn constants(&self) -> [(&'static str, f64); 3] {
        [
            ("linear_light", f64::from(u8::from(self.linear_light))),
            ("smooth_pixels", f64::from(u8::from(self.smooth))),
            ("stretch", f64::from(u8::from(self.stretch))),
        ]
    }
}

fn no_colours(format: TextureFormat) -> Error {
    Error::Config(format!(
        "a picture cannot be drawn into a texture of format {format:?}: it takes colours as floats"
    ))
}

fn is_float(format: TextureFormat) -> bool {
    use TextureFormat::{R16Float, R32Float, Rg11b10Ufloat, Rg16Float, Rg32Float, Rgba16Float, Rgba32Float};
    matches!(format, R16Float | R32Float | Rg16Float | Rg32Float | Rgba16Float | Rgba32Float | Rg11b10Ufloat)
}

/// What WGSL calls a format that can be stored to as floats.
fn storage_name(format: TextureFormat) -> Option<&'static str> {
    use TextureFormat as F;
    Some(match format {
        F::Rgba8Unorm => "rgba8unorm",
        F::Rgba8Snorm => "rgba8snorm",
        F::Bgra8Unorm => "bgra8unorm",
        F::Rgba16Float => "rgba16float",
        F::Rgba32Float => "rgba32float",
        F::Rgba16Unorm => "rgba16unorm",
        F::Rgba16Snorm => "rgba16snorm",
        F::Rgb10a2Unorm => "rgb10a2unorm",
        F::Rg11b10Ufloat => "rg11b10float",
        F::R32Float => "r32float",
        F::Rg32Float => "rg32float",
        F::R8Unorm => "r8unorm",
        F::Rg8Unorm => "rg8unorm",
        F::R16Float => "r16float",
        F::Rg16Float => "rg16float",
        _ => return None,
    })
}

/// Bytes of what the shader is told.
const PARAMS: u64 = 32;

/// What the shader is told: H, W and C of the picture, width and height of the target.
fn params(device: &wgpu::Device, [height, width, channels]: [usize; 3], target: [u32; 2]) -> wgpu::Buffer {
    let words = [height as u32, width as u32, channels as u32, target[0], target[1], 0, 0, 0];
    device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some(LABEL),
        contents: bytemuck::bytes_of(&words),
        usage: wgpu::BufferUsages::UNIFORM,
    })
}

fn group(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    buffer: &Buffer,
    params: &wgpu::Buffer,
) -> wgpu::BindGroup {
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(LABEL),
        layout,
        entries: &[entry(0, buffer.raw()), entry(1, params)],
    })
}

fn entry(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }
}

fn layout(
    device: &wgpu::Device,
    visibility: wgpu::ShaderStages,
    stored: Option<TextureFormat>,
) -> wgpu::BindGroupLayout {
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry { binding, visibility, ty, count: None };
    let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
    let mut entries = vec![
        entry(0, buffer(wgpu::BufferBindingType::Storage { read_only: true })),
        entry(1, buffer(wgpu::BufferBindingType::Uniform)),
    ];
    entries.extend(stored.map(|format| {
        let (access, view_dimension) =
            (wgpu::StorageTextureAccess::WriteOnly, wgpu::TextureViewDimension::D2);
        entry(2, wgpu::BindingType::StorageTexture { access, format, view_dimension })
    }));
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(LABEL), entries: &entries })
}

fn pipeline_layout(device: &wgpu::Device, layout: &wgpu::BindGroupLayout) -> wgpu::PipelineLayout {
    device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(LABEL),
        bind_group_layouts: &[Some(layout)],
        ..Default::default()
    })
}
