//! What the API server does in a second, over TLS, on a real etcd and on the embedded store: `make bench` prints it beside
//! the design's targets, the same machine's store alone, and what a stock API server was measured to do.
//!
//! ```text
//!  main ─▶ loads ─▶ client ══TLS══▶ this program again, as `serve STORE DIR` ─▶ etcd (or SQLite)
//!             └───▶ sheet            (a process of its own, so that its memory is its own)
//! ```
//!
//! Arguments after `--`: the number of runs, 3 when none is given; each has a server and a store of its own.

mod client;
mod loads;
mod processes;
mod sheet;

use std::process::ExitCode;

use processes::{Api, Etcd};
use sheet::Sheet;

/// As in the `holdfast` binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What ends a measurement.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Runs when none are asked for.
const RUNS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", store, directory] => runtime.block_on(processes::serve(store, directory.as_ref())),
        [] => runtime.block_on(measure(RUNS)),
        [runs] if runs.parse().is_ok_and(|runs: usize| runs > 0) => {
            runtime.block_on(measure(runs.parse().unwrap_or(RUNS)))
        }
        _ => Err(format!("{arguments:?} is not understood; allowed is the number of runs, 1 or more").into()),
    };
    outcome.map_or_else(|error| fail(&*error), |()| ExitCode::SUCCESS)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn measure(runs: usize) -> Result<()> {
    for (name, stock) in [("etcd", true), ("the embedded store", false)] {
        let mut sheet = Sheet::new();
        for run in 1..=runs {
            eprintln!("API server on {name}, run {run} of {runs}");
            let etcd = stock.then(Etcd::start).transpose()?;
            let api = Api::start(etcd.as_ref()).await?;
            loads::all(&api, etcd.as_ref(), &mut sheet).await?;
        }
        println!(
            "\nAPI server on {name}: objects of about 1 KiB over TLS, client and store on the same cores, {runs} runs"
        );
        sheet.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}
