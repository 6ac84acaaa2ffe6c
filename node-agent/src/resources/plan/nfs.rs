//! Plans of exports.

use std::path::PathBuf;

use holdfast_api::v1 as api;
use serde::{Deserialize, Serialize};

use super::{PlanError, wrong};

/// A directory exported by NFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NfsExportPlan {
    /// The directory.
    pub path: PathBuf,
    /// Who may mount it.
    pub clients: Vec<NfsClientPlan>,
    /// The same on every server.
    pub fsid: String,
    /// Where the clients that may reclaim are kept; none: they lose their locks when the export moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_directory: Option<PathBuf>,
}

/// Who may mount an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NfsClientPlan {
    /// Network or host.
    pub network: String,
    /// With commas; may be empty.
    pub options: String,
}

pub(super) fn nfs_export(spec: &api::NfsExport) -> Result<NfsExportPlan, PlanError> {
    let strange = |text: &str| text.chars().any(|c| c.is_whitespace() || c.is_control() || "()\\\"'".contains(c));
    if strange(&spec.path) {
        let found = &spec.path;
        return Err(wrong(
            "nfsExport.path",
            format!("is {found:?}; exports have no blanks, quotes, brackets or backslashes in their paths"),
        ));
    }
    let is_uuid = || uuid::Uuid::parse_str(&spec.fsid).is_ok();
    if spec.fsid.parse::<u32>().is_err() && !is_uuid() {
        let found = &spec.fsid;
        return Err(wrong("nfsExport.fsid", format!("is {found:?}; write a number from 0 to 4294967295 or a UUID")));
    }
    let mut clients = Vec::new();
    for client in &spec.clients {
        let (network, options) = (client.network.clone(), client.options.clone().unwrap_or_default());
        if strange(&network) || network.starts_with('-') {
            return Err(wrong("nfsExport.clients", format!("{network:?} is no network or host")));
        }
        let own = options.split(',').any(|option| option.starts_with("fsid"));
        if strange(&options) || options.starts_with('-') || own {
            return Err(wrong(
                "nfsExport.clients",
                format!(
                    "options {options:?}: write options of exports(5) with commas, for example rw,sync; the fsid is a field"
                ),
            ));
        }
        clients.push(NfsClientPlan { network, options });
    }
    let state_directory = spec.state_directory.as_ref().map(PathBuf::from);
    Ok(NfsExportPlan { path: PathBuf::from(&spec.path), clients, fsid: spec.fsid.clone(), state_directory })
}
