//! `holdfast quorum-server`: the API server with nothing but locks, for any number of sub-clusters, on a machine outside
//! of them. The store is the embedded one, because it must not depend on anything else.

use std::net::IpAddr;

use holdfast_apiserver::AGENT_LIFE;

use crate::args::{PlaceArgs, QuorumServerArgs, ServerArgs, StoreArgs};
use crate::commands::server::{self, Parts};
use crate::errors::Result;
use crate::printer::Printer;

/// Runs it until it is told to stop.
///
/// # Errors
/// As `holdfast apiserver`.
pub(crate) async fn run(args: QuorumServerArgs, printer: Printer) -> Result {
    let QuorumServerArgs { data_dir, listen, mut sans } = args;
    if listen.ip().is_unspecified() {
        sans.extend(own_addresses()?.iter().map(IpAddr::to_string));
    }
    let place = PlaceArgs { data_dir, store: StoreArgs::embedded(), listen, sans };
    // It serves no requests for certificates, so none has a life.
    let args = ServerArgs { place, agent_certificate_life: AGENT_LIFE };
    server::run(args, Parts::Locks, printer).await
}

/// The addresses under which agents may reach this machine now.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(anyhow::Error::from)?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    // A link-local address needs a zone, which no certificate can name.
    let usable = |a: &IpAddr| !a.is_loopback() && !matches!(a, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80);
    Ok(addresses.filter(usable).collect())
}
