//! Standard output and standard error. `println!`, `print!` and `eprintln!` mean these in all of `cli/`: they never panic, and
//! write out control characters of names.
//!
//! What cannot be written to standard output is remembered and ends the program with an error once the command is done, so
//! that no work is lost for it; a closed one ends it quietly. Of standard error nobody can be told.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::Mutex;

use crate::error::{brief, visible};

macro_rules! println {
    () => { $crate::cli::terminal::out(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::cli::terminal::out(format_args!("{}\n", format_args!($($arg)*))) };
}

macro_rules! print {
    ($($arg:tt)*) => { $crate::cli::terminal::out(format_args!($($arg)*)) };
}

macro_rules! eprintln {
    () => { $crate::cli::terminal::err(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::cli::terminal::err(format_args!("{}\n", format_args!($($arg)*))) };
}

/// The exit code of a program whose reader has gone, as shells count it: 128 and SIGPIPE's number.
const CLOSED: u8 = 141;

/// Why standard output takes no more.
static FAILURE: Mutex<Option<ErrorKind>> = Mutex::new(None);

/// Writes to standard output, unless that has failed before.
pub fn out(text: Arguments<'_>) {
    if !is_open() {
        return;
    }
    let text = text.to_string();
    let mut stream = io::stdout().lock();
    // Flushed, as what a buffer holds at the end is written without a word of failure.
    if let Err(error) = stream.write_all(visible(&text).as_bytes()).and_then(|()| stream.flush()) {
        failed(&error);
    }
}

/// Writes to standard error.
pub fn err(text: Arguments<'_>) {
    let text = text.to_string();
    let _ = io::stderr().lock().write_all(visible(&text).as_bytes());
}

/// Whether standard output has taken all that was said.
pub fn is_open() -> bool {
    FAILURE.lock().is_ok_and(|failure| failure.is_none())
}

fn failed(error: &io::Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        eprintln!("error: standard output: {error}");
    }
    if let Ok(mut failure) = FAILURE.lock() {
        failure.get_or_insert(error.kind());
    }
}

/// The exit code of a command that has done its work.
pub fn exit_code() -> u8 {
    match FAILURE.lock().ok().and_then(|failure| *failure) {
        None => 0,
        Some(ErrorKind::BrokenPipe) => CLOSED,
        Some(_) => 1,
    }
}

/// What clap quotes of the command line, in short: 10,000 characters between a message and its usage help nobody.
fn shortened(mut told: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let short = |text: String| if brief(&text).is_cut() { brief(&text).to_string() } else { text };
    let given: Vec<(ContextKind, ContextValue)> = told
        .context()
        .filter(|(kind, _)| *kind != ContextKind::Usage)
        .map(|(kind, value)| (kind, value.clone()))
        .collect();
    for (kind, value) in given {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(short(text)),
            ContextValue::Strings(texts) => ContextValue::Strings(texts.into_iter().map(short).collect()),
            // Advice that repeats it all is none.
            ContextValue::StyledStrs(mut texts) => {
                texts.retain(|text| text.to_string().len() < LONGEST_ADVICE);
                ContextValue::StyledStrs(texts)
            }
            _ => continue,
        };
        told.insert(kind, value);
    }
    told
}

/// In bytes.
const LONGEST_ADVICE: usize = 500;

/// Tells of wrong arguments, or what `--help` and `--version` ask for, and gives the exit code.
pub fn usage(told: clap::Error) -> u8 {
    let told = &shortened(told);
    let code = told.exit_code().try_into().unwrap_or(2);
    let styled = if told.use_stderr() { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let plain = told.render().to_string();
    // In colours where a person looks on, unless an argument would steer the terminal.
    let printed = match (styled && visible(&plain) == plain, told.use_stderr()) {
        (true, _) => told.print(),
        (false, true) => {
            err(format_args!("{plain}"));
            Ok(())
        }
        (false, false) => {
            out(format_args!("{plain}"));
            Ok(())
        }
    };
    if let (Err(error), false) = (printed, told.use_stderr()) {
        failed(&error);
    }
    if told.use_stderr() { code } else { exit_code() }
}
