//! What Prometheus' own clients show of every process, under the names that dashboards know.

use std::fs;

use crate::described;
use crate::metrics::{Sample, Source};

described! {
    /// Metrics of every process.
    CPU Counter "process_cpu_seconds_total" []
        "User and system time of the process, in seconds.";
    MEMORY Gauge "process_resident_memory_bytes" []
        "Resident memory of the process, in bytes.";
    FILES Gauge "process_open_fds" []
        "Open file descriptors of the process.";
    START Gauge "process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
}

/// This process, as the kernel shows it in /proc (man 5 proc).
pub(crate) struct Process;

impl Source for Process {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as f64;
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            samples.push(Sample::new(&CPU, &[], stat.ticks / ticks));
            samples.push(Sample::new(&MEMORY, &[], stat.pages * page));
            let boot = fs::read_to_string("/proc/stat").ok();
            let boot = boot.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("btime "));
            if let Some(boot) = boot.and_then(|text| text.parse::<f64>().ok()) {
                samples.push(Sample::new(&START, &[], boot + stat.start / ticks));
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Reading them is one more.
            samples.push(Sample::new(&FILES, &[], files.count().saturating_sub(1) as f64));
        }
        samples
    }
}

/// Fields of /proc/PID/stat: user and system time (14, 15), start (22), resident pages (24).
struct Stat {
    ticks: f64,
    start: f64,
    pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The program's name (2) may hold anything; the last parenthesis ends it.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat { ticks: field(14)? + field(15)?, start: field(22)?, pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read_rightly() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4 0 0 0 0 150 50 0 0 20 0 1 0 4200 1000 77 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.ticks, stat.start, stat.pages), (200.0, 4200.0, 77.0));
        assert!(Stat::parse("7 (a").is_none() && Stat::parse("7 (a) S 1").is_none());
    }
}
