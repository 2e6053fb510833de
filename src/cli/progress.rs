//! Progress bars with the time left.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` of `unit`, starting at `done`; its message stands at the end of the line. Drawn on standard
/// error, and only on a terminal.
pub fn bar(what: &str, unit: &str, done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    let template = format!(
        "{what:<9} {{bar:32}} {{human_pos}}/{{human_len}} {unit}  {{elapsed}} gone, {{eta}} left  {{msg}}"
    );
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
    bar.set_style(style.progress_chars("=> "));
    bar.set_position(done);
    // The time left is measured from here, not from what an earlier run did.
    bar.reset_eta();
    bar
}
