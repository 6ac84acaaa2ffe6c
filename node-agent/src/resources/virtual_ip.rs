//! `virtualIP`: an address outside of the servers' subnets, on the loopback interface, found by routing.
//!
//! A route to it in the kernel's main table, marked as ours, is what BIRD learns and announces; FRR takes the address itself. So
//! the announcement ends with them: whoever takes them away, the guard too, needs no answer from the daemon. The daemon is
//! asked only whether it announces.

mod bird;
mod frr;

use std::io;
use std::time::{Duration, Instant};

use holdfast_api::v1::Router;
use holdfast_core::Action;

use super::netlink::{Address, Netlink};
use super::plan::VirtualIpPlan;
use super::{Job, Verdict};

/// Longest wait for one answer of the daemon.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the daemon to learn what is new in the kernel, of which it is told at once.
const LEARNING: Duration = Duration::from_secs(3);
/// The same for FRR, whose OSPF waits up to five seconds before it announces anew what it has just withdrawn.
const LEARNING_OF_FRR: Duration = Duration::from_secs(8);
/// Longest wait for the daemon to withdraw what is gone from the kernel.
const WITHDRAWAL: Duration = Duration::from_secs(2);
const LOOPBACK: &str = "lo";

/// What a daemon makes of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It uses it (and hands it to the protocol, if one was named).
    Announced,
    /// Not, and why, as far as it shows.
    Not(String),
}

/// Carries an operation out.
pub fn run(plan: &VirtualIpPlan, action: Action, job: &Job) -> Verdict {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return Verdict::unknown(format!("the kernel's addresses can't be read: {error}")),
    };
    let result = match action {
        Action::Probe => probe(plan, &mut netlink),
        Action::Monitor => check(plan, &mut netlink, job),
        Action::Start => start(plan, &mut netlink, job),
        Action::Stop => stop(plan, &mut netlink, job),
    };
    result.unwrap_or_else(|error| Verdict::unknown(format!("the kernel's addresses and routes: {error}")))
}

/// The interface, which every system has.
fn loopback(netlink: &mut Netlink) -> io::Result<u32> {
    let found = netlink.links()?.into_iter().find(|link| link.name == LOOPBACK);
    let link = found.ok_or_else(|| io::Error::other(format!("there is no interface {LOOPBACK}")))?;
    if link.is_up() { Ok(link.index) } else { Err(io::Error::other(format!("interface {LOOPBACK} is down"))) }
}

/// Whether the address and the route are there.
fn present(plan: &VirtualIpPlan, netlink: &mut Netlink) -> io::Result<(bool, bool)> {
    let address = netlink.addresses()?.iter().any(|found| found.address == plan.address);
    Ok((address, !netlink.host_routes(plan.address)?.is_empty()))
}

fn probe(plan: &VirtualIpPlan, netlink: &mut Netlink) -> io::Result<Verdict> {
    Ok(match present(plan, netlink)? {
        (true, true) => Verdict::running(),
        (false, false) => Verdict::stopped(),
        // It must not be started elsewhere beside what is here.
        (true, false) => Verdict::unknown(format!("{} is here without a route of ours to it", plan.address)),
        (false, true) => Verdict::unknown(format!("a route to {} is here without the address", plan.address)),
    })
}

/// What a person does about a part that is gone.
const REMOVED: &str =
    "somebody removed it, which a program that manages the network may do: let it leave the address alone";

fn check(plan: &VirtualIpPlan, netlink: &mut Netlink, job: &Job) -> io::Result<Verdict> {
    Ok(match present(plan, netlink)? {
        (true, true) => match announced(plan, ANSWER.min(job.left())) {
            Ok(Known::Announced) => Verdict::running(),
            Ok(Known::Not(why)) => Verdict::failed(why),
            Err(problem) => Verdict::failed(unasked(&problem)),
        },
        (false, false) => Verdict::stopped(),
        (true, false) => Verdict::failed(format!("the route to {} is gone from this server; {REMOVED}", plan.address)),
        (false, true) => Verdict::failed(format!("{} is gone from {LOOPBACK}; {REMOVED}", plan.address)),
    })
}

