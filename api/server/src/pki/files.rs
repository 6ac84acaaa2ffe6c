//! Reading and replacing small secret files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PkiError;

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    move |source| PkiError::File { path: path.to_path_buf(), source }
}

/// Makes a directory for its owner only.
pub(crate) fn make_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// Reads a text.
pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(failed(path))
}

/// Writes a text if the file does not have it, and takes away what rights others have on it.
pub(crate) fn write_if_changed(path: &Path, text: &str) -> Result<(), PkiError> {
    match fs::read(path) {
        Ok(found) if found == text.as_bytes() => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed(path))
        }
        _ => write(path, text),
    }
}

/// Replaces a file as a whole, durably; only its owner may read it, at every moment.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let replace = || -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    };
    replace().map_err(failed(path))
}
