//! Nursery, helper, guard and the records of NFS clients alone: the hidden programs of the `holdfast` binary (a helper is only ever born there), for the tests of this crate, which come
//! before that binary in the order of dependencies; and a stand-in for an agent, which does nothing but be killed. Not
//! installed.

use std::path::Path;
use std::process::ExitCode;

use holdfast_agent::cgroup::Hierarchy;
use holdfast_agent::deadline::{DeadlinePage, Role};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["nursery"] => holdfast_agent::nursery::nursery_main(),
        ["helper"] => holdfast_agent::helper::helper_main(),
        ["nfs-clients"] => match holdfast_agent::nfs_clients::nfs_clients_main() {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        },
        ["guard", run_dir] => holdfast_agent::guard::guard_main(Path::new(run_dir)),
        ["agent", run_dir, cgroup] => agent(Path::new(run_dir), Path::new(cgroup)),
        _ => {
            eprintln!("usage: holdfast-hands nursery | helper | nfs-clients | guard RUN_DIR | agent RUN_DIR CGROUP");
            ExitCode::from(2)
        }
    }
}

fn agent(run_dir: &Path, cgroup: &Path) -> ExitCode {
    let entered = Hierarchy::at(cgroup).enter_agent().map_err(|e| e.to_string());
    let page = entered.and_then(|()| DeadlinePage::open(run_dir).map_err(|e| e.to_string()));
    match page {
        Ok(page) => {
            page.claim(Role::Agent);
            loop {
                nix::unistd::pause();
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
