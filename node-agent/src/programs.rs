//! Which programs that resources run by their path are there on this server, and what is in them: reported so that the
//! controller can compare the servers (condition `ContentMismatch`) before a takeover finds the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use holdfast_api::programs;
use holdfast_api::v1::ProgramStatus;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::convert::clip;
use crate::look;
use crate::spec_cache::Specs;

/// As many as the schema takes.
const MOST: usize = 1024;

/// The programs of everything that this server may run.
pub fn wanted(specs: &Specs) -> BTreeSet<String> {
    let groups = specs.groups.values().flat_map(|group| programs::of_group(&group.spec));
    let services = specs.data_services.values().flat_map(|service| programs::of_data_service(&service.spec));
    groups.chain(services).take(MOST).map(str::to_owned).collect()
}

/// Looks at them when others are wanted and every minute, and reads those that have changed.
pub fn follow(wanted: watch::Receiver<BTreeSet<String>>) -> watch::Receiver<Vec<ProgramStatus>> {
    let mut known = Known::default();
    look::follow(wanted, move |paths| known.look(paths))
}

/// What tells that a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp(file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec())
    }
}

/// Digests by path.
#[derive(Debug, Default)]
struct Known(BTreeMap<PathBuf, (Stamp, String)>);

impl Known {
    fn look(&mut self, paths: &BTreeSet<String>) -> Vec<ProgramStatus> {
        self.0.retain(|path, _| path.to_str().is_some_and(|path| paths.contains(path)));
        let one = |path: &String| match self.digest(PathBuf::from(path)) {
            Ok(digest) => ProgramStatus { path: path.clone(), digest: Some(digest), message: String::new() },
            Err(message) => ProgramStatus { path: path.clone(), digest: None, message: clip(&message) },
        };
        paths.iter().map(one).collect()
    }

    fn digest(&mut self, path: PathBuf) -> Result<String, String> {
        let say = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => format!("it can't be read: {error}"),
        };
        let facts = std::fs::metadata(&path).map_err(say)?;
        if !facts.is_file() {
            return Err("it is no file".to_owned());
        }
        if facts.mode() & 0o111 == 0 {
            return Err("it is not executable; chmod +x it".to_owned());
        }
        let stamp = Stamp::of(&facts);
        if let Some((of, digest)) = self.0.get(&path)
            && *of == stamp
        {
            return Ok(digest.clone());
        }
        let mut content = Sha256::new();
        File::open(&path).and_then(|mut file| io::copy(&mut file, &mut content)).map_err(say)?;
        let digest = format!("sha256:{:x}", content.finalize());
        self.0.insert(path, (stamp, digest.clone()));
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_known_by_its_content_and_what_is_wrong_with_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("start");
        let name = path.to_str().unwrap().to_owned();
        let (mut known, paths) = (Known::default(), BTreeSet::from([name.clone()]));
        let mut look = || known.look(&paths).remove(0);
        assert_eq!(look().message, "there is no such file");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(look().message, "it is not executable; chmod +x it");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // The digest of "abc" from FIPS 180-2.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let found = ProgramStatus { path: name, digest: Some(abc.into()), message: String::new() };
        assert_eq!(look(), found);
        assert_eq!(look(), found, "known");
        std::fs::write(&path, "abd").unwrap();
        assert_ne!(look().digest.as_deref(), Some(abc));
    }
}
