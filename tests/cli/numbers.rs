//! Every number that the command line takes, at its extremes. What is tried comes from the definitions themselves, so a new
//! option is covered by itself.
//!
//! Nearly all of it ends in argument parsing, which is done in this process. Of what an option takes, the least and the
//! largest are run, on a model of a few parameters.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Arg, Command};

use super::*;

/// What is tried on every number, beside powers of two and of ten.
const EXTREMES: [&str; 9] =
    ["0", "1", "-1", "4294967295", "18446744073709551615", "1e30", "NaN", "inf", "-inf"];
/// Work that is not done by then is interrupted. Of the processor's time, where the system tells: other tests run beside.
const PATIENCE: Duration = Duration::from_millis(1500);
/// No run takes longer, interrupted or not.
const LONGEST: Duration = Duration::from_secs(20);
/// Nor waits longer for what never comes.
const STUCK: Duration = Duration::from_secs(180);
/// Nor more memory, in KiB.
const LARGEST: u64 = 3 << 20;

/// The arguments that a command is run with, but for the one option that is tried.
pub(super) fn base(place: &Place) -> BTreeMap<&'static str, Vec<String>> {
    let [model, discrete, set, stats] =
        ["model", "discrete", "set", "stats.npz"].map(|name| place.text(name));
    let tiny = "--channels 4 --norm-groups 4 --channel-mult 1 --res-blocks 1 --attention none --batch 4";
    let lines = [
        ("train", format!("--data digits --out OUT {tiny} --save-every 4 --dry-run")),
        (
            "train-classifier",
            "--data digits --out OUT --channels 8 --channel-mult 1 --attention none --batch 4 --images 4"
                .into(),
        ),
        ("distill", format!("--teacher {model} --out OUT --batch 4 --images 4")),
        ("sample", format!("--model {model} --steps 1 --seeds 0 --class 1 --out OUT/s.png")),
        ("sweep", format!("--model {model} --steps 1 --count 1 --w 0 --out OUT")),
        ("eval", format!("--model {model} --reference {stats} --count 2 --steps 1 --work OUT")),
        ("stats", format!("{set} --out OUT/s.npz --features {}", place.text("stats.classifier.safetensors"))),
        ("nll", format!("--model {discrete} --data digits --images 1 --out OUT/n.json")),
        ("plot", "--out OUT --steps-total 25".into()),
        ("toy", "--samples 10 --network-samples 10 --train-steps 1 --steps 2 --out OUT/t.png".into()),
        ("info", model.clone()),
        ("convert", format!("{model} OUT")),
        ("quickstart", "--out OUT".into()),
        ("devices", String::new()),
        ("demo", String::new()),
    ];
    lines
        .into_iter()
        .map(|(name, line)| (name, line.split_whitespace().map(str::to_owned).collect()))
        .collect()
}

/// An option of a command, as it is tried.
#[derive(Clone)]
struct Tried {
    command: &'static str,
    option: String,
    base: Vec<String>,
}

impl Tried {
    /// The whole line with `value`, which may begin with a minus.
    fn line(&self, value: &str) -> Vec<String> {
        let mut line = vec![self.command.to_owned()];
        line.extend(self.base.iter().cloned());
        line.push(format!("{}={value}", self.option));
        line
    }

    fn parse(&self, value: &str) -> Result<(), clap::Error> {
        let line = self.line(value);
        let whole = std::iter::once("freeguide".to_owned()).chain(line);
        freeguide::cli::command().try_get_matches_from(whole).map(drop)
    }
}

/// Whether an option takes a number: by its type, by its name for the value, or because it takes 1 and not x.
fn is_number(arg: &Arg, tried: &Tried) -> bool {
    let kind = arg.get_value_parser().type_id();
    let numbers = [
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<u32>(),
        TypeId::of::<i64>(),
        TypeId::of::<f64>(),
        TypeId::of::<f32>(),
    ];
    let named = arg.get_value_names().unwrap_or_default().iter().any(|name| {
        let mut words = name.as_str().split(|c: char| !c.is_alphanumeric());
        words.any(|word| ["N", "F", "MS", "IMAGES", "INDEX"].contains(&word))
    });
    numbers.iter().any(|number| kind == *number)
        || named
        || (tried.parse("1").is_ok() && tried.parse("x").is_err())
}

