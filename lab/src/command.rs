//! The flags of `holdfast lab`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::bench::{BenchOptions, What, bench};
use crate::error::{LabError, Result};
use crate::state::clean;
use crate::up::{UpOptions, up};

/// Clusters made of namespaces on this machine, and faults for them
#[derive(Debug, Parser)]
#[command(name = "holdfast lab", arg_required_else_help = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the cluster of an example, cut the active server's power, show the takeover, stay up until Ctrl-C
    Up {
        /// Directory with the manifests of one sub-cluster, or one file
        #[arg(value_name = "EXAMPLE")]
        example: PathBuf,
        /// End after the takeover; exit status 0 only if it worked
        #[arg(long)]
        once: bool,
    },
    /// Measure outages, cold start and idle cost on the cluster of an example
    Bench {
        /// Directory with the manifests of one sub-cluster, or one file
        #[arg(value_name = "EXAMPLE")]
        example: PathBuf,
        /// How often each fault is measured
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
        /// Measure instead how long decisions about views take, with 2, 3 and 16 servers
        #[arg(long)]
        decisions: bool,
        /// Measure instead what large groups cost: twenty resources, and the checks of a thousand
        #[arg(long, conflicts_with = "decisions")]
        groups: bool,
    },
    /// Remove what labs left behind that were killed; labs that run are not touched
    Clean,
}

/// Runs `holdfast lab` with the arguments after its name.
///
/// # Errors
/// [`LabError::Usage`] with clap's text for wrong arguments; else what the verb ends with.
pub fn lab_main(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let all = std::iter::once(OsString::from("holdfast lab")).chain(args);
    let arguments = match Arguments::try_parse_from(all) {
        Ok(arguments) => arguments,
        // Asked-for help goes to standard output and is no error.
        Err(error) if !error.use_stderr() => {
            return error.print().map_err(|source| LabError::Io { what: "writing the help".into(), source });
        }
        Err(error) => return Err(LabError::Usage(error.render().to_string())),
    };
    match arguments.verb {
        Verb::Up { example, once } => up(&UpOptions { example, once }),
        Verb::Bench { example, runs, decisions, groups } => {
            let what = if decisions {
                What::Decisions
            } else if groups {
                What::Groups
            } else {
                What::Outages
            };
            bench(&BenchOptions { example, runs, what })
        }
        Verb::Clean => {
            let screen = crate::up::Screen::new();
            let removed = clean()?;
            if removed.is_empty() {
                screen.line("nothing was left behind");
            }
            removed.iter().for_each(|line| screen.line(&format!("removed {line}")));
            Ok(())
        }
    }
}
