//! A lab: networks, shared disks and hosts on one machine, and the faults that need more than one of them.
//! Does not know Holdfast's own objects; `cluster` builds a sub-cluster in a lab.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::Cgroup;
use crate::devices::{Devices, Resetter};
use crate::disk::{Disk, DiskConfig};
use crate::error::{Attempt, LabError, Result};
use crate::host::{CutMoment, Host, Plan, Wiring};
use crate::network::{Cable, address_commands, bridge_commands, bridge_name, plug};
use crate::serial::{LineState, SerialLine};
use crate::shell::{boottime_ns, run};
use crate::spec::{NodeSpec, ServiceSpec};
use crate::state;

/// Distinguishes labs of one process.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A cable of a host.
#[derive(Debug, Clone)]
pub struct CableConfig {
    /// The network that it leads to.
    pub network: String,
    /// Name of the interface inside the host, at most 15 characters; the network's name if `None`.
    pub interface: Option<String>,
    /// Addresses with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// An end of a serial line at a host.
#[derive(Debug, Clone)]
pub struct SerialConfig {
    /// The line.
    pub line: String,
    /// Which end, 0 or 1.
    pub end: usize,
    /// Name of the device inside the host.
    pub device: PathBuf,
}

/// How a host is wired.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Its cables.
    pub networks: Vec<CableConfig>,
    /// Disks: name, and the device names inside the host that lead to it.
    pub disks: Vec<(String, Vec<PathBuf>)>,
    /// Whether the lab stands between the host and its disks, see [`Lab::set_disk`].
    pub faulty_disks: bool,
    /// Name of its watchdog's device inside the host, if it has one.
    pub watchdog: Option<PathBuf>,
    /// Serial lines that end here.
    pub serials: Vec<SerialConfig>,
    /// Programs that the host's first process supervises, all down at first.
    pub services: Vec<ServiceSpec>,
}

/// Networks, disks and hosts. Dropping it takes everything down.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    cgroup: Cgroup,
    switch: Arc<Host>,
    parts: Mutex<Parts>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Parts {
    networks: Vec<String>,
    disks: Vec<Disk>,
    serials: Vec<SerialLine>,
    // ORDER: its thread ends before the devices that it looks at.
    resetter: Option<Arc<Resetter>>,
    devices: Option<Arc<Devices>>,
    hosts: BTreeMap<String, Arc<Host>>,
    made_hosts: usize,
}

