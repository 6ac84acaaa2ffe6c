//! What `exportfs -s` prints: a line per directory and client, `/srv/share  192.0.2.0/24(sync,fsid=1,rw,…)`. Names of
//! exports have no blanks here, see the plan; lines of others may have octal numbers for them and are taken as they are.

use std::path::PathBuf;

/// A directory exported to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) path: PathBuf,
    /// Network, host or other pattern.
    pub(super) client: String,
    pub(super) fsid: Option<String>,
}

pub(super) fn parse(text: &str) -> Result<Vec<Export>, String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(line).collect()
}

fn line(line: &str) -> Result<Export, String> {
    let strange = || format!("a line of exportfs is not understood: {line:?}");
    let (path, rest) = line.trim().split_once(char::is_whitespace).ok_or_else(strange)?;
    let (client, options) = rest.trim().split_once('(').ok_or_else(strange)?;
    let options = options.trim_end().strip_suffix(')').ok_or_else(strange)?;
    let fsid = options.split(',').find_map(|option| option.strip_prefix("fsid=")).map(str::to_owned);
    Ok(Export { path: path.into(), client: client.to_owned(), fsid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exportfs_prints_is_read() {
        let text = "/srv/share  192.0.2.0/24(sync,wdelay,hide,no_subtree_check,fsid=7,sec=sys,rw,secure,root_squash,no_all_squash)\n\
                    /srv/other  *(sync,wdelay,hide,no_subtree_check,sec=sys,ro,secure,root_squash,no_all_squash)\n";
        let found = parse(text).unwrap();
        let share = Export { path: "/srv/share".into(), client: "192.0.2.0/24".into(), fsid: Some("7".into()) };
        let other = Export { path: "/srv/other".into(), client: "*".into(), fsid: None };
        assert_eq!(found, [share, other]);
        assert!(parse("nonsense\n").unwrap_err().contains("nonsense"));
    }
}
