//! `holdfast status`: the whole tree on one screen, what needs attention first; `--watch` shows every change.
//! `snapshot` reads, `tree` and `attention` decide what is shown, `text` draws it.

mod attention;
pub(crate) mod snapshot;
mod text;
mod tree;

use std::io::Write;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::args::StatusArgs;
use crate::client::Api;
use crate::errors::Result;
use crate::printer::Printer;
use snapshot::Snapshot;

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_millis(500);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Runs the command.
///
/// # Errors
/// When the API server can't be reached or refuses; with `--watch` only if it does so at first.
pub(crate) async fn run(args: StatusArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let namespace = args.client.namespace.as_deref();
    let mut good = draw(&Snapshot::read(&api, namespace).await?, &args, printer);
    if !args.watch {
        return printer.data(&good);
    }
    let mut shown = good.clone();
    show(&shown, printer)?;
    loop {
        tokio::time::sleep(REFRESH).await;
        let next = match Snapshot::read(&api, namespace).await {
            Ok(snapshot) => {
                good = draw(&snapshot, &args, printer);
                good.clone()
            }
            // What was seen last stays on the screen, with the reason why it may be old.
            Err(error) => format!("{error}\nlast seen:\n\n{good}"),
        };
        if next != shown {
            show(&next, printer)?;
            shown = next;
        }
    }
}

fn draw(snapshot: &Snapshot, args: &StatusArgs, printer: Printer) -> String {
    // In a file or pipe, time that passes is no change.
    let now = (printer.terminal() || !args.watch).then(Timestamp::now);
    text::render(&tree::lines(snapshot, now), printer.colour())
}

/// A terminal is drawn anew; into a file or pipe one picture follows the other.
fn show(text: &str, printer: Printer) -> Result {
    if printer.terminal() {
        let mut out = std::io::stdout().lock();
        out.write_all(CLEAR.as_bytes())?;
        out.flush()?;
        drop(out);
        printer.data(text)
    } else {
        printer.data(&format!("{text}\n"))
    }
}