impl Lab {
    /// Makes an empty lab. `name` is for people; the lab's real name is made unique, so several can run at once.
    ///
    /// # Errors
    /// Without root, cgroup version 2, loop devices or namespaces.
    pub fn new(name: &str) -> Result<Lab> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::Missing {
                what: "root, for namespaces, loop devices and mounts".into(),
                hint: "run it with sudo".into(),
            });
        }
        let id = format!("{name}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = state::lab_directory(&id);
        fs::create_dir_all(directory.join("hosts")).attempt(|| format!("making {}", directory.display()))?;
        let directory = directory.canonicalize().attempt(|| format!("resolving {}", directory.display()))?;
        let cgroup = Cgroup::create_top(&format!("holdfast-lab-{id}"))?;
        state::record(&directory, cgroup.path())?;
        let switch = Host::new("switch", directory.join("switch"), cgroup.create("switch")?, Plan::default())?;
        let switch = Arc::new(switch);
        let lab = Lab { id, directory, cgroup, switch, parts: Mutex::default(), closed: false };
        lab.switch.start_init()?;
        lab.switch.ip_batch("link set lo up\n")?;
        Ok(lab)
    }

    /// Its unique name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory; removed at the end.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A poisoned lock means that another thread of a test panicked; the state under it is still whole.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a network.
    ///
    /// # Errors
    /// When the bridge can't be made.
    pub fn add_network(&self, name: &str) -> Result<()> {
        let mut parts = self.parts();
        self.switch.ip_batch(&bridge_commands(parts.networks.len()))?;
        parts.networks.push(name.to_string());
        Ok(())
    }

    /// Adds a shared disk.
    ///
    /// # Errors
    /// When the image can't be made.
    pub fn add_disk(&self, config: &DiskConfig<'_>) -> Result<()> {
        let disk = Disk::create(&self.directory, config)?;
        self.parts().disks.push(disk);
        Ok(())
    }

    /// Adds a serial line with two ends.
    ///
    /// # Errors
    /// When the machine has no pseudo-terminals.
    pub fn add_serial(&self, name: &str) -> Result<()> {
        let line = SerialLine::new(name)?;
        self.parts().serials.push(line);
        Ok(())
    }

    /// Changes what happens on a serial line, for both directions.
    ///
    /// # Errors
    /// When there is no such line.
    pub fn set_serial(&self, name: &str, state: LineState) -> Result<()> {
        let parts = self.parts();
        let names: Vec<String> = parts.serials.iter().map(|line| line.name().to_string()).collect();
        parts.serials[position(&names, name, "serial line")?].set(state);
        Ok(())
    }

    /// Every program that has an end of a serial line open loses it, as when an adapter is pulled out. The device can be
    /// opened again as long as it has a name.
    ///
    /// # Errors
    /// When there is no such line, or the system refuses.
    pub fn hang_up_serial(&self, name: &str, end: usize) -> Result<()> {
        let parts = self.parts();
        let names: Vec<String> = parts.serials.iter().map(|line| line.name().to_string()).collect();
        parts.serials[position(&names, name, "serial line")?].hang_up(end)
    }

    /// A host's watchdog fails from now on, and resets nothing any more; or it works again.
    ///
    /// # Errors
    /// When no host has one.
    pub fn set_watchdog(&self, host: &str, works: bool) -> Result<()> {
        self.devices()?.set_watchdog(host, works);
        Ok(())
    }

    /// Adds a host, powered off.
    ///
    /// # Errors
    /// When it names a network, disk or serial line that the lab does not have.
    pub fn add_host(&self, name: &str, config: &HostConfig) -> Result<Arc<Host>> {
        let mut parts = self.parts();
        let index = parts.made_hosts;
        let mut cables = Vec::new();
        for CableConfig { network, interface, addresses } in &config.networks {
            let number = position(&parts.networks, network, "network")?;
            cables.push(Cable {
                network: network.clone(),
                interface: interface.clone().unwrap_or_else(|| network.clone()),
                port: format!("h{index}n{number}"),
                addresses: addresses.clone(),
                mac: format!("02:4c:00:00:{:02x}:{:02x}", index + 1, number + 1),
            });
        }
        let names: Vec<String> = parts.disks.iter().map(|disk| disk.name.clone()).collect();
        let mut disks = Vec::new();
        for (disk, links) in &config.disks {
            let Disk { mut image, sector_size, .. } = parts.disks[position(&names, disk, "disk")?].clone();
            if config.faulty_disks {
                image = self.devices_of(&mut parts)?.add_disk(name, disk, &image)?;
            }
            disks.push(Wiring { disk: disk.clone(), image, sector_size, links: links.clone() });
        }
        let lines: Vec<String> = parts.serials.iter().map(|line| line.name().to_string()).collect();
        let mut nodes = Vec::new();
        for SerialConfig { line, end, device } in &config.serials {
            let node = parts.serials[position(&lines, line, "serial line")?].end(*end).to_path_buf();
            nodes.push(NodeSpec { node, name: device.clone() });
        }
        if let Some(device) = &config.watchdog {
            let node = self.devices_of(&mut parts)?.add_watchdog(name);
            nodes.push(NodeSpec { node, name: device.clone() });
        }
        let plan = Plan { cables, disks, nodes, services: config.services.clone() };
        let cgroup = self.cgroup.create(&format!("host-{name}"))?;
        let host = Arc::new(Host::new(name, self.directory.join("hosts").join(name), cgroup, plan)?);
        parts.made_hosts += 1;
        parts.hosts.insert(name.to_string(), Arc::clone(&host));
        if config.watchdog.is_some() {
            self.watch(&mut parts)?;
        }
        Ok(host)
    }

    /// The devices that the lab makes itself, mounted at the first need.
    fn devices_of(&self, parts: &mut Parts) -> Result<Arc<Devices>> {
        if parts.devices.is_none() {
            parts.devices = Some(Arc::new(Devices::mount(&self.directory)?));
        }
        self.devices_in(parts)
    }

    fn devices_in(&self, parts: &Parts) -> Result<Arc<Devices>> {
        parts.devices.clone().ok_or_else(|| LabError::Unknown {
            kind: "disk with faults",
            name: self.id.clone(),
            known: String::new(),
        })
    }

    pub(crate) fn devices(&self) -> Result<Arc<Devices>> {
        self.devices_in(&self.parts())
    }

    pub(crate) fn resetter(&self) -> Option<Arc<Resetter>> {
        self.parts().resetter.clone()
    }

    /// Has watchdogs reset their hosts, those made until now.
    fn watch(&self, parts: &mut Parts) -> Result<()> {
        let devices = self.devices_of(parts)?;
        let (switch, hosts) = (Arc::clone(&self.switch), parts.hosts.clone());
        let all = Arc::clone(&devices);
        parts.resetter = None;
        let cut = move |name: &str| match hosts.get(name) {
            Some(host) => cut_power(&switch, host, Some(&all)),
            None => Err(LabError::Host { host: name.into(), message: "it has gone".into() }),
        };
        parts.resetter = Some(Arc::new(Resetter::start(devices, cut)?));
        Ok(())
    }

    /// A host by name.
    ///
    /// # Errors
    /// [`LabError::Unknown`] with the names that exist.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        let parts = self.parts();
        parts.hosts.get(name).cloned().ok_or_else(|| LabError::Unknown {
            kind: "host",
            name: name.to_string(),
            known: parts.hosts.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Powers a host on: a new boot id, fresh mounts, fresh loop devices, cables plugged in and addressed.
    /// Its services are down until they are started.
    ///
    /// # Errors
    /// When it is on already, or something can't be made.
    pub fn power_on(&self, name: &str) -> Result<()> {
        let host = self.host(name)?;
        let devices = self.parts().devices.clone();
        devices.iter().for_each(|devices| devices.power_restored(name));
        host.start_init()?;
        let pid = host.pid()?;
        let mut commands = "link set lo up\n".to_string();
        for cable in host.cables() {
            plug(&self.switch, &self.bridge(&cable.network)?, cable, pid)?;
            commands.push_str(&address_commands(cable));
        }
        host.ip_batch(&commands)
    }

    fn bridge(&self, network: &str) -> Result<String> {
        Ok(bridge_name(position(&self.parts().networks, network, "network")?))
    }

    /// Cuts a host's power: first all its cables go down, then its file systems are shut down without a flush
    /// and its disks cut off, then every process is killed. Nothing more reaches the network or a disk.
    ///
    /// # Errors
    /// When it is off.
    pub fn power_cut(&self, name: &str) -> Result<CutMoment> {
        let host = self.host(name)?;
        let devices = self.parts().devices.clone();
        cut_power(&self.switch, &host, devices.as_deref())
    }

    /// Pulls one cable at the switch: both ends lose their link.
    ///
    /// # Errors
    /// When the host has no cable to that network.
    pub fn link_down(&self, host: &str, network: &str) -> Result<()> {
        self.set_link(host, Some(network), "down")
    }

    /// Plugs a cable in again.
    ///
    /// # Errors
    /// When the host has no cable to that network.
    pub fn link_up(&self, host: &str, network: &str) -> Result<()> {
        self.set_link(host, Some(network), "up")
    }

    /// Takes a host's network card out: its interface to that network vanishes, with its addresses.
    ///
    /// # Errors
    /// When the host is off or has no cable to that network.
    pub fn remove_interface(&self, host: &str, network: &str) -> Result<()> {
        self.switch.ip_batch(&format!("link del {}\n", find_cable(&*self.host(host)?, network)?.port))
    }

    /// Puts it in again: another interface of the same name, with the same addresses.
    ///
    /// # Errors
    /// As [`Lab::remove_interface`].
    pub fn add_interface(&self, host: &str, network: &str) -> Result<()> {
        let host = self.host(host)?;
        let cable = find_cable(&host, network)?;
        plug(&self.switch, &self.bridge(network)?, cable, host.pid()?)?;
        host.ip_batch(&address_commands(cable))
    }

    /// Pulls all cables of a host at once.
    ///
    /// # Errors
    /// When the host does not exist.
    pub fn cut_all_lans(&self, host: &str) -> Result<()> {
        self.set_link(host, None, "down")
    }

    /// Plugs all cables of a host in again.
    ///
    /// # Errors
    /// When the host does not exist.
    pub fn restore_all_lans(&self, host: &str) -> Result<()> {
        self.set_link(host, None, "up")
    }

    fn set_link(&self, name: &str, network: Option<&str>, state: &str) -> Result<()> {
        let host = self.host(name)?;
        let commands: String = match network {
            Some(network) => format!("link set {} {state}\n", find_cable(&host, network)?.port),
            None => all_links(&host, state),
        };
        self.switch.ip_batch(&commands)
    }

    /// Loses everything that `from` sends to `to` on a network; the other direction works.
    ///
    /// # Errors
    /// When one of them has no cable to that network.
    pub fn one_way_loss(&self, from: &str, to: &str, network: &str) -> Result<()> {
        let (sender, receiver) = (self.host(from)?, self.host(to)?);
        receiver.drop_incoming(find_cable(&receiver, network)?, &find_cable(&sender, network)?.mac)
    }

    /// Ends every one-way loss at `to` on a network.
    ///
    /// # Errors
    /// When it has no cable to that network.
    pub fn end_one_way_loss(&self, to: &str, network: &str) -> Result<()> {
        let receiver = self.host(to)?;
        receiver.accept_incoming(find_cable(&receiver, network)?)
    }

    /// Splits the networks: nothing from the hosts of one side reaches those of the other. Hosts of neither side hear both.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn split(&self, one: &[String], other: &[String]) -> Result<()> {
        for (from, to) in one.iter().flat_map(|a| other.iter().flat_map(move |b| [(a, b), (b, a)])) {
            for cable in self.host(from)?.cables() {
                if find_cable(&*self.host(to)?, &cable.network).is_ok() {
                    self.one_way_loss(from, to, &cable.network)?;
                }
            }
        }
        Ok(())
    }

    /// Ends every loss at these hosts, on all networks.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn end_split(&self, hosts: &[String]) -> Result<()> {
        for name in hosts {
            for cable in self.host(name)?.cables() {
                self.end_one_way_loss(name, &cable.network)?;
            }
        }
        Ok(())
    }

    /// Checks a file system of a disk as it is now, changing nothing; nobody may have it mounted.
    ///
    /// # Errors
    /// With the checker's words when it finds damage.
    pub fn check_ext4(&self, disk: &str) -> Result<String> {
        let parts = self.parts();
        let names: Vec<String> = parts.disks.iter().map(|disk| disk.name.clone()).collect();
        let image = parts.disks[position(&names, disk, "disk")?].image.to_string_lossy().into_owned();
        run("e2fsck", &["-f", "-n", &image])
    }

    /// Takes everything down and removes every trace.
    ///
    /// # Errors
    /// When something does not go; [`crate::clean`] may be able to remove it later.
    pub fn close(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        let (hosts, resetter, devices) = {
            let mut parts = self.parts();
            (std::mem::take(&mut parts.hosts), parts.resetter.take(), parts.devices.take())
        };
        drop(resetter);
        devices.iter().for_each(|devices| devices.release());
        // All are tried, the first error is told.
        let mut outcome = Ok(());
        for host in hosts.values().chain([&self.switch]) {
            outcome = outcome.and(host.power_off());
        }
        drop(hosts);
        outcome = outcome.and(state::remove_left_overs(&self.directory, &self.cgroup));
        // ORDER: its file system is unmounted by then; before, loop devices stand on it.
        drop(devices);
        outcome
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!(lab = self.id, %error, "the lab was not taken down completely; try `holdfast lab clean`");
        }
    }
}

/// Takes the power of a host: cables, own devices, then the rest.
fn cut_power(switch: &Host, host: &Host, devices: Option<&Devices>) -> Result<CutMoment> {
    let begin_ns = boottime_ns();
    switch.ip_batch(&all_links(host, "down"))?;
    devices.iter().for_each(|devices| devices.power_lost(host.name()));
    host.lose_power(begin_ns)
}

fn all_links(host: &Host, state: &str) -> String {
    host.cables().iter().map(|cable| format!("link set {} {state}\n", cable.port)).collect()
}

fn find_cable<'a>(host: &'a Host, network: &str) -> Result<&'a Cable> {
    host.cables().iter().find(|cable| cable.network == network).ok_or_else(|| LabError::Unknown {
        kind: "network of this host",
        name: network.to_string(),
        known: host.cables().iter().map(|cable| cable.network.as_str()).collect::<Vec<_>>().join(", "),
    })
}

fn position(names: &[String], name: &str, kind: &'static str) -> Result<usize> {
    names.iter().position(|known| known == name).ok_or_else(|| LabError::Unknown {
        kind,
        name: name.to_string(),
        known: names.join(", "),
    })
}
