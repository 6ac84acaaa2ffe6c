//! The `holdfast` binary: reads arguments and hands over. No logic here.
//!
//! Some commands are run by Holdfast itself, not by people, and are looked for before anything else happens: they
//! fork, or must work within milliseconds in a process that is about to be killed, so no thread, runtime or log may
//! have been started.

use std::path::Path;
use std::process::ExitCode;

mod args;
mod client;
mod commands;
mod errors;
mod manifest;
mod printer;

use args::{AgentsCommand, Command, FenceCommand};
use commands::server::Parts;
use errors::{Failure, Result};
use holdfast_agent::commands::HoldChange;
use printer::Printer;

/// An API server spends its time on trees of small texts, which are made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let inner = match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("nursery") => return holdfast_agent::nursery::nursery_main(),
        Some("guard") => match (words.next(), words.next()) {
            (Some(run_dir), None) => return holdfast_agent::guard::guard_main(Path::new(&run_dir)),
            _ => Some(Err(anyhow::anyhow!("`holdfast guard` takes one run directory; agents start it themselves"))),
        },
        Some("nfs-clients") => Some(holdfast_agent::nfs_clients::nfs_clients_main().map_err(anyhow::Error::msg)),
        Some("lab-init") => Some(holdfast_lab::init_main(words).map_err(anyhow::Error::from)),
        Some("lab-writer") => Some(holdfast_lab::writer_main(words).map_err(anyhow::Error::from)),
        _ => None,
    };
    let outcome = match inner {
        Some(outcome) => outcome.map_err(Failure::from),
        None => match args::parse() {
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
        Command::Server(args) => {
            long(commands::server::run(args.server, Parts::ApiAndController(args.election), printer))
        }
        Command::Apiserver(args) => long(commands::server::run(args, Parts::Api, printer)),
        Command::QuorumServer(args) => long(commands::quorum_server::run(args, printer)),
        Command::Controller(args) => long(commands::server::controller(args, printer)),
        Command::Backup(args) => short(commands::backup::backup(args, printer)),
        Command::Restore(args) => short(commands::backup::restore(args, printer)),
        Command::Agent(args) => commands::agent::run(&args),
        Command::Apply(args) => short(commands::apply::run(args, printer)),
        Command::Get(args) => short(commands::get::run(args, printer)),
        Command::Delete(args) => short(commands::delete::run(args, printer)),
        Command::Status(args) => short(commands::status::run(args, printer)),
        Command::Why(args) => short(commands::why::run(args, printer)),
        Command::Plan(args) => short(commands::plan::run(args, printer)),
        Command::Move(args) => short(commands::move_group::run(args, printer)),
        Command::Start(args) if args.here.local => commands::local::hold(args, HoldChange::Start, printer),
        Command::Stop(args) if args.here.local => commands::local::hold(args, HoldChange::Stop, printer),
        Command::Pause(args) if args.here.local => commands::local::pause(args, printer),
        Command::Resume(args) if args.here.local => commands::local::resume(args, printer),
        Command::Start(args) => short(commands::operation::start(args, printer)),
        Command::Stop(args) => short(commands::operation::stop(args, printer)),
        Command::Pause(args) => short(commands::operation::pause(args, printer)),
        Command::Resume(args) => short(commands::operation::resume(args, printer)),
        Command::Exec(args) => short(commands::operation::exec(args, printer)),
        Command::Restart(args) => short(commands::operation::restart(args, printer)),
        Command::Shutdown(args) => short(commands::operation::shutdown(args, printer)),
        Command::Upgrade(args) => short(commands::operation::upgrade(args, printer)),
        Command::Drill(args) => short(commands::operation::drill(args, printer)),
        Command::Proceed(args) => short(commands::operation::proceed(args, printer)),
        Command::Detach(args) => short(commands::operation::detach(args, printer)),
        Command::Reinstate(args) => short(commands::operation::reinstate(args, printer)),
        Command::ClearFailures(args) if args.here.local => commands::local::clear_failures(args, printer),
        Command::ClearFailures(args) => short(commands::operation::clear_failures(args, printer)),
        Command::Failover(args) => commands::local::failover(&args, printer),
        Command::Down(args) => commands::local::down(&args, printer),
        Command::Monitor(args) => commands::monitor::run(&args, printer),
        Command::Run(args) => commands::local::run(args, printer),
        Command::ForceReinstate(args) => short(commands::operation::force_reinstate(args, printer)),
        Command::ConfirmStopped(args) => short(commands::operation::confirm_stopped(args, printer)),
        Command::AcceptSpec(args) => short(commands::operation::accept_spec(args, printer)),
        Command::Validate(args) => commands::validate::run(&args, printer),
        Command::Timing(args) => short(commands::timing::run(args, printer)),
        Command::Crds => commands::crds::run(printer),
        Command::Completion(args) => commands::shell::completion(&args, printer),
        Command::Man(args) => commands::shell::manual(&args, printer),
        Command::Disk(command) => commands::disk::run(command, printer),
        Command::Lock(command) => commands::quorum_lock::run(command, printer),
        Command::Fence(FenceCommand::List(args)) => short(commands::fence::list(args, printer)),
        Command::Fence(FenceCommand::PowerOff(args)) => short(commands::operation::fence("PowerOff", args, printer)),
        Command::Fence(FenceCommand::Reboot(args)) => short(commands::operation::fence("Reboot", args, printer)),
        Command::Fence(FenceCommand::PowerOn(args)) => short(commands::operation::fence("PowerOn", args, printer)),
        Command::Fence(FenceCommand::Test(args)) => commands::fence::test(&args, printer),
        Command::Agents(AgentsCommand::List) => commands::agents::list(printer),
        Command::Agents(AgentsCommand::Describe(args)) => commands::agents::describe(&args, printer),
        Command::Lab(args) => commands::lab::run(args),
        Command::Token(command) => short(commands::token::run(command, printer)),
        Command::Init(args) => short(commands::init::run(args, printer)),
        Command::Kubeconfig(args) => commands::kubeconfig::run(&args, printer),
    }
}

/// Runs a command that is a client: one thread is enough.
fn short(command: impl Future<Output = Result>) -> Result {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Runs a command that serves: logs, and as many threads as processors.
fn long(command: impl Future<Output = Result>) -> Result {
    holdfast_telemetry::logs::start().map_err(Failure::refused_by)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
