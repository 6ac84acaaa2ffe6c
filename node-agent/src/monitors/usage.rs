//! How full a file system, the memory or the processors are.

use std::fs;
use std::time::Duration;

use holdfast_api::v1::{UsageCheck, UsageOf};
use nix::sys::statvfs::statvfs;

use super::advised;
use crate::resources::Verdict;

/// Longest time over which the processors are watched. Shorter peaks are no load.
const WATCH: Duration = Duration::from_secs(1);

pub(super) fn run(check: &UsageCheck, limit: Duration) -> Verdict {
    let used = match check.of {
        UsageOf::FileSystem => file_system(check.path.as_deref().unwrap_or_default()),
        UsageOf::Memory => read("/proc/meminfo").and_then(|text| memory(&text)),
        UsageOf::Cpu => cpu(limit),
    };
    match used {
        Err(problem) => Verdict::unknown(problem),
        Ok((what, percent)) if percent > u64::from(check.max_percent) => {
            let most = check.max_percent;
            advised(Verdict::failed(format!("{what} is {percent} % full, at most {most} % are allowed")), || {
                format!("{}, or raise usage.maxPercent", relief(check))
            })
        }
        Ok(_) => Verdict::running(),
    }
}

/// What a person does who wants less of it to be used.
fn relief(check: &UsageCheck) -> &'static str {
    match check.of {
        UsageOf::FileSystem => "remove or move files",
        UsageOf::Memory => "end what needs much of it (`ps -e -o rss,args --sort=-rss` shows that)",
        UsageOf::Cpu => "end what needs much of it (`top` shows that)",
    }
}

/// What is used of a whole, in percent, rounded up as `df` does.
fn percent(used: u64, whole: u64) -> u64 {
    let (used, whole) = (u128::from(used), u128::from(whole));
    if whole == 0 { 0 } else { u64::try_from((used * 100).div_ceil(whole)).unwrap_or(u64::MAX) }
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{file} can't be read: {error}"))
}

/// Its blocks or its inodes, whichever are scarcer: without either nothing can be written. What only root may use does
/// not count as free.
fn file_system(path: &str) -> Result<(String, u64), String> {
    let found = statvfs(path).map_err(|error| format!("usage.path: {path} can't be looked at: {error}"))?;
    let used = found.blocks().saturating_sub(found.blocks_free());
    let blocks = percent(used, used + found.blocks_available());
    // btrfs makes inodes as it needs them and says that there are none.
    let used = found.files().saturating_sub(found.files_free());
    let inodes = percent(used, used + found.files_available());
    Ok(if inodes > blocks { (format!("{path} (inodes)"), inodes) } else { (path.to_owned(), blocks) })
}

/// What can't be given to programs without taking it from others.
fn memory(text: &str) -> Result<(String, u64), String> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        number.ok_or_else(|| format!("/proc/meminfo has no {name}"))
    };
    let (total, available) = (value("MemTotal")?, value("MemAvailable")?);
    Ok(("the memory".into(), percent(total.saturating_sub(available), total)))
}

fn cpu(limit: Duration) -> Result<(String, u64), String> {
    let before = read("/proc/stat").and_then(|text| times(&text))?;
    std::thread::sleep(WATCH.min(limit / 2));
    let after = read("/proc/stat").and_then(|text| times(&text))?;
    let (busy, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    Ok(("the processor".into(), percent(busy, all)))
}

/// Time that all processors together were busy, and all of their time, in ticks (proc(5), /proc/stat).
fn times(text: &str) -> Result<(u64, u64), String> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or("/proc/stat has no line cpu")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of the first two.
    let [user, nice, system, idle, iowait, irq, softirq, steal] =
        *fields.first_chunk().ok_or("the line cpu of /proc/stat is too short")?;
    let busy = user + nice + system + irq + softirq + steal;
    Ok((busy, busy + idle + iowait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_told_as_df_and_free_do() {
        let text = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    245 kB\n";
        assert_eq!(memory(text), Ok(("the memory".into(), 76)));
        assert!(memory("MemTotal: 1 kB\n").is_err_and(|e| e.contains("MemAvailable")));
        let text = "cpu  10 20 30 400 50 6 7 8 9 10\ncpu0 1 1 1 1\n";
        assert_eq!(times(text), Ok((81, 531)));
        assert_eq!((percent(0, 0), percent(1, 1000), percent(999, 1000), percent(5, 5)), (0, 1, 100, 100));
        let check = |max_percent| UsageCheck { of: UsageOf::FileSystem, path: Some("/proc".into()), max_percent };
        assert_eq!(run(&check(1), WATCH), Verdict::running(), "it has no blocks");
        let missing = UsageCheck { path: Some("/no/such".into()), ..check(1) };
        assert_eq!(run(&missing, WATCH).state, crate::resources::State::Unknown);
    }
}
