//! Kernels of a caller's own combination, made at run time: one that makes eps̃ alone, and those of a step with the combination
//! inside.

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

/// The line of a step's shader that takes CFG's rule in, which an expression replaces by a rule of its own.
const RULE: &str = "#import rule_cfg";
/// The entry point of the steps' shaders, which an expression's rule would not let name WGSL's function `step`.
const STEP: &str = "step";
/// What it is called instead.
const STEP_BY_RULE: &str = "step_by_rule";

/// Kernels by name, shader, entry point and expression.
type Kernels = HashMap<(&'static str, usize, &'static str, String), &'static Kernel>;

static KERNELS: Mutex<Option<Kernels>> = Mutex::new(None);

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

/// A shader's text with the expression in its place.
fn written(template: &str, text: &str) -> String {
    template.replace(PLACE, &format!("return f32({text});"))
}

/// The shader of an expression.
fn shader(text: &str) -> String {
    written(wgsl!("guider_expression"), text)
}

/// The shader of a step with an expression for its rule.
fn step_shader(step: &str, text: &str) -> String {
    let renamed = step.replace(&format!("fn {STEP}("), &format!("fn {STEP_BY_RULE}("));
    renamed.replace(RULE, &written(wgsl!("rule_expression"), text))
}

/// Whether an expression computes with floats and nothing else: no index may leave its array, no whole number be divided by 0.
fn is_of_floats(text: &str) -> bool {
    !["[", "i32", "u32"].iter().any(|word| text.contains(word))
}

/// The kernel of an expression; each text is compiled once and kept for the life of the program.
pub(super) fn kernel(text: &str) -> Result<&'static Kernel> {
    const ACCESS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const COMBINATION: Kernel = Kernel::new("guider_expression", wgsl!("guider_expression"), "main", ACCESS);
    kept(&COMBINATION, text, |kernel| Kernel { source: leaked(shader(text)), ..kernel })
}

/// The kernel of a step, `base`, with an expression in the place of CFG's rule; kept as those are.
///
/// # Errors
/// As [`check_expression`].
pub(in crate::ops) fn with_rule(base: &'static Kernel, text: &str) -> Result<&'static Kernel> {
    kept(base, text, |kernel| Kernel {
        name: leaked(format!("{}_expression", kernel.name)),
        source: leaked(step_shader(kernel.source, text)),
        entry: if kernel.entry == STEP { STEP_BY_RULE } else { kernel.entry },
        // The shader's promise holds of all but what the caller writes.
        trusted: kernel.trusted && is_of_floats(text),
        ..kernel
    })
}

/// Kernels are static everywhere else; an expression is a line of text, so keeping it costs nothing.
fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What `make` made of a kernel for an expression, once.
fn kept(base: &'static Kernel, text: &str, make: impl FnOnce(Kernel) -> Kernel) -> Result<&'static Kernel> {
    let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let kernels = kernels.get_or_insert_default();
    let key = (base.name, base.source.as_ptr() as usize, base.entry, text.to_owned());
    if let Some(known) = kernels.get(&key) {
        return Ok(known);
    }
    check_expression(text)?;
    let Kernel { name, source, entry, access, trusted } = *base;
    let kernel: &'static Kernel = Box::leak(Box::new(make(Kernel { name, source, entry, access, trusted })));
    kernels.insert(key, kernel);
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

    /// What a step's shader has of its own must not stand in an expression's way, nor in its reach.
    #[test]
    fn a_step_takes_any_good_expression_for_its_rule() {
        for shader in [wgsl!("guided_step"), wgsl!("guided_step_packed"), wgsl!("sampler_step")] {
            assert!(shader.lines().any(|line| line == RULE) && shader.contains("fn step("));
            for text in
                ["eps_c", "mix(eps_u, eps_c, step(0.5, progress) * w) + z * clamp(alpha, sigma, log_snr)"]
            {
                check_expression(text).unwrap();
                validate(&source::join(&step_shader(shader, text), Dialect::default())).unwrap();
            }
        }
        for own in ["z[0]", "counter[0]", "strength[0].x", "rule_expression(eps_c)"] {
            check_expression(own).unwrap_err();
        }
        assert!(is_of_floats("select(eps_c, eps_u, w < 1.0)"));
        assert!(!is_of_floats("array(eps_c, eps_u)[i32(w)]") && !is_of_floats("f32(1u / u32(w))"));
    }
}
