//! How a command ends: exit codes 0 (done), 1 (refused: wrong input, or the cluster's state forbids it) and
//! 2 (unexpected), and what stands on standard error: what failed, the chain of causes, then `hint:` lines.

use std::fmt;
use std::process::ExitCode;

/// Result of a command.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The user's: other input, or another state of the cluster.
    Refused,
    /// Ours, or the machine's.
    Unexpected,
    /// The API server did not answer.
    Unreachable,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: anyhow::Error,
    hints: Vec<String>,
}

impl Failure {
    /// The input or the cluster's state refuses.
    pub(crate) fn refused(message: impl fmt::Display) -> Failure {
        Failure { kind: Kind::Refused, error: anyhow::anyhow!("{message}"), hints: Vec::new() }
    }

    /// The input or the cluster's state refuses, in the words of a library.
    pub(crate) fn refused_by(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Failure { kind: Kind::Refused, error: error.into(), hints: Vec::new() }
    }

    /// Wrong arguments; the text is clap's and says everything.
    pub(crate) fn usage(text: String) -> Failure {
        // clap begins with `error: ` itself.
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
        Failure::refused(text)
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// Adds what was attempted, in front.
    pub(crate) fn context(mut self, what: impl fmt::Display + Send + Sync + 'static) -> Failure {
        self.error = self.error.context(what);
        self
    }

    /// Nobody answered; the same may succeed later.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.kind == Kind::Unreachable
    }

    /// The process's exit status.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Refused => ExitCode::from(1),
            Kind::Unexpected | Kind::Unreachable => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "error: {}", self.error)?;
        // Some errors repeat their source in their own text; a cause is worth a line only if it says something new.
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !said.contains(&cause) {
                write!(out, "\n  because: {cause}")?;
                said = cause;
            }
        }
        for hint in &self.hints {
            write!(out, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure { kind: Kind::Unexpected, error, hints: Vec::new() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        anyhow::Error::from(error).into()
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => answer(&status),
            error => {
                let unreachable = matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_));
                let failure = Failure::from(anyhow::Error::from(error));
                if unreachable {
                    let failure = Failure { kind: Kind::Unreachable, ..failure };
                    failure.context("the API server can't be reached").hint(
                        "is it running (`holdfast server --data-dir DIR`), and does the kubeconfig (--kubeconfig, KUBECONFIG) name it?",
                    )
                } else {
                    failure
                }
            }
        }
    }
}

/// What the API server answered, in its own words; 4xx is the user's turn.
fn answer(status: &kube::core::Status) -> Failure {
    let mut failure = Failure::refused(if status.message.is_empty() { &status.reason } else { &status.message });
    if !(400..500).contains(&status.code) {
        failure.kind = Kind::Unexpected;
    }
    match status.code {
        401 => failure
            .hint("the kubeconfig's certificate is not of this server; use DIR/admin.kubeconfig of its data directory"),
        409 => failure.hint("somebody else changed the object; run the command again"),
        429 | 503 => failure.hint("the server asks to come back later; run the command again"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_then_why_then_what_to_do() {
        let inner = std::io::Error::other("no such device");
        let failure = Failure::from(anyhow::Error::from(inner).context("reading the area")).hint("format it first");
        assert_eq!(failure.to_string(), "error: reading the area\n  because: no such device\nhint: format it first");
    }

    #[test]
    fn a_refusal_by_the_server_is_not_our_failure() {
        let status: kube::core::Status =
            serde_json::from_str(r#"{"status":"Failure","message":"not so","reason":"Forbidden","code":403}"#)
                .expect("a status");
        assert_eq!(answer(&status).kind, Kind::Refused);
        let status: kube::core::Status =
            serde_json::from_str(r#"{"status":"Failure","message":"broken","reason":"InternalError","code":500}"#)
                .expect("a status");
        assert_eq!(answer(&status).kind, Kind::Unexpected);
    }
}