/// The options of all commands that take a number.
fn numbers(place: &Place) -> Vec<Tried> {
    let (definition, bases) = (freeguide::cli::command(), base(place));
    let mut found = Vec::new();
    for command in definition.get_subcommands() {
        let name = bases.keys().find(|name| **name == command.get_name());
        let name = *name.unwrap_or_else(|| panic!("{}: this test needs a line for it", command.get_name()));
        let options = command.get_arguments().filter(|arg| arg.get_action().takes_values());
        for arg in options.filter(|arg| !arg.is_positional()) {
            let option = format!("--{}", arg.get_long().expect("every option has a long name"));
            let tried = Tried { command: name, base: without(command, &bases[name], arg, place), option };
            if is_number(arg, &tried) {
                found.push(tried);
            }
        }
    }
    found
}

/// The line without what an option conflicts with, itself among it, and with what it asks for.
fn without(command: &Command, line: &[String], arg: &Arg, place: &Place) -> Vec<String> {
    let conflicts: Vec<_> =
        command.get_arg_conflicts_with(arg).iter().map(|other| other.get_id().clone()).collect();
    let others = command.get_arguments().filter(|other| {
        other.get_id() == arg.get_id()
            || conflicts.contains(other.get_id())
            || command.get_arg_conflicts_with(other).iter().any(|back| back.get_id() == arg.get_id())
    });
    let dropped: Vec<String> = others.filter_map(|other| Some(format!("--{}", other.get_long()?))).collect();
    let mut kept = Vec::new();
    let mut words = line.iter().peekable();
    while let Some(word) = words.next() {
        if dropped.contains(word) {
            words.next_if(|next| !next.starts_with("--"));
        } else {
            kept.push(word.clone());
        }
    }
    for (id, other) in [("upsampler_steps", "--upsampler"), ("classifier_scale", "--classifier")] {
        if arg.get_id() == id {
            kept.extend([other.into(), place.text("model")]);
        }
    }
    if arg.get_id() == "p_part" {
        kept.extend(["--attributes".into(), "thickness".into()]);
    }
    // Dry runs would train no image less.
    if ["images", "epochs"].contains(&arg.get_id().as_str()) {
        kept.retain(|word| word != "--dry-run");
    }
    kept
}

/// The least and the largest value that an option takes, of the extremes and powers.
fn least_and_largest(tried: &Tried) -> Vec<String> {
    let twos = (0..64).map(|power| (1u64 << power).to_string());
    let tens = (-12..=12).flat_map(|power| [format!("1e{power}"), format!("-1e{power}")]);
    let all = EXTREMES.iter().map(|text| (*text).to_owned()).chain(twos).chain(tens);
    let mut taken: Vec<(f64, String)> = all
        .filter(|text| tried.parse(text).is_ok())
        .map(|text| (text.parse().unwrap_or(0.0), text))
        .collect();
    taken.sort_by(|a, b| a.0.total_cmp(&b.0));
    taken.dedup_by(|a, b| a.0 == b.0);
    let ends = [taken.first(), taken.last()];
    let mut ends: Vec<String> = ends.into_iter().flatten().map(|(_, text)| text.clone()).collect();
    ends.dedup();
    // These train, for seconds each. That the least is taken has been tried by then.
    if ["train-classifier", "distill"].contains(&tried.command) {
        ends.drain(..ends.len().saturating_sub(1));
    }
    ends
}

