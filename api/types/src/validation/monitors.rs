//! What a monitor says in languages of its own: regular expressions, addresses; and the resources that it names.

use crate::{
    error::{ErrorKind, FieldError},
    v1::{FailoverGroupSpec, HttpCheck, Monitor, MonitorAction, MonitorScope, Resource, SubClusterSpec, TcpCheck},
};

/// What is wrong with the monitors of a group beyond their schema.
pub fn validate_monitors(spec: &FailoverGroupSpec) -> Vec<FieldError> {
    let all = spec.monitors.iter().enumerate();
    all.flat_map(|(i, monitor)| one(monitor, &spec.resources, &format!("spec.monitors[{i}]"))).collect()
}

/// What is wrong with the monitors of a sub-cluster's servers beyond their schema.
pub fn validate_server_monitors(spec: &SubClusterSpec) -> Vec<FieldError> {
    let all = spec.monitors.iter().enumerate().map(|(i, monitor)| (format!("spec.monitors[{i}]"), monitor));
    let wrong = |(at, monitor): (String, &Monitor)| {
        let mut errors = one(monitor, &[], &at);
        errors.extend(unknown_place(monitor, spec, &at));
        if monitor.scope != MonitorScope::Online {
            let message = "monitors of a sub-cluster run on every server; remove scope, which is for those of groups";
            errors.push(FieldError::new(ErrorKind::Invalid, format!("{at}.scope"), monitor.scope.to_string(), message));
        }
        errors
    };
    all.flat_map(wrong).collect()
}

/// What a monitor names of a sub-cluster and that does not have it: a LAN path, a disk, the area of a disk.
pub fn unknown_place(monitor: &Monitor, spec: &SubClusterSpec, at: &str) -> Option<FieldError> {
    let wrong = |field: &str, found: &str, message: String| {
        Some(FieldError::new(ErrorKind::Invalid, format!("{at}.{field}"), format!("{found:?}"), message))
    };
    if let Some(path) = monitor.link.as_ref().and_then(|link| link.path.as_ref()) {
        let lans = spec.heartbeat.paths.iter().filter(|path| path.lan.is_some());
        let lans: Vec<&String> = lans.map(|path| &path.name).collect();
        if !lans.contains(&path) {
            return wrong("link.path", path, format!("the sub-cluster has no such LAN path; {}", list(&lans)));
        }
    }
    let check = monitor.disk_io.as_ref()?;
    let name = check.disk.as_ref()?;
    let Some(disk) = spec.disks.iter().find(|disk| disk.name == *name) else {
        let disks: Vec<&String> = spec.disks.iter().map(|disk| &disk.name).collect();
        return wrong("diskIO.disk", name, format!("the sub-cluster has no such disk; {}", list(&disks)));
    };
    if check.write && disk.area.is_none() {
        return wrong(
            "diskIO.write",
            name,
            "the disk has no area to write to; give it one, or remove write".to_owned(),
        );
    }
    None
}

