//! Finding an adapter: wgpu's own environment variables, a name or an index, and a clear word when there is none.

use crate::error::{Error, Result, brief};

use super::capabilities::{Capabilities, Rung, has_matrices};

/// Which adapter to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `WGPU_ADAPTER_NAME` if it is set, else the fastest kind there is.
    #[default]
    Auto,
    /// By its place in the list that `freeguide devices` prints.
    Index(usize),
    /// By a part of its name, in any case.
    Name(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(index) => DeviceChoice::Index(index),
            Err(_) if text.eq_ignore_ascii_case("auto") => DeviceChoice::Auto,
            Err(_) => DeviceChoice::Name(text.to_owned()),
        })
    }
}

/// What is known of an adapter before a device is made of it.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// wgpu's description: name, backend, driver, kind.
    pub info: wgpu::AdapterInfo,
    /// Everything the adapter offers.
    pub features: wgpu::Features,
    /// The largest values it allows.
    pub limits: wgpu::Limits,
    /// The kernels that would run on it.
    pub rung: Rung,
}

/// `WGPU_BACKEND`, else those that are more than a fallback.
fn backends() -> wgpu::Backends {
    wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY)
}

pub(super) fn instance() -> wgpu::Instance {
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    #[cfg(all(target_os = "linux", feature = "wgpu-default"))]
    if let Some(instance) = without_windows(&descriptor) {
        return instance;
    }
    wgpu::Instance::new(wgpu::InstanceDescriptor { backends: backends(), ..descriptor })
}

/// An instance of Vulkan alone that asks for no window system: nothing of this crate's own shows its pictures in a window.
/// With those extensions a layer of Mesa's looks for a Wayland display and, on a machine without one, says so twice in
/// every program. `None` where other backends are wanted, or there is no Vulkan.
#[cfg(all(target_os = "linux", feature = "wgpu-default"))]
fn without_windows(descriptor: &wgpu::InstanceDescriptor) -> Option<wgpu::Instance> {
    use wgpu::hal::{self, api::Vulkan};
    const WINDOWS: [&std::ffi::CStr; 3] =
        [c"VK_KHR_wayland_surface", c"VK_KHR_xcb_surface", c"VK_KHR_xlib_surface"];
    let elsewhere = wgpu::Backends::METAL | wgpu::Backends::DX12 | wgpu::Backends::BROWSER_WEBGPU;
    if backends() - elsewhere != wgpu::Backends::VULKAN {
        return None;
    }
    let asked = hal::InstanceDescriptor {
        name: "wgpu",
        flags: descriptor.flags,
        memory_budget_thresholds: descriptor.memory_budget_thresholds,
        backend_options: descriptor.backend_options.clone(),
        telemetry: None,
        display: None,
    };
    let fewer = Box::new(|args: hal::vulkan::CreateInstanceCallbackArgs<'_, '_, '_>| {
        args.extensions.retain(|name| !WINDOWS.contains(name));
    });
    // Sound: what is left out is only ever used to make surfaces, which checks that it is there.
    let instance = unsafe { hal::vulkan::Instance::init_with_callback(&asked, Some(fewer)) }.ok()?;
    // Sound: it was made by the same wgpu, just now.
    Some(unsafe { wgpu::Instance::from_hal::<Vulkan>(instance) })
}

/// Real GPUs first, software adapters last; among equals the order of the backends.
fn preference(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

async fn sorted(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut adapters = instance.enumerate_adapters(backends()).await;
    adapters.sort_by_key(|adapter| preference(adapter.get_info().device_type));
    adapters
}

/// Every adapter of this machine, in the order of their indices.
pub async fn adapters() -> Vec<AdapterReport> {
    let report = |adapter: wgpu::Adapter| {
        let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
        let rung = Capabilities::new(&info, features, limits.clone(), has_matrices(&adapter)).rung;
        AdapterReport { info, features, limits, rung }
    };
    sorted(&instance()).await.into_iter().map(report).collect()
}

pub(super) async fn choose(instance: &wgpu::Instance, choice: &DeviceChoice) -> Result<wgpu::Adapter> {
    let mut adapters = sorted(instance).await;
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    if adapters.is_empty() {
        return Err(Error::NoAdapter(
            "no GPU adapter was found; install a Vulkan, Metal or DX12 driver. On Debian or Ubuntu without a GPU: \
             apt-get install -y mesa-vulkan-drivers"
                .into(),
        ));
    }
    let listed = || {
        let lines: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("  {i}: {name}")).collect();
        lines.join("\n")
    };
    let by_name = |wanted: &str| {
        let wanted = wanted.trim().to_lowercase();
        if wanted.is_empty() {
            return Err(Error::NoAdapter(format!(
                "an adapter's name is asked for, and none is given; there are:\n{}",
                listed()
            )));
        }
        names.iter().position(|name| name.to_lowercase().contains(&wanted)).ok_or_else(|| {
            Error::NoAdapter(format!(
                "no adapter's name contains {wanted:?}; there are:\n{}",
                listed(),
                wanted = brief(&wanted)
            ))
        })
    };
    let index = match choice {
        DeviceChoice::Index(index) if *index < adapters.len() => *index,
        DeviceChoice::Index(index) => {
            return Err(Error::NoAdapter(format!("there is no adapter {index}; there are:\n{}", listed())));
        }
        DeviceChoice::Name(name) => by_name(name)?,
        DeviceChoice::Auto => match std::env::var("WGPU_ADAPTER_NAME") {
            Ok(name) if !name.is_empty() => by_name(&name)?,
            _ => 0,
        },
    };
    Ok(adapters.swap_remove(index))
}
