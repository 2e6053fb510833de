//! One error type for the whole library: what was expected, what came, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// What can go wrong through a user's input, a file, or a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given tensors whose shapes do not fit.
    #[error("{op}: {what}")]
    Shape {
        /// The operation, as in `conv2d`.
        op: &'static str,
        /// What was expected and what came, with the numbers.
        what: String,
    },

    /// An option, a configuration or a request has a value that makes no sense.
    #[error("{}", short_words(_0))]
    Config(String),

    /// Reading or writing a file failed.
    #[error("{path}: {source}", path = shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A file is there, but not what it should be.
    #[error("{path}: {what}", path = shown(path), what = short_words(what))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong in it and what would be right.
        what: String,
    },

    /// A tensor of a checkpoint is missing, unknown, or of another shape.
    #[error("{path}: tensor `{tensor}` {what}", path = shown(path), tensor = brief(tensor), what = short_words(what))]
    Tensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it, with both shapes where they differ.
        what: String,
    },

    /// No adapter answers to the request.
    #[error("{}", short_words(_0))]
    NoAdapter(String),

    /// A tensor or a dispatch exceeds what the device allows.
    #[error("{}", beyond_limit(what, limit, *needed, *allowed))]
    Limit {
        /// The tensor or the dispatch.
        what: String,
        /// The limit, by wgpu's name.
        limit: &'static str,
        /// What it would take.
        needed: u64,
        /// What the device has.
        allowed: u64,
    },

    /// This machine's own memory has no room for something.
    #[error(
        "{what} would take {needed} of memory, but {available} are free on this machine; {way_out}",
        needed = in_words(*needed),
        available = in_words(*available)
    )]
    NoRoom {
        /// What was to be made.
        what: String,
        /// The bytes it would take.
        needed: u64,
        /// The bytes that are free.
        available: u64,
        /// What would take less.
        way_out: String,
    },

    /// The device has no room for a buffer.
    #[error(
        "out of GPU memory: {what} ({bytes}); try a smaller batch, --microbatch or --two-pass",
        bytes = in_words(*bytes)
    )]
    OutOfMemory {
        /// What was to be made.
        what: String,
        /// How large it was.
        bytes: u64,
    },

    /// The device was lost, or refused work. What had been saved is safe.
    #[error("the GPU device failed: {0}; what was saved is safe, run the same command again to go on")]
    Device(String),

    /// The user asked to stop. State has been saved.
    #[error("interrupted")]
    Interrupted,
}

/// A result with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Shape`] of `op`.
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        Error::Shape { op, what: what.into() }
    }

    /// An [`Error::Io`] at `path`; made for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::Format`] of the file at `path`.
    pub fn format(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_owned(), what: what.into() }
    }

    /// An [`Error::Tensor`] of the checkpoint at `path`.
    pub fn tensor(path: impl AsRef<Path>, tensor: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Tensor { path: path.as_ref().to_owned(), tensor: tensor.into(), what: what.into() }
    }
}

/// 1536 as `1.5 KiB`.
fn in_words(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / 1024f64.powi(power as i32);
    let digits = if value < 10.0 && value.fract() > 0.005 { 1 } else { 0 };
    format!("{value:.digits$} {}", UNITS[power - 1])
}

/// A limit of the device in words, with the way out.
fn beyond_limit(what: &str, limit: &str, needed: u64, allowed: u64) -> String {
    let smaller = "smaller pictures, a smaller batch or microbatch, or fewer channels";
    if limit.contains("workgroups") {
        return format!(
            "{what} would be launched in {needed} workgroups along one side, but this device allows {allowed} ({limit}); \
             {smaller} make do with fewer, and another device may allow more"
        );
    }
    if !limit.contains("size") {
        return format!(
            "{what} needs {needed}, but {limit} of this device is {allowed}; another device may allow more"
        );
    }
    let words = [needed, allowed].map(in_words);
    let [takes, most] = match words[0] == words[1] {
        true => [needed, allowed].map(|bytes| format!("{bytes} bytes")),
        false => words,
    };
    if what.starts_with("the weights ") {
        return format!(
            "{what} would take {takes}, but this device gives a layer's weights at most {most} ({limit}); fewer channels or \
             levels take less, and another device may allow more"
        );
    }
    format!(
        "{what} would take {takes}, but this device lets a kernel have at most {most} at once ({limit}); {smaller} take less, \
         and another device may allow more"
    )
}

/// `text` with what steers a terminal, or hides in one, written out as in `\u001b`: control characters other than line ends
/// and tabs, and those that turn the direction of writing. JSON stays the same JSON.
pub fn visible(text: &str) -> Cow<'_, str> {
    let hides = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let written = |c: char| if hides(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// A name that others gave, for a place within a line: as [`visible`], line ends and tabs too.
pub fn one_line(text: &str) -> String {
    visible(text).replace('\n', "\\u000a").replace('\t', "\\u0009")
}

/// Characters of what was given that a message quotes in full.
const QUOTED: usize = 120;
/// Of a longer text its first and its last characters.
const ENDS: [usize; 2] = [80, 30];
/// The longest word of a message: paths may be long, and are words.
const LONGEST_WORD: usize = 320;

/// What a user or a file gave, for a place within a message: a long text by its beginning, its end and its length, so that
/// the message can still be read. `{}` shows it on one line, `{:?}` between quotation marks too.
pub fn brief(text: &(impl AsRef<str> + ?Sized)) -> Brief<'_> {
    Brief(text.as_ref())
}

