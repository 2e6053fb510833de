//! Kernels of a caller's own combination, made at run time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result, brief};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::source::{self, Dialect};
use crate::gpu::{Access, Kernel};
use crate::wgsl;

/// The line that an expression replaces.
const PLACE: &str = "return f32(eps_c); // EXPRESSION";

/// What an expression may name, for messages.
const NAMES: &str = "eps_c, eps_u, z, w, alpha, sigma, log_snr, progress (all f32) and WGSL's own functions";

static KERNELS: Mutex<Option<HashMap<String, &'static Kernel>>> = Mutex::new(None);

/// Checks an expression without a device. In a browser, whose own compiler alone reads WGSL, only that it is an expression
/// and nothing more; what else is wrong with it shows as an error of the device.
///
/// # Errors
/// [`Error::Config`] saying what is wrong with it and where.
pub fn check_expression(text: &str) -> Result<()> {
    let error = |what: String| {
        Error::Config(format!(
            "the expression {text:?} is not one number of WGSL: {what}; it may use {NAMES}",
            text = brief(text)
        ))
    };
    // It stands between brackets, where these would end it.
    if text.contains([';', '{', '}', '@', '#']) || text.contains("//") || text.contains("/*") {
        return Err(error("it must be an expression without statements and comments".into()));
    }
    let mut depth = 0;
    for c in text.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth < 0 {
            break;
        }
    }
    if depth != 0 {
        return Err(error("its brackets do not match".into()));
    }
    #[cfg(not(target_arch = "wasm32"))]
    validate(&source::join(&shader(text), Dialect::default())).map_err(error)?;
    Ok(())
}

/// What is wrong with a whole shader, on one line.
#[cfg(not(target_arch = "wasm32"))]
fn validate(whole: &str) -> std::result::Result<(), String> {
    use wgpu::naga::front::wgsl;
    use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let module = wgsl::parse_str(whole).map_err(|wrong| {
        let detail = wrong.labels().next().map_or_else(String::new, |(span, label)| {
            let named = span.to_range().and_then(|range| whole.get(range)).unwrap_or_default();
            format!(" (at `{}`: {label})", first_line(named.to_owned()))
        });
        format!("{}{detail}", wrong.message())
    })?;
    let validated = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module);
    validated.map(drop).map_err(|wrong| first_line(wrong.into_inner().to_string()))
}

/// The shader of an expression.
fn shader(text: &str) -> String {
    wgsl!("guider_expression").replace(PLACE, &format!("return f32({text});"))
}

/// The kernel of an expression; each text is compiled once and kept for the life of the program.
pub(super) fn kernel(text: &str) -> Result<&'static Kernel> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let kernels = kernels.get_or_insert_default();
    if let Some(known) = kernels.get(text) {
        return Ok(known);
    }
    check_expression(text)?;
    // Kernels are static everywhere else; an expression is a line of text, so keeping it costs nothing.
    let source: &'static str = Box::leak(shader(text).into_boxed_str());
    const ACCESS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    let kernel: &'static Kernel =
        Box::leak(Box::new(Kernel::new("guider_expression", source, "main", ACCESS)));
    kernels.insert(text.to_owned(), kernel);
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_checked_with_readable_errors() {
        for good in
            ["eps_c", "mix(eps_u, eps_c, 1.0 + w)", "eps_c + tanh(z / sigma) * progress - alpha * log_snr"]
        {
            check_expression(good).unwrap();
        }
        for (bad, part) in [
            ("eps_x + 1.0", "eps_x"),
            ("eps_c +", "eps_c +"),
            ("eps_c; discard", "without statements"),
            ("eps_c) + (eps_u", "brackets"),
            ("vec2(eps_c, eps_u)", "vec2"),
            ("eps_c + true", "true"),
            ("guider_eps", "guider_eps"),
        ] {
            let error = check_expression(bad).expect_err(bad).to_string();
            assert!(error.contains(part) && error.contains("eps_c, eps_u, z"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_kernel_is_made_once() {
        assert!(wgsl!("guider_expression").contains(PLACE));
        assert!(std::ptr::eq(kernel("eps_c * 2.0").unwrap(), kernel("eps_c * 2.0").unwrap()));
        assert!(!std::ptr::eq(kernel("eps_c * 2.0").unwrap(), kernel("eps_c * 3.0").unwrap()));
    }
}
