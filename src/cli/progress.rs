//! How far a command is: a bar with the time left on a terminal, a line every half minute anywhere else.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// The first line where there is no terminal: by then the time left can be told.
const FIRST: Duration = Duration::from_secs(10);
/// Between later ones.
const EVERY: Duration = Duration::from_secs(30);
/// Less than this says nothing about the time left.
const MEANINGFUL: Duration = Duration::from_secs(1);

/// What is told of work under way.
pub struct Progress {
    bar: ProgressBar,
    /// What lines tell of, where there is no terminal for the bar.
    lines: Option<(Arc<Mutex<State>>, Lines)>,
}

/// A thread that writes a line now and then, for as long as this is kept.
pub struct Lines {
    // Dropping it ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    what: String,
    unit: String,
    /// Where this run began, where it is, where it ends.
    first: u64,
    done: u64,
    total: u64,
    message: String,
    begun: Instant,
}

/// A bar over `total` of `unit`, starting at `done`; its message stands at the end of the line. On standard error.
pub fn bar(what: &str, unit: &str, done: u64, total: u64) -> Progress {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    let template = format!(
        "{what:<9} {{bar:32}} {{human_pos}}/{{human_len}} {unit}  {{elapsed}} gone, {{left}}  {{msg}}"
    );
    let left = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let text = left(state.pos().saturating_sub(done), total.saturating_sub(state.pos()), state.elapsed());
        // A terminal that takes no text is none that could be told so.
        let _ = out.write_str(&text.unwrap_or_else(|| "…".into()));
    };
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
    bar.set_style(style.with_key("left", left).progress_chars("=> "));
    bar.set_position(done);
    let lines = bar
        .is_hidden()
        .then(|| State::told(what, unit, (done, total), [FIRST, EVERY], |line| eprintln!("{line}")));
    Progress { bar, lines }
}

impl Progress {
    pub fn inc(&self, by: u64) {
        self.bar.inc(by);
        self.change(|state| state.done += by);
    }

    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.change(|state| state.done = done);
    }

    pub fn set_message(&self, message: String) {
        self.change(|state| state.message.clone_from(&message));
        self.bar.set_message(message);
    }

    /// A line beside the bar, which a terminal then draws again.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
        self.change(|state| state.done = state.total);
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        if let Some((state, _)) = &self.lines {
            how(&mut lock(state));
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time left where `did` of the work took `gone` and `to_do` is left; nothing while that would be a guess.
fn left(did: u64, to_do: u64, gone: Duration) -> Option<String> {
    if did == 0 || gone < MEANINGFUL {
        return None;
    }
    let seconds = gone.as_secs_f64() * to_do as f64 / did as f64;
    Some(match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time < Duration::from_secs(1) => "less than a second left".into(),
        Ok(time) => format!("about {} left", HumanDuration(time)),
        Err(_) => "more than a lifetime left".into(),
    })
}

impl Lines {
    /// Says after the first time, and then after each of the second, what `line` gives; nothing where it gives nothing.
    pub fn begin(
        [first, every]: [Duration; 2],
        line: impl Fn() -> Option<String> + Send + 'static,
        say: impl Fn(&str) + Send + 'static,
    ) -> Lines {
        let (end, ended) = channel();
        let work = move || {
            let mut wait = first;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                wait = every;
                if let Some(line) = line() {
                    say(&line);
                }
            }
        };
        // Without a thread nothing is told, and all else goes on.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(work).ok();
        Lines { end: Some(end), thread }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has shown itself already.
            let _ = thread.join();
        }
    }
}

impl State {
    /// Work of which lines tell.
    fn told(
        what: &str,
        unit: &str,
        (done, total): (u64, u64),
        times: [Duration; 2],
        say: impl Fn(&str) + Send + 'static,
    ) -> (Arc<Mutex<State>>, Lines) {
        let state = State {
            what: what.to_owned(),
            unit: unit.to_owned(),
            first: done,
            done,
            total,
            message: String::new(),
            begun: Instant::now(),
        };
        let state = Arc::new(Mutex::new(state));
        let told = state.clone();
        // The lock is not held while a slow pipe is written to.
        let lines = Lines::begin(times, move || lock(&told).line(), say);
        (state, lines)
    }

    /// Nothing once all is done.
    fn line(&self) -> Option<String> {
        let State { what, unit, first, done, total, message, begun } = self;
        if done >= total {
            return None;
        }
        let gone = begun.elapsed();
        let mut line = format!("{what}: {} of {} {unit}", HumanCount(*done), HumanCount(*total));
        line += &format!(", {} gone", HumanDuration(gone));
        if let Some(left) = left(done.saturating_sub(*first), total - done, gone) {
            line += &format!(", {left}");
        }
        if !message.is_empty() {
            line += &format!(", {message}");
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_when_something_is_known_of_it() {
        let second = Duration::from_secs(1);
        assert_eq!(left(0, 100, 100 * second), None, "nothing is done yet");
        assert_eq!(left(5, 100, second / 2), None, "too little time to tell");
        assert_eq!(left(5, 100, 60 * second).unwrap(), "about 20 minutes left");
        assert_eq!(left(100, 1, 50 * second).unwrap(), "less than a second left");
        assert_eq!(left(1, u64::MAX, 1000 * second).unwrap(), "more than a lifetime left");
    }

    #[test]
    fn without_a_terminal_lines_are_written_until_the_end() {
        let (say, said) = channel();
        let soon = Duration::from_millis(20);
        let (state, lines) = State::told("training", "images", (1000, 24_000), [soon; 2], move |line| {
            // The test may have heard enough.
            let _ = say.send(line.to_owned());
        });
        assert!(said.recv().unwrap().starts_with("training: 1,000 of 24,000 images, "));
        lock(&state).done = 12_000;
        lock(&state).message = "loss 0.5".into();
        let later = said.iter().find(|line| line.contains("12,000")).unwrap();
        assert!(later.ends_with(", loss 0.5"), "{later}");
        lock(&state).begun = Instant::now() - Duration::from_secs(180);
        let timed = said.iter().find(|line| line.contains(" left")).unwrap();
        assert!(timed.contains("about ") && timed.contains("3 minutes gone"), "{timed}");
        lock(&state).done = 24_000;
        drop(lines);
        assert!(said.iter().count() < 50, "the thread has ended, or this would not");
    }
}
