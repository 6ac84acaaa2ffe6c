//! `holdfast move`: an Operation of type Move.

use serde_json::json;

use super::operation::{Wanted, carry_out};
use crate::args::MoveArgs;
use crate::errors::Result;
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// When the operation is refused, fails, or has not ended in time.
pub(crate) async fn run(args: MoveArgs, printer: Printer) -> Result {
    let wanted = Wanted {
        type_: "Move",
        kind: "FailoverGroup",
        target: &args.group,
        parameters: Some(("move", json!({"to": args.to}))),
        words: format!("the move of {} to {}", args.group, args.to),
    };
    carry_out(&wanted, &args.wait, None, printer).await
}
