//! Runs a tool of the system (fsck, LVM, exportfs) to its end, in the control group of the caller, so that it ends with it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::said;
use crate::spawn::{self, Exit, Spawn};

/// Most that is kept of each output.
const KEPT: u64 = 1024 * 1024;

/// How a tool ended.
#[derive(Debug)]
pub struct Done {
    /// As a person would type it.
    pub command: String,
    /// Its end.
    pub exit: Exit,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Done {
    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}{}", self.output, self.errors)
    }

    /// Standard output of a success.
    ///
    /// # Errors
    /// A sentence with the command, its exit code and the last lines that it printed.
    pub fn succeeded(self) -> Result<String, String> {
        if self.exit == Exit::Code(0) {
            return Ok(self.output);
        }
        Err(format!("`{}`: {}; {}", self.command, self.exit, said::heard(&said::last_lines(&self.text()))))
    }
}

/// Runs a tool; `advice` says what to do when it is not installed.
///
/// # Errors
/// A sentence: it is not there, or could not be run.
pub fn run(name: &str, args: &[&str], advice: &str) -> Result<Done, String> {
    let program =
        spawn::find_program(name).ok_or_else(|| format!("{name} is not installed on this server; {advice}"))?;
    let failed = |e: &dyn std::fmt::Display| format!("{name}: {e}");
    // Files, not pipes: what the tool leaves running can't make the reader wait.
    let file = || memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).map_err(|e| failed(&e));
    let (mut output, mut errors) = (file()?, file()?);
    let args: Vec<String> = std::iter::once(name).chain(args.iter().copied()).map(str::to_owned).collect();
    let path = std::env::var("PATH").unwrap_or_else(|_| spawn::DEFAULT_PATH.to_owned());
    let child = spawn::spawn(&Spawn {
        program: &program,
        args: &args,
        environment: &[("PATH".to_owned(), path), ("LC_ALL".to_owned(), "C".to_owned())],
        directory: Path::new("/"),
        stdio: [None, Some(output.as_fd()), Some(errors.as_fd())],
        identity: None,
        cgroup: None,
    })
    .map_err(|e| failed(&e))?;
    let exit = child.wait(None).ok_or_else(|| failed(&"its end was not seen"))?;
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.take(KEPT).read_to_end(&mut bytes)).map_err(|e| failed(&e))?;
        Ok::<String, String>(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Done { command: args.join(" "), exit, output: read(&mut output)?, errors: read(&mut errors)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_command_exit_code_and_last_lines() {
        let done = run("sh", &["-c", "echo one; echo two; echo three; echo four >&2; exit 5"], "").unwrap();
        let text = done.succeeded().unwrap_err();
        assert!(text.starts_with("`sh -c ") && text.ends_with("`: exit 5; it printed: two / three / four"), "{text}");
        assert_eq!(run("sh", &["-c", "echo one; echo two >&2"], "").unwrap().succeeded().unwrap(), "one\n");
        let text = run("no-such-tool", &[], "install it").unwrap_err();
        assert_eq!(text, "no-such-tool is not installed on this server; install it");
    }
}