/// Runs a line to its end, which is hastened after a while; says what is wrong with it.
fn run_briefly(line: &[String]) -> Result<(), String> {
    let mut command = freeguide();
    command.args(line).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // Read beside the run, which a full pipe would stop.
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        text
    });
    let (begun, mut interrupted, mut largest) = (Instant::now(), false, 0);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        largest = largest.max(resident(&child));
        let worked = processor_time(&child).unwrap_or_else(|| begun.elapsed());
        if worked > LONGEST || begun.elapsed() > STUCK || largest > LARGEST {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        if worked > PATIENCE && !interrupted {
            interrupted = interrupt(&child);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = said.join().unwrap();
    let wrong = match status {
        None if largest > LARGEST => format!("took {} MiB", largest >> 10),
        None => format!("took longer than {LONGEST:?}, or was stuck"),
        // Commands that have nothing to save do not ask to be told of Ctrl-C.
        Some(status) if interrupted && is_interrupt(status) => return Ok(()),
        Some(status) if status.code().is_none() => format!("ended by {status}"),
        Some(status) if ![0, 1, 2, 130].contains(&status.code().unwrap()) => format!("ended with {status}"),
        Some(_) if said.contains("panicked") => "panicked".into(),
        Some(status) if !status.success() && !interrupted && !said.contains("error: ") => {
            "said nothing".into()
        }
        Some(_) => return Ok(()),
    };
    Err(format!("{wrong}: freeguide {}\n{said}", line.join(" ")))
}

/// Resident memory in KiB, where the system tells.
fn resident(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What a run has had of the processors, where the system tells: in hundredths of a second.
fn processor_time(child: &Child) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    // Behind the name in brackets, which may hold anything: the 12th and 13th field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

#[cfg(unix)]
fn interrupt(child: &Child) -> bool {
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    sent.unwrap().success()
}

#[cfg(unix)]
fn is_interrupt(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(2)
}

#[cfg(not(unix))]
fn is_interrupt(_: std::process::ExitStatus) -> bool {
    false
}

#[cfg(not(unix))]
fn interrupt(_: &Child) -> bool {
    true
}

/// What runs are on: models of a few parameters, and features of a few pictures.
pub(super) fn furnish(place: &Place) {
    let tiny = ["--channels", "4", "--norm-groups", "4", "--channel-mult", "1", "--attention", "none"];
    for (name, more) in [("model", &[][..]), ("discrete", &["--schedule", "cosine", "--steps-total", "8"])] {
        let fixed = ["train", "--data", "digits", "--images", "4", "--batch", "4", "--res-blocks", "1"];
        run(&[&fixed[..], &tiny, more, &["--out", &place.text(name)]].concat()).expect(0);
    }
    write_folder(&place.path("set"));
    for (name, label, picture) in pictures() {
        let class = ["nought", "one"][label as usize];
        write_png(place.path("set").join(class).join(format!("b{name}")), &picture, &[]).unwrap();
    }
    run(&["stats", &place.text("set"), "--out", &place.text("stats.npz")]).expect(0);
}

#[test]
fn no_number_panics_hangs_or_takes_the_machine() {
    let place = Place::new();
    let tried = numbers(&place);
    assert!(tried.len() > 80, "only {} options take a number", tried.len());

    // What is refused is refused by the definition, with the range.
    for option in &tried {
        let name = format!("{} {}", option.command, option.option);
        let mut refused = 0;
        for value in EXTREMES {
            let Err(error) = option.parse(value) else { continue };
            refused += 1;
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{name} {value}: {error}");
            let text = error.to_string();
            assert!(text.contains(&option.option) && text.lines().next().unwrap().len() > 40, "{text}");
        }
        // A device and a class may be called anything.
        assert!(
            refused >= 3 || ["--device", "--class"].contains(&&*option.option),
            "{name} takes nearly anything"
        );
    }

    furnish(&place);

    // The least and the largest that each takes. Nothing is run of a window, which a test of its own opens.
    let runs = tried.iter().filter(|option| option.command != "demo");
    let lines: Vec<Vec<String>> = runs
        .flat_map(|option| least_and_largest(option).into_iter().map(|value| option.line(&value)))
        .enumerate()
        .map(|(i, line)| {
            let out = place.text(&format!("out-{i}"));
            line.into_iter().map(|word| word.replace("OUT", &out)).collect()
        })
        .collect();
    let (next, wrong) = (Mutex::new(lines.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                loop {
                    let Some(line) = next.lock().unwrap().next() else { break };
                    if let Err(what) = run_briefly(line) {
                        wrong.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} lines:\n{}", wrong.len(), lines.len(), wrong.join("\n---\n"));
}

/// The lines that help texts begin with are lines of this program.
#[test]
fn every_help_begins_with_examples_that_parse() {
    for command in freeguide::cli::command().get_subcommands() {
        let name = command.get_name();
        let text = command.get_before_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("Examples:"), "{name}");
        let lines: Vec<&str> = lines.map(str::trim).collect();
        assert!(
            (1..=3).contains(&lines.len()) && lines.iter().any(|line| line.split(' ').nth(1) == Some(name))
        );
        for line in lines {
            // What stands in quotes is one word.
            let parts = line.split('\'').enumerate();
            let words = parts.flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().collect(),
                _ => vec![part],
            });
            if let Err(error) = freeguide::cli::command().try_get_matches_from(words) {
                panic!("{name}: {line}\n{error}");
            }
        }
    }
}

/// A list of options is read in groups; an option of a long list that is in none would stand among the first few.
#[test]
fn long_helps_are_in_groups() {
    for command in freeguide::cli::command().get_subcommands() {
        let options: Vec<_> = command.get_arguments().filter(|arg| !arg.is_positional()).collect();
        let first = options.iter().filter(|arg| arg.get_help_heading().is_none()).count();
        assert!(first <= 10, "{}: {first} of {} options are in no group", command.get_name(), options.len());
    }
}