fn announced(plan: &VirtualIpPlan, limit: Duration) -> Result<Known, String> {
    let known = match plan.router {
        Router::Bird => bird::known,
        Router::Frr => frr::known,
    };
    known(&plan.socket, plan.address, plan.protocol.as_deref(), limit)
}

/// Why the daemon could not be asked, and what to look at.
fn unasked(problem: &str) -> String {
    format!("{problem}; is it running, and is virtualIP.socket right?")
}

fn start(plan: &VirtualIpPlan, netlink: &mut Netlink, job: &Job) -> io::Result<Verdict> {
    // Asked first: what nobody would announce is not set up.
    if let Err(problem) = announced(plan, ANSWER.min(job.left())) {
        return Ok(Verdict::failed(unasked(&problem)));
    }
    let index = loopback(netlink)?;
    let prefix = if plan.address.is_ipv4() { 32 } else { 128 };
    let what = Address { index, address: plan.address, prefix };
    let found = netlink.addresses()?.into_iter().find(|found| found.address == plan.address);
    match found {
        Some(found) if found != what => {
            return Ok(Verdict::failed(format!(
                "{}/{} is on interface number {} already, instead of {LOOPBACK} with /{prefix}; remove it there first",
                plan.address, found.prefix, found.index
            )));
        }
        Some(_) => {}
        None => {
            if let Err(error) = netlink.add(what) {
                let address = plan.address;
                let what = format!(
                    "{address}/{prefix} can't be added to {LOOPBACK}: {error}; the kernel's log (`dmesg`) says more"
                );
                return Ok(Verdict::failed(what));
            }
        }
    }
    let routes = netlink.host_routes(plan.address)?;
    if !routes.iter().any(|route| route.index == index && plan.metric.is_none_or(|metric| metric == route.metric)) {
        // One of another metric is from a specification of before.
        netlink.delete_host_routes(plan.address)?;
        if let Err(error) = netlink.add_host_route(plan.address, index, plan.metric) {
            let address = plan.address;
            let what = format!(
                "a route to {address} can't be added: {error}; `ip route show table all {address}` shows what is there"
            );
            return Ok(Verdict::failed(what));
        }
    }
    if present(plan, netlink)? != (true, true) {
        let address = plan.address;
        return Ok(Verdict::failed(format!("{address} and the route to it were added, and are not there; {REMOVED}")));
    }
    let learning = if plan.router == Router::Bird { LEARNING } else { LEARNING_OF_FRR };
    let until = Instant::now() + learning.min(job.left().mul_f64(0.8));
    loop {
        let answer = announced(plan, ANSWER.min(job.left()));
        let problem = match answer {
            Ok(Known::Announced) => return Ok(Verdict::running()),
            Ok(Known::Not(why)) => why,
            Err(problem) => problem,
        };
        if Instant::now() + PAUSE >= until {
            return Ok(Verdict::failed(problem));
        }
        std::thread::sleep(PAUSE);
    }
}

fn stop(plan: &VirtualIpPlan, netlink: &mut Netlink, job: &Job) -> io::Result<Verdict> {
    // The announcement first: what still comes in is answered meanwhile. FRR's ends with the address only.
    let routes = netlink.delete_host_routes(plan.address)?;
    if plan.router == Router::Frr {
        netlink.delete_everywhere(plan.address)?;
    }
    let said = if routes > 0 { withdrawn(plan, job) } else { String::new() };
    netlink.delete_everywhere(plan.address)?;
    Ok(Verdict::stopped().with(said))
}

/// Waits until the daemon has seen that the route is gone; a sentence if it goes on.
fn withdrawn(plan: &VirtualIpPlan, job: &Job) -> String {
    let until = Instant::now() + WITHDRAWAL.min(job.left().mul_f64(0.5));
    loop {
        match announced(plan, ANSWER.min(job.left().mul_f64(0.5))) {
            Ok(Known::Announced) if Instant::now() < until => std::thread::sleep(PAUSE),
            Ok(Known::Announced) => {
                let daemon = if plan.router == Router::Bird { "BIRD" } else { "FRR" };
                return format!("{daemon} still announces {}, although the route is gone", plan.address);
            }
            // Nobody who announces it, or nobody who could be asked: the address goes all the same.
            Ok(Known::Not(_)) | Err(_) => return String::new(),
        }
    }
}
