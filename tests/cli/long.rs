//! Long nonsense, in every place that takes a text: messages say what was given in short.

use clap::{ArgAction, Command};

use super::numbers::{base, furnish};
use super::*;

/// As long as what somebody pastes by mistake: a word, and words.
fn nonsense() -> [String; 2] {
    ["x".repeat(6000), "no such thing ".repeat(500)]
}

/// The line of a command in which `text` stands for one option.
fn line(command: &Command, base: &[String], option: &str, text: &str) -> Vec<String> {
    let mut line = vec![command.get_name().to_owned()];
    let mut words = base.iter().peekable();
    while let Some(word) = words.next() {
        if word == option {
            words.next_if(|next| !next.starts_with("--"));
        } else {
            line.push(word.clone());
        }
    }
    line.push(format!("{option}={text}"));
    line
}

/// Runs a line, and says what of it is repeated in full.
fn repeated(line: &[String], text: &str) -> Option<String> {
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let finished = run(&line);
    let told = finished.stdout.clone() + &finished.stderr;
    let start: String = text.chars().take(350).collect();
    let short: Vec<String> = line.iter().map(|word| word.chars().take(60).collect::<String>()).collect();
    (told.contains(&start) || told.contains("panicked")).then(|| {
        let told: String = told.chars().take(600).collect();
        format!("{}\n{told}", short.join(" "))
    })
}

#[test]
fn no_message_repeats_a_long_argument() {
    let place = Place::new();
    furnish(&place);
    let (definition, bases) = (freeguide::cli::command(), base(&place));
    let mut lines = Vec::new();
    for text in nonsense() {
        lines.push((vec![text.clone()], text.clone()));
        for command in definition.get_subcommands() {
            let name = command.get_name();
            let base: Vec<String> =
                bases[name].iter().map(|word| word.replace("OUT", &place.text("out"))).collect();
            // Another argument than there are, and an option that there is not.
            for extra in [text.clone(), format!("--{text}"), format!("--{text}=1")] {
                lines.push(([&[name.to_owned()], &base[..], &[extra]].concat(), text.clone()));
            }
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                if !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
                    continue;
                }
                let option = format!("--{}", arg.get_long().expect("every option has a long name"));
                lines.push((line(command, &base, &option, &text), text.clone()));
                if arg.get_value_delimiter().is_some() {
                    lines.push((line(command, &base, &option, &format!("1,{text}")), text.clone()));
                }
            }
        }
        // Within what options are made of.
        let model = place.text("model");
        for (option, value) in [
            ("--guider", format!("interval({text})")),
            ("--guider", format!("interval(lo={text})")),
            ("--guider", format!("{text}(1)+rescale(0.5)")),
            ("--guider", format!("expression({text})")),
            ("--guider", format!("negative({text})")),
            ("--guider", format!("autoguidance({text})")),
            ("--model", format!("{model}#{text}")),
            ("--out", format!("{text}.tiff")),
        ] {
            let command = definition.find_subcommand("sample").unwrap();
            let base: Vec<String> =
                bases["sample"].iter().map(|word| word.replace("OUT", &place.text("out"))).collect();
            lines.push((line(command, &base, option, &value), text.clone()));
        }
        for name in ["info", "convert", "stats"] {
            let rest = if name == "info" { vec![] } else { vec!["--out".to_owned(), place.text("out.npz")] };
            let rest = if name == "convert" { vec![place.text("out")] } else { rest };
            lines.push(([&[name.to_owned(), text.clone()], &rest[..]].concat(), text.clone()));
        }
    }
    assert!(lines.len() > 400, "only {} lines", lines.len());
    // What needs no run is told by the parser; only what it takes is run as a program.
    let (next, wrong) = (std::sync::Mutex::new(lines.iter()), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                loop {
                    let Some((line, text)) = next.lock().unwrap().next() else { break };
                    wrong.lock().unwrap().extend(repeated(line, text));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} lines:\n{}", wrong.len(), lines.len(), wrong.join("\n---\n"));
}

#[test]
fn what_is_shortened_says_how_long_it_was() {
    let [word, words] = nonsense();
    for (line, text) in [
        (["sample", "--model", "m", "--steps"], &word),
        (["sample", "--model", "m", "--steps"], &words),
        (["sample", "--model", "m", "--sampler"], &word),
        (["stats", "m", "--force", "--image-size"], &word),
    ] {
        let finished = run(&[&line[..], &[text]].concat()).expect(2);
        let count = format!("… ({} characters)", text.chars().count());
        let ends = finished.stderr.contains(&count)
            || finished.stderr.contains(&format!("({} characters)", text.chars().count()));
        assert!(ends && finished.stderr.contains('…'), "{}", finished.stderr);
        assert!(finished.stderr.len() < 2000, "{}", finished.stderr);
    }
    // What fits is quoted whole.
    let finished = run(&["sample", "--model", "m", "--steps", "a few steps"]).expect(2);
    contains(&finished.stderr, &["'a few steps'", "from 1 to"]);
}

#[test]
fn a_long_value_in_a_file_is_told_in_short() {
    let place = Place::new();
    let path = PathBuf::from(model(&place)).join("config.json");
    let good: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let places = texts("", &good);
    assert!(places.len() > 5, "{places:?}");
    for text in nonsense() {
        for pointer in &places {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = text.as_str().into();
            fs::write(&path, bad.to_string()).unwrap();
            let finished = run(&["sample", "--model", &place.text("model"), "--class", "12", "--steps", "1"]);
            let told = finished.expect(1).stderr;
            assert!(told.len() < 4000 && !told.contains(&text[..350]), "{pointer}: {told}");
        }
    }
}

/// Where texts stand in a file of JSON.
fn texts(at: &str, value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::String(_) => vec![at.to_owned()],
        serde_json::Value::Object(map) => {
            map.iter().flat_map(|(key, value)| texts(&format!("{at}/{key}"), value)).collect()
        }
        serde_json::Value::Array(list) => {
            list.iter().enumerate().flat_map(|(i, value)| texts(&format!("{at}/{i}"), value)).collect()
        }
        _ => Vec::new(),
    }
}
