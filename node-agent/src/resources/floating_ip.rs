//! `floatingIP`: an address in the servers' subnet that goes with the group.
//!
//! It is refused while somebody else answers for it. The network is told at once where it is now, and again by a small
//! process in the resource's control group, so that a start doesn't wait for the repetitions.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::Action;
use holdfast_core::time::Instant;
use nix::libc;
use socket2::Socket;

use super::neighbour::Announcer;
use super::netlink::{Address, Link, Netlink};
use super::plan::{FloatingIpPlan, Interface};
use super::{Job, Verdict, neighbour};
use crate::{clock, spawn};

const KILL_WAIT: Duration = Duration::from_secs(2);
/// An address that this server gave up so short a while ago is taken back without asking who has it, as when a group is
/// restarted in place: somebody who took it in between would have collided just as unasked had it never been given up.
const JUST_LEFT: Duration = Duration::from_secs(1);

/// Carries an operation out.
pub fn run(plan: &FloatingIpPlan, action: Action, job: &Job) -> Verdict {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return Verdict::unknown(format!("the kernel's addresses can't be read: {error}")),
    };
    let result = match action {
        Action::Probe | Action::Monitor => look(plan, &mut netlink),
        Action::Start => start(plan, &mut netlink, job),
        Action::Stop => stop(plan, &mut netlink, job),
    };
    result.unwrap_or_else(|error| Verdict::unknown(format!("the kernel's addresses can't be read or changed: {error}")))
}

/// The interface that is meant; else why this server doesn't have it.
pub(crate) fn interface(wanted: &Interface, netlink: &mut Netlink) -> io::Result<Result<Link, String>> {
    let links = netlink.links()?;
    Ok(match wanted {
        Interface::Named(name) => links.iter().find(|l| l.name == *name).cloned().ok_or_else(|| {
            format!(
                "this server has no interface {name:?}; it has {}: name one of these, or bring it back",
                names(&links)
            )
        }),
        Interface::Holding(endpoint) => {
            let addresses = netlink.addresses()?;
            let index = addresses.iter().find(|a| a.address == *endpoint).map(|a| a.index);
            index.and_then(|index| links.into_iter().find(|l| l.index == index)).ok_or_else(|| {
                format!("no interface of this server has {endpoint}, its endpoint of the path; configure the network")
            })
        }
    })
}

