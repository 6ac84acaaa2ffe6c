//! The `holdfast` binary: reads arguments and hands over. No logic here.
//!
//! Some commands are run by Holdfast itself, not by people, and are looked for before anything else happens: they
//! fork, or must work within milliseconds in a process that is about to be killed, so no thread, runtime or log may
//! have been started.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod client;
mod commands;
mod errors;
mod logging;
mod manifest;
mod printer;

use args::{Cli, Command};
use errors::{Failure, Result};
use printer::Printer;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let inner = match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("lab-init") => Some(holdfast_lab::init_main(words).map_err(anyhow::Error::from)),
        Some("lab-writer") => Some(holdfast_lab::writer_main(words).map_err(anyhow::Error::from)),
        _ => None,
    };
    let outcome = match inner {
        Some(outcome) => outcome.map_err(Failure::from),
        None => match Cli::try_parse() {
            Ok(cli) => run(cli.command),
            Err(error) => {
                // Help and version are what was asked for; anything else is the user's input.
                let _ = error.print();
                return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Printer::new().note(&failure);
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result {
    let printer = Printer::new();
    match command {
        Command::Apply(args) => short(commands::apply::run(args, printer)),
        Command::Get(args) => short(commands::get::run(args, printer)),
        Command::Delete(args) => short(commands::delete::run(args, printer)),
    }
}

/// Runs a command that is a client: one thread is enough.
fn short(command: impl Future<Output = Result>) -> Result {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
