//! Where the `holdfast` program is. The lab runs it as a program and links no agent or server code.

use std::path::PathBuf;

use crate::error::{LabError, Result};

/// The `holdfast` program: `HOLDFAST_BIN` if set, else this very program if it is `holdfast`, else the one in
/// the directory of this program or in the directory above (where Cargo puts it, seen from a test).
///
/// # Errors
/// [`LabError::Missing`] that names the places looked at.
pub fn holdfast_binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("HOLDFAST_BIN") {
        let path = PathBuf::from(given);
        if path.is_file() {
            return Ok(path);
        }
        return Err(LabError::Missing {
            what: format!("the program that HOLDFAST_BIN names, {}", path.display()),
            hint: "build it with `cargo build -p holdfast`, or unset HOLDFAST_BIN".into(),
        });
    }
    let own = std::env::current_exe()
        .map_err(|source| LabError::Io { what: "reading the path of this program".into(), source })?;
    let candidates: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(|dir| dir.join("holdfast")).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| LabError::Missing {
        what: format!(
            "the holdfast program at {}",
            candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
        ),
        hint: "build it with `cargo build -p holdfast` (`make test` does), or set HOLDFAST_BIN".into(),
    })
}