fn names(links: &[Link]) -> String {
    links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn look(plan: &FloatingIpPlan, netlink: &mut Netlink) -> io::Result<Verdict> {
    let Some(found) = netlink.addresses()?.into_iter().find(|a| a.address == plan.address) else {
        return Ok(Verdict::stopped().with(format!("{} is not on this server", plan.address)));
    };
    let link = match interface(&plan.interface, netlink)? {
        Ok(link) => link,
        Err(problem) => return Ok(Verdict::failed(problem)),
    };
    Ok(misplaced(plan, found, &link).or_else(|| down(&link)).map_or_else(Verdict::running, Verdict::failed))
}

fn misplaced(plan: &FloatingIpPlan, found: Address, link: &Link) -> Option<String> {
    if found.index != link.index {
        let (address, index) = (plan.address, found.index);
        return Some(format!(
            "{address} is on interface number {index} (`ip link`) instead of {}; remove it there",
            link.name
        ));
    }
    (found.prefix != plan.prefix).then(|| {
        let (address, name) = (plan.address, &link.name);
        format!("{address} has prefix length {} instead of {} on {name}; remove it there", found.prefix, plan.prefix)
    })
}

/// Why nothing goes over an interface, if so.
pub(crate) fn down(link: &Link) -> Option<String> {
    if !link.is_up() {
        return Some(format!("interface {0} is down; `ip link set {0} up`, and see who took it down", link.name));
    }
    (!link.has_carrier()).then(|| format!("interface {} has no carrier; look at its cable, switch and bond", link.name))
}

fn start(plan: &FloatingIpPlan, netlink: &mut Netlink, job: &Job) -> io::Result<Verdict> {
    let link = match interface(&plan.interface, netlink)? {
        Ok(link) => link,
        Err(problem) => return Ok(Verdict::failed(problem)),
    };
    if let Some(problem) = down(&link) {
        return Ok(Verdict::failed(problem));
    }
    let mut probe = None;
    match netlink.addresses()?.into_iter().find(|a| a.address == plan.address) {
        Some(found) => {
            if let Some(problem) = misplaced(plan, found, &link) {
                return Ok(Verdict::failed(problem));
            }
        }
        None => {
            let asked = if just_left(plan.address, job) { Ok(None) } else { conflict(plan, &link)? };
            match asked {
                Ok(socket) => probe = socket,
                Err(problem) => return Ok(Verdict::contested(problem)),
            }
            let what = Address { index: link.index, address: plan.address, prefix: plan.prefix };
            if let Err(error) = netlink.add(what) {
                let (address, prefix, name) = (plan.address, plan.prefix, &link.name);
                let what = format!(
                    "{address}/{prefix} can't be added to {name}: {error}; the kernel's log (`dmesg`) says more"
                );
                return Ok(Verdict::failed(what));
            }
            if !netlink.addresses()?.contains(&what) {
                let (address, name) = (plan.address, &link.name);
                let what =
                    format!("{address} was added, but is not on {name}; does another program manage its addresses?");
                return Ok(Verdict::failed(what));
            }
        }
    }
    let Some(mac) = link.mac.filter(|_| link.has_neighbours()) else { return Ok(Verdict::running()) };
    let announcer = Announcer::open(link.index, mac, plan.address)?;
    let told = announcer.announce();
    let repeated = detach_announcer(plan, &link, announcer, probe, job);
    Ok(match (told, repeated) {
        (Ok(()), Ok(())) => Verdict::running(),
        // The address is there and answers; who has the old neighbour in mind finds out later.
        (Err(error), _) => Verdict::running().with(format!("the address could not be announced: {error}")),
        (_, Err(error)) => Verdict::running().with(format!("its announcement will not be repeated: {error}")),
    })
}

/// Whether the address is free: the socket that asked, if it had to be asked, or who has it.
fn conflict(plan: &FloatingIpPlan, link: &Link) -> io::Result<Result<Option<Socket>, String>> {
    let Some(mac) = link.mac.filter(|_| link.has_neighbours() && !plan.take) else { return Ok(Ok(None)) };
    let (found, socket) = neighbour::conflict(link.index, mac, plan.address)?;
    let Some(other) = found else { return Ok(Ok(Some(socket))) };
    Ok(Err(format!(
        "{} is used by somebody else on {}: {} answers for it; remove it there, or set floatingIP.onConflict: Take",
        plan.address,
        link.name,
        neighbour::name(other)
    )))
}

fn detach_announcer(
    plan: &FloatingIpPlan,
    link: &Link,
    announcer: Announcer,
    probe: Option<Socket>,
    job: &Job,
) -> io::Result<()> {
    let cgroup = job.cgroup();
    // One of an earlier start; two would only be noise.
    cgroup.kill(KILL_WAIT).map_err(io::Error::other)?;
    let directory = cgroup.open().map_err(io::Error::other)?;
    let (page, plan, index) = (job.page.clone(), plan.clone(), link.index);
    let sockets = std::iter::once(announcer.socket()).chain(probe.as_ref()).map(AsRawFd::as_raw_fd);
    let keep: Vec<_> = sockets.collect();
    let mac = link.mac.unwrap_or_default();
    spawn::fork_into(directory.as_fd(), &keep, move || {
        let _ = nix::sys::prctl::set_name(c"holdfast-arp");
        // Only as long as there is authority: the guard kills this process, this is for when the guard is dead, too.
        let authority = || clock::now() < page.deadline().end;
        // Closed behind the first pause, so that it is here and not in the start that the kernel takes its time.
        let mut inherited = Some((announcer, probe));
        announce_on(&plan, authority, || {
            drop(inherited.take());
            if !present(plan.address, index) {
                return false;
            }
            let _ = Announcer::open(index, mac, plan.address).and_then(|a| a.announce());
            true
        });
    })
    .map(|_| ())
}

/// Repeats the announcement as the plan says, until `announce` or the authority ends it.
fn announce_on(plan: &FloatingIpPlan, authority: impl Fn() -> bool, mut announce: impl FnMut() -> bool) {
    let mut sent: u32 = 1;
    loop {
        let early = sent < u32::from(plan.announce_count);
        let pause = if early { plan.announce_interval } else { plan.announce_repeat };
        if pause.is_zero() && !early {
            return;
        }
        std::thread::sleep(pause);
        if !authority() || !announce() {
            return;
        }
        sent = sent.saturating_add(1);
    }
}

fn present(address: IpAddr, index: u32) -> bool {
    Netlink::open()
        .and_then(|mut netlink| netlink.addresses())
        .is_ok_and(|all| all.iter().any(|a| a.address == address && a.index == index))
}

/// What says that the address was removed from this server, and when (CLOCK_BOOTTIME, ns).
fn left_file(job: &Job) -> PathBuf {
    job.state.join("left")
}

fn just_left(address: IpAddr, job: &Job) -> bool {
    let text = fs::read_to_string(left_file(job)).unwrap_or_default();
    let left = text.split_once(' ').filter(|(what, _)| *what == address.to_string());
    let at = left.and_then(|(_, at)| at.parse().ok()).map(Instant);
    let now = clock::now();
    at.is_some_and(|at| at <= now && now.since(at) < JUST_LEFT)
}

/// A failure costs the next start a question, nothing else.
fn note_leaving(address: IpAddr, job: &Job) {
    let _ = fs::create_dir_all(&job.state);
    let _ = fs::write(left_file(job), format!("{address} {}", clock::now().0));
}

fn stop(plan: &FloatingIpPlan, netlink: &mut Netlink, job: &Job) -> io::Result<Verdict> {
    let cgroup = job.cgroup();
    if let Err(error) = cgroup.kill(KILL_WAIT.min(job.left())) {
        return Ok(Verdict::unknown(error.to_string()));
    }
    cgroup.remove();
    match netlink.delete_everywhere(plan.address) {
        Ok(from) => {
            if !from.is_empty() {
                note_leaving(plan.address, job);
            }
            Ok(Verdict::stopped())
        }
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Ok(Verdict::failed(format!("{} can't be removed: {error}; the agent needs CAP_NET_ADMIN", plan.address)))
        }
        Err(error) => {
            let address = plan.address;
            let what = format!("{address} can't be removed: {error}; `ip address show to {address}` shows where it is");
            Ok(Verdict::failed(what))
        }
    }
}
