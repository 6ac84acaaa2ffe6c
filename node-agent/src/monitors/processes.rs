//! The number of processes that match a pattern, or that a resource has.

use std::collections::BTreeSet;
use std::fs;

use super::plan::Processes;
use super::{Request, advised, pattern};
use crate::cgroup::Hierarchy;
use crate::resources::Verdict;

pub(super) fn run(of: &Processes, min: u32, max: Option<u32>, request: &Request) -> Verdict {
    let cgroups = Hierarchy::at(&request.cgroup);
    let (count, what) = match of {
        Processes::OfResource(name) => {
            let count = cgroups.resource(&request.group, name).pids().len();
            (count, format!("processes of resource {name}"))
        }
        Processes::Matching(text) => {
            let pattern = match pattern(text) {
                Ok(pattern) => pattern,
                Err(verdict) => return verdict,
            };
            // What checks start themselves must not be found by them, nor the agent, whose arguments name files.
            let own = [cgroups.agent(), cgroups.guard(), cgroups.helpers(), cgroups.checks()];
            let own: BTreeSet<i32> = own.iter().flat_map(|group| group.pids()).collect();
            match matching(&pattern, &own) {
                Ok(count) => (count, format!("processes match {text:?}")),
                Err(error) => return Verdict::unknown(format!("the processes can't be listed: {error}")),
            }
        }
    };
    advised(judge(u32::try_from(count).unwrap_or(u32::MAX), &what, min, max), || match of {
        Processes::OfResource(name) => {
            format!("if that is right, change process.min or process.max, else restart {name}")
        }
        Processes::Matching(text) => format!("`pgrep -af '{text}'` on this server lists them"),
    })
}

fn judge(count: u32, what: &str, min: u32, max: Option<u32>) -> Verdict {
    match max {
        _ if count < min => Verdict::failed(format!("{count} {what}, at least {min} are needed")),
        Some(max) if count > max => Verdict::failed(format!("{count} {what}, at most {max} are allowed")),
        _ => Verdict::running(),
    }
}

/// Live processes whose command line, its arguments joined by single spaces, matches. Threads of the kernel and processes
/// that have ended have none.
fn matching(pattern: &regex::bytes::Regex, own: &BTreeSet<i32>) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if own.contains(&pid) {
            continue;
        }
        // It may have ended since the directory was read.
        let Ok(mut line) = fs::read(entry.path().join("cmdline")) else { continue };
        while line.last() == Some(&0) {
            line.pop();
        }
        line.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        count += usize::from(!line.is_empty() && pattern.is_match(&line));
    }
    Ok(count)
}