/// A text that is shown in short; made by [`brief`].
#[derive(Clone, Copy)]
pub struct Brief<'a>(&'a str);

impl Brief<'_> {
    /// Whether it is not shown in full.
    pub fn is_cut(&self) -> bool {
        self.ends().is_some()
    }

    /// The beginning, the end and the number of characters of a text that is not shown in full.
    fn ends(&self) -> Option<(&str, &str, usize)> {
        let count = self.0.chars().count();
        let at = |i: usize| self.0.char_indices().nth(i).map_or(self.0.len(), |(at, _)| at);
        (count > QUOTED).then(|| (&self.0[..at(ENDS[0])], &self.0[at(count - ENDS[1])..], count))
    }
}

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            None => f.write_str(&one_line(self.0)),
            Some((first, last, count)) => {
                write!(f, "{}…{} ({count} characters)", one_line(first), one_line(last))
            }
        }
    }
}

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            None => write!(f, "{:?}", self.0),
            Some((first, last, count)) => write!(f, "{:?} ({count} characters)", format!("{first}…{last}")),
        }
    }
}

/// A message that can be read whatever it quotes: what stands between quotation marks is cut, as libraries quote all they
/// were given, and so are words, as lists without a space and paths.
fn short_words(message: &str) -> Cow<'_, str> {
    if message.len() <= LONGEST_WORD {
        return Cow::Borrowed(message);
    }
    let short =
        |text: &str| if text.len() > LONGEST_WORD { brief(text).to_string() } else { text.to_owned() };
    let word = |word: &str| {
        let bare = word.trim_end();
        short(bare) + &word[bare.len()..]
    };
    let (mut told, mut quoted) = (String::with_capacity(message.len()), false);
    for part in message.split_inclusive(['`', '"']) {
        let bare = part.trim_end_matches(['`', '"']);
        told +=
            &if quoted { short(bare) } else { bare.split_inclusive(char::is_whitespace).map(word).collect() };
        told += &part[bare.len()..];
        quoted = !quoted;
    }
    Cow::Owned(told)
}

/// A path, for a place within a line.
pub fn shown(path: &Path) -> String {
    let name = path.to_string_lossy();
    if name.len() > LONGEST_WORD { brief(&name).to_string() } else { one_line(&name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_quoted_is_cut_to_its_ends_and_its_length() {
        let fits = "née ".repeat(30);
        assert_eq!(
            (brief(&fits).to_string(), format!("{:?}", brief(&fits))),
            (fits.clone(), format!("{fits:?}"))
        );
        for part in ["x", "é", "word and ", "a\n\u{1b}"] {
            let long = part.repeat(8000 / part.len());
            let count = format!(" ({} characters)", long.chars().count());
            for told in [brief(&long).to_string(), format!("{:?}", brief(&long))] {
                assert!(
                    told.contains('…') && told.ends_with(&count) && !told.contains(['\n', '\u{1b}']),
                    "{told}"
                );
                assert!(told.contains(&one_line(part)) || told.contains("\\n"), "{told}");
            }
        }
        assert!(brief(&"x".repeat(8000)).to_string().chars().count() < 140);
    }

    #[test]
    fn no_message_has_a_word_that_fills_the_screen() {
        let long = "é".repeat(5000);
        for error in [
            Error::Config(format!("`{long}` is no sampler; there are two")),
            Error::format(&long, format!("says {long}\nand that is all; there are two")),
            Error::tensor("a", &long, "is missing; there are two"),
            Error::io(&long)(std::io::Error::other("there are two")),
            Error::Config(format!("unknown variant `{}`, there are two (50", "no such thing ".repeat(500))),
        ] {
            let told = error.to_string();
            assert!(told.len() < 1000 && told.contains("(50") && told.contains("there are two"), "{told}");
        }
        let path = format!("/{}", "folder/".repeat(40));
        assert!(
            Error::Config(format!("{path} exists\n already")).to_string()
                == format!("{path} exists\n already")
        );
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert!(matches!(visible("née σ = 0.5\n\tnext"), Cow::Borrowed(_)));
        assert_eq!(visible("a\u{1b}[31m\r\u{9b}\u{202e}b\n"), "a\\u001b[31m\\u000d\\u009b\\u202eb\n");
        let error = Error::format("a\nb\u{7}.png", "is none");
        assert_eq!(error.to_string(), "a\\u000ab\\u0007.png: is none");
        let json = serde_json::json!({ "name": "\u{7f}\u{85}\n" });
        let told = visible(&json.to_string()).into_owned();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&told).unwrap(), json);
    }

    proptest! {
        #[test]
        fn bytes_in_words_are_within_five_percent(bytes in 0u64..) {
            let text = in_words(bytes);
            let (number, unit) = text.split_once(' ').unwrap();
            let power = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter().position(|u| *u == unit).unwrap();
            let back = number.parse::<f64>().unwrap() * 1024f64.powi(power as i32);
            prop_assert!((back - bytes as f64).abs() <= 0.05 * bytes as f64, "{bytes}: {text}");
        }
    }
}
