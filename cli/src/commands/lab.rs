//! `holdfast lab`: hands its arguments to the lab, which has flags of its own.

use holdfast_lab::LabError;

use crate::args::LabArgs;
use crate::errors::{Failure, Result};

/// Runs the command.
///
/// # Errors
/// Wrong arguments, or what the lab ends with.
pub(crate) fn run(args: LabArgs) -> Result {
    holdfast_lab::lab_main(args.arguments).map_err(|error| match error {
        LabError::Usage(text) => Failure::usage(text),
        LabError::Missing { .. } | LabError::Manifest { .. } | LabError::Unknown { .. } | LabError::Interrupted => {
            Failure::refused_by(error)
        }
        error => anyhow::Error::from(error).into(),
    })
}
