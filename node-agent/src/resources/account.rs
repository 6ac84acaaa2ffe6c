//! Users and groups of this server, by name or number, and what a program of theirs has in its environment.

use std::ffi::CString;

use nix::unistd::{Group, User, getgrouplist};

use crate::spawn::Identity;

/// A user as programs need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Numbers; none for root with root's own group: nothing has to be changed then.
    pub identity: Option<Identity>,
    /// `HOME`, `USER`, `LOGNAME`, `SHELL`.
    pub environment: Vec<(String, String)>,
}

/// Looks a user up, with the supplementary groups that it has on this server. A number needs no entry in the user
/// database.
///
/// # Errors
/// A sentence that names what doesn't exist.
pub fn find(user: &str, group: Option<&str>) -> Result<Account, String> {
    let entry = match user.parse::<u32>() {
        Ok(number) => User::from_uid(number.into()),
        Err(_) => User::from_name(user),
    }
    .map_err(|e| format!("runAs.user: {user:?} can't be looked up: {e}"))?;
    let (uid, own_gid) = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => (entry.uid.as_raw(), entry.gid.as_raw()),
        (None, Ok(number)) => (number, number),
        (None, Err(_)) => {
            return Err(format!("runAs.user: there is no user {user:?} on this server; create it or name another"));
        }
    };
    let gid = match group {
        None => own_gid,
        Some(group) => match group.parse::<u32>() {
            Ok(number) => number,
            Err(_) => Group::from_name(group)
                .map_err(|e| format!("runAs.group: {group:?} can't be looked up: {e}"))?
                .ok_or_else(|| {
                    format!("runAs.group: there is no group {group:?} on this server; create it or name another")
                })?
                .gid
                .as_raw(),
        },
    };
    let groups = match &entry {
        Some(entry) => {
            let name = CString::new(entry.name.clone()).map_err(|e| e.to_string())?;
            getgrouplist(&name, gid.into())
                .map_err(|e| format!("runAs.user: groups of {user:?} can't be looked up: {e}"))?
                .into_iter()
                .map(|g| g.as_raw())
                .collect()
        }
        None => vec![gid],
    };
    let mut environment = Vec::new();
    if let Some(entry) = &entry {
        environment.push(("USER".to_owned(), entry.name.clone()));
        environment.push(("LOGNAME".to_owned(), entry.name.clone()));
        environment.push(("HOME".to_owned(), entry.dir.display().to_string()));
        environment.push(("SHELL".to_owned(), entry.shell.display().to_string()));
    }
    let identity = (uid != 0 || gid != 0).then_some(Identity { uid, gid, groups });
    Ok(Account { identity, environment })
}