fn one(monitor: &Monitor, resources: &[Resource], at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, found: &str, message: String| {
        errors.push(FieldError::new(ErrorKind::Invalid, format!("{at}.{field}"), format!("{found:?}"), message));
    };
    let exec = monitor.exec.as_ref().and_then(|check| check.output.as_ref()).map(|pattern| ("exec.output", pattern));
    let http = monitor.http.as_ref().and_then(|check| check.body.as_ref()).map(|pattern| ("http.body", pattern));
    let process = monitor.process.as_ref().and_then(|check| check.pattern.as_ref());
    let process = process.map(|pattern| ("process.pattern", pattern));
    let journal = monitor.journal.as_ref().map(|check| ("journal.match", &check.match_));
    for (field, pattern) in exec.into_iter().chain(http).chain(process).chain(journal) {
        if let Err(error) = regex::Regex::new(pattern) {
            // The library draws the pattern over several lines; the last one says what is wrong.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            wrong(field, pattern, format!("is no regular expression: {reason}"));
        }
    }
    if let Some(check) = &monitor.http
        && let Err(problem) = check.target()
    {
        wrong("http.url", &check.url, problem);
    }
    let plain = monitor.http.as_ref().filter(|check| !check.is_tls());
    if let Some(secret) = plain.and_then(|check| check.ca_secret.as_ref()) {
        wrong("http.caSecret", secret, "authorities are for https:// only; write the url so, or remove it".to_owned());
    }
    if let Some(check) = &monitor.tcp
        && let Err(problem) = check.target()
    {
        wrong("tcp.address", &check.address, problem);
    }
    if let Some(check) = &monitor.process {
        let (min, max) = (check.at_least(), check.max);
        if max.is_some_and(|max| max < min) {
            let message = format!("is less than min, {min}, so that no number would do; set min, too");
            wrong("process.max", &max.unwrap_or_default().to_string(), message);
        } else if min == 0 && max.is_none() {
            wrong("process.min", "0", "without max any number would do; give max, or a min of 1 or more".to_owned());
        }
        let known = named(resources, |resource| resource.process.is_some());
        if let Some(name) = check.resource.as_ref().filter(|name| !known.contains(name)) {
            wrong("process.resource", name, format!("is no process resource of the group; {}", list(&known)));
        }
    }
    if let Some(check) = &monitor.icmp {
        if usize::from(check.min_reachable) > check.targets.len() {
            let message = format!("there are only {} targets; give more of them, or ask for less", check.targets.len());
            wrong("icmp.minReachable", &check.min_reachable.to_string(), message);
        }
        for target in check.targets.iter().filter(|target| !is_host(target)) {
            wrong(
                "icmp.targets",
                target,
                "is neither an address nor the name of a host, without port or URL".to_owned(),
            );
        }
    }
    if let Some(check) = monitor.disk_io.as_ref().filter(|check| check.write && check.disk.is_none()) {
        let message = "only the area of a shared disk is written to; name the disk by disk, or remove write";
        wrong("diskIO.device", check.device.as_deref().unwrap_or_default(), message.to_owned());
    }
    if let Some(check) = &monitor.address {
        let known = named(resources, |resource| resource.floating_ip.is_some() || resource.virtual_ip.is_some());
        if !known.contains(&&check.resource) {
            let message = format!("is no floatingIP or virtualIP resource of the group; {}", list(&known));
            wrong("address.resource", &check.resource, message);
        }
    }
    if monitor.scope == MonitorScope::Everywhere {
        let here = "with scope Everywhere it would be looked for on servers that do not have it; use scope Online";
        if matches!(monitor.action, MonitorAction::Restart | MonitorAction::Stop) {
            let message = "acts only where the group runs; use scope Online, or Failover, FailoverAll or Report";
            wrong("action", monitor.action.as_str(), message.to_owned());
        }
        if let Some(name) = monitor.process.as_ref().and_then(|check| check.resource.as_ref()) {
            wrong("process.resource", name, here.to_owned());
        }
        if let Some(check) = &monitor.address {
            wrong("address.resource", &check.resource, here.to_owned());
        }
    }
    if let Some(resource) = monitor.resource.as_ref().filter(|_| monitor.action != MonitorAction::Restart) {
        let message = "only action Restart acts on a resource; remove it, or use action Restart";
        wrong("resource", resource, message.to_owned());
    }
    errors
}

/// Names of the resources of a kind.
fn named(resources: &[Resource], kind: impl Fn(&Resource) -> bool) -> Vec<&String> {
    resources.iter().filter(|resource| kind(resource)).map(|resource| &resource.name).collect()
}

fn list(known: &[&String]) -> String {
    if known.is_empty() {
        return "it has none".to_owned();
    }
    format!("it has {}", known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", "))
}

/// An address, one of a link with its interface (fe80::1%eth0), or a name.
fn is_host(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    address.parse::<std::net::IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(of_name))
}

/// Where a check connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// 1..65535.
    pub port: u16,
}

impl TcpCheck {
    /// Where it connects to.
    ///
    /// # Errors
    /// What is wrong with the address and what to write.
    pub fn target(&self) -> Result<Target, String> {
        let advice = "write host and port, such as 192.0.2.10:5432, db.example:5432 or [2001:db8::10]:5432";
        let (host, port) = self.address.rsplit_once(':').ok_or(advice)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(format!("an IPv6 address stands in brackets; {advice}"));
        }
        let host = bare.unwrap_or(host);
        match port.parse::<u16>() {
            Ok(port @ 1..) if !host.is_empty() => Ok(Target { host: host.to_owned(), port }),
            _ => Err(format!("the port is 1..65535, the host not empty; {advice}")),
        }
    }
}

impl HttpCheck {
    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// Where it connects to, and what it asks for there: path and query.
    ///
    /// # Errors
    /// What is wrong with the URL and what to write.
    pub fn target(&self) -> Result<(Target, String), String> {
        let advice = "write it like http://192.0.2.10:8080/healthz";
        let uri: http::Uri = self.url.parse().map_err(|e| format!("is no URL ({e}); {advice}"))?;
        let authority = uri.authority().ok_or_else(|| format!("names no host; {advice}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("a user or password can't be given; {advice}"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
            None if uri.scheme_str() == Some("https") => 443,
            None => 80,
            Some(port) => match port.parse::<u16>() {
                Ok(port @ 1..) => port,
                _ => return Err(format!("the port is 1..65535, not {port:?}; {advice}")),
            },
        };
        if host.is_empty() {
            return Err(format!("names no host; {advice}"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok((Target { host, port }, if path.is_empty() { "/" } else { path }.to_owned()))
    }
}
