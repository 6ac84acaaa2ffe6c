//! A quorum server that depends on what it arbitrates decides nothing when it is needed (protocol-why D14). What can be
//! told of that without asking anybody: the host in its addresses.

use std::net::IpAddr;

use crate::{
    error::{ErrorKind, FieldError},
    v1::{FailoverGroupSpec, SubClusterSpec},
};

/// Addresses of the quorum server that can't be used: no URL, this machine itself, a server of the sub-cluster.
pub fn quorum_server(spec: &SubClusterSpec) -> Vec<FieldError> {
    let urls = spec.quorum.quorum_server.iter().flat_map(|server| &server.urls).enumerate();
    let problem = |url: &String| match host(url) {
        None => Some("it is no URL of a server, for example https://10.0.0.9:7443".to_owned()),
        Some(host) => of_the_servers(spec, host).map(|what| {
            format!("{what}; the quorum server has to go on without any server of the sub-cluster: use another machine")
        }),
    };
    urls.filter_map(|(i, url)| {
        let field = format!("spec.quorum.quorumServer.urls[{i}]");
        Some(FieldError::new(ErrorKind::Invalid, field, format!("{url:?}"), problem(url)?))
    })
    .collect()
}

/// Why a group of the sub-cluster and its quorum server can't be accepted together: the group holds the quorum server's
/// address, so that it moves, and is away, with what it arbitrates. The text names the group's resource.
pub fn quorum_server_of_group(spec: &SubClusterSpec, group: &FailoverGroupSpec) -> Option<String> {
    let hosts: Vec<IpAddr> = spec
        .quorum
        .quorum_server
        .iter()
        .flat_map(|server| &server.urls)
        .filter_map(|url| host(url)?.parse().ok())
        .collect();
    group.resources.iter().find_map(|resource| {
        let floating = resource.floating_ip.as_ref().map(|floating| floating.address.as_str());
        let given = floating.or(resource.virtual_ip.as_ref().map(|address| address.address.as_str()))?;
        let address: IpAddr = given.split('/').next()?.parse().ok()?;
        hosts.contains(&address).then(|| {
            format!(
                "resource {} holds {address}, the address of the sub-cluster's quorum server; the quorum server has to \
                 go on without the sub-cluster: use another machine, or another address for the group",
                resource.name
            )
        })
    })
}

fn of_the_servers(spec: &SubClusterSpec, host: &str) -> Option<String> {
    let address: Option<IpAddr> = host.parse().ok();
    if host.eq_ignore_ascii_case("localhost") || address.is_some_and(|a| a.is_loopback() || a.is_unspecified()) {
        return Some("on every server it is that server itself".to_owned());
    }
    if spec.servers.iter().any(|server| server.name.eq_ignore_ascii_case(host)) {
        return Some(format!("{host} is a server of the sub-cluster"));
    }
    let lans = spec.heartbeat.paths.iter().filter_map(|path| path.lan.as_ref());
    let endpoint =
        lans.flat_map(|lan| &lan.endpoints).find(|e| address.is_some() && e.address.parse().ok() == address)?;
    Some(format!("it is an address of server {}", endpoint.server))
}

/// The host of an `https` URL, without brackets.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = port.strip_prefix(':').or(port.is_empty().then_some("443"))?;
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    (!host.is_empty() && host.chars().all(sound) && port.parse::<u16>().is_ok_and(|p| p > 0)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_urls() {
        assert_eq!(host("https://witness:7443"), Some("witness"));
        assert_eq!(host("https://10.0.0.9"), Some("10.0.0.9"));
        assert_eq!(host("https://[2001:db8::1]:7443/x"), Some("2001:db8::1"));
        for wrong in
            ["http://w", "https://", "https://:7443", "https://w:0", "https://w:x", "https://a b", "https://u@w"]
        {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }
}
