//! `holdfast crds`: the custom resource definitions, for a Kubernetes API server: `holdfast crds | kubectl apply -f -`.

use holdfast_api::crds::{crd_yaml, crds};

use crate::errors::Result;
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn run(printer: Printer) -> Result {
    let documents: Vec<String> = crds().iter().map(crd_yaml).collect();
    printer.data(&documents.join("---\n"))
}
