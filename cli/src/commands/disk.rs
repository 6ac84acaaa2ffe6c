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
            let force = match args.discard_lock {
                Some(lock) => Force::Discard(lock),
                None if args.overwrite => Force::Overwrite,
                None => Force::No,
            };
            let header = format::format(&args.disk.device, args.disk.offset, force).map_err(|error| {
                let hint = match &error {
                    FormatError::Occupied { .. } => "--overwrite formats all the same".to_owned(),
                    FormatError::InUse { lock, .. } => {
                        format!("--overwrite --discard-lock {lock} formats all the same")
                    }
                    _ => return Failure::refused_by(error),
                };
                Failure::refused_by(error).hint(hint)
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
