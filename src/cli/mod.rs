//! The command line: arguments, progress bars, pictures, exit codes. One file a command.
//!
//! Invariant: nothing is computed here; a command puts library calls together and tells a person about them.

// First, as its `println!` and its kin stand in for the standard ones in all modules below.
#[macro_use]
mod terminal;

mod compiled;
mod convert;
mod data;
mod demo;
mod device_args;
mod devices;
mod distill;
mod drawing;
mod eval;
mod features;
mod guider;
mod info;
mod interrupt;
mod measured_sweep;
mod model_args;
mod nll;
mod notes;
mod number;
mod outputs;
mod pictures;
mod plot;
mod progress;
mod quickstart;
mod ranges;
mod sample;
mod samplers;
mod shared_args;
mod sheets;
mod start;
mod stats;
mod sweep;
mod toy;
mod toy_guiders;
mod train;
mod train_classifier;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::Error;

use device_args::DeviceArgs;

/// Train and sample class-conditional diffusion models with classifier-free guidance, on any GPU.
#[derive(Parser)]
#[command(name = "freeguide", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Quickstart(quickstart::Args),
    Train(Box<train::Args>),
    TrainClassifier(train_classifier::Args),
    Distill(Box<distill::Args>),
    Sample(Box<sample::Args>),
    Sweep(Box<sweep::Args>),
    Eval(Box<eval::Args>),
    Stats(stats::Args),
    Nll(nll::Args),
    Plot(plot::Args),
    Info(info::Args),
    Convert(convert::Args),
    Toy(toy::Args),
    Demo(demo::Args),
    Devices(devices::Args),
}

/// Every help text begins with what the command does and lines that can be copied.
const HELP: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The definition of the whole command line: every command, every option with its range. For shell completions, manual
/// pages, and tests that walk it.
pub fn command() -> clap::Command {
    // `--steps -1` is a value out of range, not an option that does not exist.
    let number = |arg: clap::Arg| {
        let takes_values = arg.get_action().takes_values() && !arg.is_positional();
        if takes_values { arg.allow_negative_numbers(true) } else { arg }
    };
    Cli::command().mut_subcommands(|command| command.help_template(HELP).mut_args(number))
}

/// Runs the program: 0 on success, 1 on an error, 2 on wrong arguments, 130 when interrupted, 141 when standard output was
/// closed.
pub fn main() -> ExitCode {
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(told) => return ExitCode::from(terminal::usage(told)),
    };
    let done = match cli.command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Train(args) => train::run(&args),
        Command::TrainClassifier(args) => train_classifier::run(&args),
        Command::Distill(args) => distill::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Nll(args) => nll::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Toy(args) => toy::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Devices(args) => devices::run(&args),
    };
    compiled::save();
    match done {
        Ok(()) => ExitCode::from(terminal::exit_code()),
        Err(Error::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
