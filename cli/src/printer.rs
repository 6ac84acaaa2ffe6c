//! Owns standard output and standard error. Data goes to standard output, everything else to standard error; a
//! reader that goes away is not an error; colour only on a terminal and without `NO_COLOR`.

use std::io::{self, IsTerminal, Write};

use crate::errors::Result;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    colour: bool,
    terminal: bool,
}

impl Printer {
    /// Looks at standard output.
    pub(crate) fn new() -> Printer {
        let terminal = io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Printer { colour: terminal && wanted, terminal }
    }

    /// Whether data may carry colour.
    pub(crate) fn colour(self) -> bool {
        self.colour
    }

    /// Whether a person looks at a terminal.
    pub(crate) fn terminal(self) -> bool {
        self.terminal
    }

    /// One or more lines of data.
    ///
    /// # Errors
    /// When standard output can't be written, except for a closed pipe: that ends the process as done.
    pub(crate) fn data(self, text: &str) -> Result {
        let mut out = io::stdout().lock();
        let written = out
            .write_all(text.as_bytes())
            .and_then(|()| if !text.is_empty() && !text.ends_with('\n') { out.write_all(b"\n") } else { Ok(()) });
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            outcome => Ok(outcome?),
        }
    }

    /// A line for people. Failing to say it is no reason to fail.
    pub(crate) fn note(self, text: impl std::fmt::Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}
