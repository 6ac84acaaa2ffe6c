//! Names of systemd units.

/// What is wrong with the name of a unit for a `systemd` resource, and what to write; none if it is fine.
///
/// Only services: of a socket, timer, path or target the processes belong to other units, so nobody could end them when the
/// server's time is over. Names as in systemd.unit(5), at most 255 characters.
pub fn unit_problem(unit: &str) -> Option<String> {
    let Some(name) = unit.strip_suffix(".service") else {
        return Some(match unit.rsplit_once('.') {
            Some((_, "mount" | "automount")) => "only services can be used; for a mount use filesystem".to_owned(),
            Some((_, "socket" | "timer" | "path" | "target" | "slice" | "scope" | "swap" | "device")) => {
                "only services can be used; name the service behind it".to_owned()
            }
            _ => format!("write the whole name of a service, as {unit}.service"),
        });
    };
    let strange = name.chars().find(|c| !c.is_ascii_alphanumeric() && !":-_.\\@".contains(*c));
    if let Some(strange) = strange {
        return Some(format!("{strange:?} can't be in the name of a unit; systemd-escape tells how to write it"));
    }
    if unit.len() > 255 {
        return Some("it is longer than 255 characters".to_owned());
    }
    match name.split_once('@') {
        Some((_, "")) => Some(format!("it is a template; name an instance of it, as {name}NAME.service")),
        Some(("", _)) => Some("nothing stands before the @".to_owned()),
        Some((_, instance)) if instance.contains('@') => Some("more than one @ can't be in the name".to_owned()),
        None if name.is_empty() => Some("nothing stands before .service".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_taken_and_everything_else_gets_advice() {
        for fine in ["nginx.service", "postgresql@15-main.service", "a\\x2db.service", "_x:y.z.service"] {
            assert_eq!(unit_problem(fine), None, "{fine}");
        }
        for (wrong, advice) in [
            ("nginx", "as nginx.service"),
            ("web-1.2", "as web-1.2.service"),
            ("srv-data.mount", "use filesystem"),
            ("docker.socket", "the service behind it"),
            ("getty@.service", "as getty@NAME.service"),
            ("../../x.service", "'/' can't be"),
            ("a b.service", "' ' can't be"),
            (".service", "before .service"),
            ("a@b@c.service", "more than one @"),
        ] {
            let problem = unit_problem(wrong).unwrap_or_default();
            assert!(problem.contains(advice), "{wrong}: {problem}");
        }
    }
}
