//! `holdfast lab-writer FILE [HOST]`: a program for a failover group that leaves evidence of who wrote when.
//!
//! It appends lines `HOST EPOCH SEQUENCE BOOTTIME_NS` to FILE on the shared file system, each durable before
//! the next begins, every few milliseconds. The sequence goes on from the last line found in FILE, whoever wrote
//! it. After each durable line the same line goes to a local file (`--acknowledged LOCAL`), which stays when the
//! shared disk is lost: what stands there must be found in FILE by whoever reads it later. `overlap` checks both. With
//! `--own` FILE is on the host's own disk, and every start leaves a number out.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Attempt, LabError, Result};
use crate::overlap::Line;
use crate::shell::boottime_ns;

/// Pause between two lines.
const PAUSE: Duration = Duration::from_millis(2);

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    file: PathBuf,
    acknowledged: Option<PathBuf>,
    /// FILE is on the host's own disk.
    own: bool,
    host: String,
}

/// Runs `lab-writer` with the arguments after its name: `FILE [HOST] [--acknowledged LOCAL]`. HOST is the host
/// name if not given; the epoch comes from the environment variable `HOLDFAST_EPOCH` (0 without it).
/// Ends only by a signal or an error.
///
/// # Errors
/// Wrong arguments; a line in FILE that is not the writer's; any failed write.
pub fn writer_main(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let own_name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let arguments = parse(args, own_name)?;
    let epoch = std::env::var("HOLDFAST_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let file = &arguments.file;
    let mut shared = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .custom_flags(libc::O_DSYNC)
        .open(file)
        .attempt(|| format!("opening {}", file.display()))?;
    let mut local = match &arguments.acknowledged {
        Some(path) => Some(open_local(path)?),
        None => None,
    };
    let mut text = String::new();
    shared.read_to_string(&mut text).attempt(|| format!("reading {}", file.display()))?;
    let mut sequence = match text.lines().last() {
        Some(last) => last.parse::<Line>()?.sequence,
        None => 0,
    };
    // In a file that no other host writes to, a start would else leave no trace, and another host may have held the
    // group before it in the same epoch.
    sequence += u64::from(arguments.own);
    loop {
        sequence += 1;
        let line = Line { host: arguments.host.clone(), epoch, sequence, boottime_ns: boottime_ns() };
        let text = format!("{line}\n");
        shared.write_all(text.as_bytes()).attempt(|| format!("appending to {}", file.display()))?;
        if let Some(local) = &mut local {
            local.write_all(text.as_bytes()).attempt(|| "noting a durable line".into())?;
        }
        std::thread::sleep(PAUSE);
    }
}

fn open_local(path: &PathBuf) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).attempt(|| format!("opening {}", path.display()))
}

fn parse(args: impl IntoIterator<Item = OsString>, own_name: String) -> Result<Arguments> {
    let usage = |problem: String| LabError::Missing {
        what: format!("other arguments: {problem}"),
        hint: "usage: holdfast lab-writer FILE [HOST] [--acknowledged LOCAL] [--own]".into(),
    };
    let mut acknowledged = None;
    let mut own = false;
    let mut names = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--acknowledged" {
            let path = args.next().ok_or_else(|| usage("--acknowledged has no file after it".into()))?;
            acknowledged = Some(PathBuf::from(path));
        } else if arg == "--own" {
            own = true;
        } else {
            names.push(arg);
        }
    }
    let mut names = names.into_iter();
    let file = names.next().map(PathBuf::from).ok_or_else(|| usage("no FILE".into()))?;
    let host = names.next().map_or(own_name, |name| name.to_string_lossy().into_owned());
    match names.next() {
        Some(more) => Err(usage(format!("{} is one too many", more.display()))),
        None => Ok(Arguments { file, acknowledged, own, host }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_the_default_and_the_local_file_may_stand_anywhere() {
        let parsed = parse(["--acknowledged", "/x", "/srv/f"].map(OsString::from), "own".into());
        let wanted =
            Arguments { file: "/srv/f".into(), acknowledged: Some("/x".into()), own: false, host: "own".into() };
        assert_eq!(parsed.expect("the arguments are right"), wanted);
        assert!(parse(["a", "b", "c"].map(OsString::from), "own".into()).is_err());
    }
}
