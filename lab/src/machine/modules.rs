//! Kernel modules in the order in which they can be loaded. A module says itself what it needs, in its section `.modinfo`:
//! texts that end with a zero, of which `depends=` lists names with commas.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{Attempt, LabError, Result};

/// All modules of a kernel by name; none for what is built in. In names `-` and `_` are the same.
pub(super) struct Modules(BTreeMap<String, Option<PathBuf>>);

impl Modules {
    /// `directory`: /lib/modules/VERSION of a kernel.
    pub(super) fn of(directory: &Path) -> Result<Modules> {
        let list = directory.join("modules.builtin");
        let builtin = std::fs::read_to_string(&list).attempt(|| format!("reading {}", list.display()))?;
        let stem = |path: &Path| path.file_stem().map(|stem| plain(&stem.to_string_lossy()));
        let builtin = builtin.lines().filter_map(|line| stem(Path::new(line)));
        let mut found: BTreeMap<String, Option<PathBuf>> = builtin.map(|name| (name, None)).collect();
        let mut todo = vec![directory.join("kernel")];
        while let Some(directory) = todo.pop() {
            let entries = std::fs::read_dir(&directory).attempt(|| format!("reading {}", directory.display()))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko")
                    && let Some(name) = stem(&path)
                {
                    found.insert(name, Some(path));
                }
            }
        }
        Ok(Modules(found))
    }

    /// The files of these modules, and of what they need before them.
    pub(super) fn in_order(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.visit(&plain(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<PathBuf>) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.0.get(name).ok_or_else(|| LabError::Missing {
            what: format!("the kernel module {name}"),
            hint: "the machine's kernel has none of that name".into(),
        })?;
        let Some(path) = path else { return Ok(()) };
        let content = std::fs::read(path).attempt(|| format!("reading {}", path.display()))?;
        for needed in needs(&content) {
            self.visit(&plain(&needed), seen, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let text = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::needs;

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(needs(b"\x7fELF\0license=GPL\0depends=sunrpc,lockd\0name=nfsd\0"), ["sunrpc", "lockd"]);
        assert!(needs(b"\0license=GPL\0depends=\0").is_empty());
    }
}
