//! `holdfast disk`: the cluster area of a shared disk, with every daemon down. Makes it once, from one server, and shows
//! what it holds.

use holdfast_agent::disk::format::{self, Force, FormatError};

use crate::args::DiskCommand;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// A device that can't be used, that is too small or holds something, or an area that can't be read.
pub(crate) fn run(command: DiskCommand, printer: Printer) -> Result {
    match command {
        DiskCommand::Format(args) => {
            let force = if args.overwrite { Force::Yes } else { Force::No };
            let header = format::format(&args.disk.device, args.disk.offset, force).map_err(|error| {
                let occupied = matches!(error, FormatError::Occupied { .. });
                let failure = Failure::refused_by(error);
                if occupied { failure.hint("--overwrite formats all the same") } else { failure }
            })?;
            printer.data(&format!(
                "{}: area of {} bytes at byte {}, lock {}",
                args.disk.device.display(),
                header.size,
                args.disk.offset,
                header.lock
            ))
        }
        DiskCommand::Inspect(args) => {
            let inspection = format::inspect(&args.device, args.offset).map_err(|error| {
                Failure::refused_by(error).hint("holdfast disk format --device DEVICE makes an area")
            })?;
            printer.data(&inspection.to_string())
        }
    }
}
