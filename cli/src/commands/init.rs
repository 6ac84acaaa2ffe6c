//! `holdfast init`: everything that a control plane makes at its first start, without running it. For who prepares an
//! image, or copies the keys to a second server before either runs.

use holdfast_apiserver::keys::FILES;

use crate::args::PlaceArgs;
use crate::commands::server;
use crate::errors::Result;
use crate::printer::Printer;

/// Runs the command. What is there already is kept, so it may be given again.
///
/// # Errors
/// As `holdfast server`.
pub(crate) async fn run(args: PlaceArgs, printer: Printer) -> Result {
    let pki = server::prepare(&args).await?;
    let (dir, store) = (args.data_dir.display(), args.store.as_flags());
    printer.data(&format!("prepared: {}, kubeconfig {}", pki.url(), pki.admin_kubeconfig().display()))?;
    printer.note(format!(
        "Next:\n  \
         holdfast server --data-dir {dir} {store} --listen {}\n  \
         holdfast token create --kubeconfig {} --server NAMESPACE/SUBCLUSTER/SERVER     for each server, see docs/operations.md\n\
         Back up {dir}/pki. Further servers of the same store need {} of it before they start.",
        args.listen,
        pki.admin_kubeconfig().display(),
        FILES.join(", "),
    ));
    Ok(())
}
