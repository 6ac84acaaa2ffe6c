//! The lab itself: hosts, networks, disks and faults, shown by the system's own commands.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_lab::{
    CableConfig, DiskConfig, Host, HostConfig, Lab, Poller, ServiceSpec, boottime_ns, check_overlap, clean,
    devices_below, merge_tenures, parse_lines, run, unified_mount, wait_for,
};

/// Serves the host's name on port 80.
const WEB_SERVER: &str = "mkdir -p /run/web && cd /run/web && uname -n > index.html && cat > nginx.conf <<END
daemon off; master_process off; pid /run/web/pid;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path /run/web/a; proxy_temp_path /run/web/b; fastcgi_temp_path /run/web/c;
  uwsgi_temp_path /run/web/d; scgi_temp_path /run/web/e;
  server { listen 80; root /run/web; }
}
END
exec nginx -e stderr -c /run/web/nginx.conf";
const DEVICE: &str = "/dev/holdfast/data";

fn cable(network: &str, interface: Option<&str>, address: &str) -> CableConfig {
    let address: IpAddr = address.parse().expect("an address");
    CableConfig { network: network.into(), interface: interface.map(Into::into), addresses: vec![(address, 24)] }
}

fn service(name: &str, command: &[&str]) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        command: command.iter().map(ToString::to_string).collect(),
        environment: BTreeMap::new(),
    }
}

/// Two hosts `a` and `b` with two LANs and a shared ext4, switched on; service `web` serves its host name on
/// the address given to `serve`.
fn two_hosts(name: &str) -> (Lab, Arc<Host>, Arc<Host>) {
    let lab = Lab::new(name).expect("a lab");
    lab.add_network("ic").expect("a network");
    lab.add_network("pub").expect("a network");
    let disk = DiskConfig { name: "data", size_mib: 64, file_system: Some("ext4"), kept_free: None, sector_size: 512 };
    lab.add_disk(&disk).expect("a disk");
    let host = |name: &str, number: u8| {
        let config = HostConfig {
            networks: vec![
                cable("ic", None, &format!("10.0.0.{number}")),
                cable("pub", Some("eth0"), &format!("192.0.2.{number}")),
            ],
            disks: vec![("data".into(), vec![PathBuf::from(DEVICE)])],
            services: vec![
                service(
                    "writer",
                    &["holdfast", "lab-writer", "/srv/data/log", "--acknowledged", "/var/lib/holdfast/acknowledged"],
                ),
                service("sleeper", &["sleep", "1000"]),
                service("web", &["sh", "-c", WEB_SERVER]),
            ],
            ..HostConfig::default()
        };
        let host = lab.add_host(name, &config).expect("a host");
        lab.power_on(name).expect("power");
        host
    };
    let (a, b) = (host("a", 1), host("b", 2));
    (lab, a, b)
}

fn mount(host: &Host) {
    host.exec(&["mkdir", "-p", "/srv/data"]).expect("a directory");
    host.exec(&["mount", "-t", "ext4", DEVICE, "/srv/data"]).expect("the shared file system is mounted");
}

fn reaches(host: &Host, address: &str) -> bool {
    host.exec(&["ping", "-c", "1", "-W", "1", address]).is_ok()
}

/// The kernel notices a link that comes up within a second.
fn comes_to_reach(host: &Host, address: &str) {
    wait_for(&format!("{address} to answer"), Duration::from_secs(10), |_| Ok(reaches(host, address).then_some(())))
        .expect("it is reached again");
}

#[test]
fn hosts_have_their_own_name_boot_processes_and_files() {
    let (lab, a, b) = two_hosts("own");
    assert_eq!(a.exec(&["uname", "-n"]).expect("uname").trim(), "a");
    let boot = |host: &Host| host.exec(&["cat", "/proc/sys/kernel/random/boot_id"]).expect("a boot id");
    let first = boot(&a);
    assert_ne!(first, boot(&b));
    assert_ne!(first, fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the machine's boot id"));
    a.exec(&["sh", "-c", "echo mine > /etc/only-here; echo kept > /var/lib/holdfast/kept"]).expect("writing");
    assert!(b.exec(&["cat", "/etc/only-here"]).is_err(), "the file must not be on the other host");
    assert!(!PathBuf::from("/etc/only-here").exists(), "the machine's own files must not change");
    let processes = a.exec(&["sh", "-c", "ls -d /proc/[0-9]*"]).expect("processes");
    assert!(processes.lines().count() <= 4, "only the host's own processes are seen: {processes}");

    lab.power_cut("a").expect("a power cut");
    assert!(!a.is_on());
    lab.power_on("a").expect("power");
    assert_ne!(first, boot(&a), "a new boot has a new id");
    assert_eq!(a.exec(&["cat", "/var/lib/holdfast/kept"]).expect("the file").trim(), "kept");
    assert!(a.exec(&["cat", "/etc/only-here"]).is_err(), "the rest of the root starts afresh");
    lab.close().expect("the lab goes");
}

#[test]
fn a_pulled_cable_cuts_one_network_only_and_loss_can_be_one_way() {
    let (lab, a, b) = two_hosts("cables");
    assert!(reaches(&a, "10.0.0.2") && reaches(&b, "192.0.2.1"));
    lab.link_down("a", "ic").expect("cable out");
    assert!(!reaches(&a, "10.0.0.2") && reaches(&a, "192.0.2.2"));
    let carrier = a.exec(&["cat", "/sys/class/net/ic/carrier"]).expect("a link state");
    assert_eq!(carrier.trim(), "0", "the host notices, as with a real cable");
    lab.link_up("a", "ic").expect("cable in");
    comes_to_reach(&a, "10.0.0.2");

    // b hears nothing of a; a still hears b: a's neighbour entry is filled by b's own requests.
    lab.one_way_loss("a", "b", "pub").expect("loss");
    let received = |host: &Host| -> u64 {
        let text = host.exec(&["cat", "/sys/class/net/eth0/statistics/rx_packets"]).expect("a counter");
        text.trim().parse().expect("a number")
    };
    let before = received(&a);
    assert!(!reaches(&b, "192.0.2.1"), "the answer is lost on its way back");
    assert!(received(&a) > before, "the request arrived");
    lab.end_one_way_loss("b", "pub").expect("no loss");
    comes_to_reach(&b, "192.0.2.1");
    lab.close().expect("the lab goes");
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_the_other_host_replays_the_journal() {
    let (lab, a, b) = two_hosts("power");
    mount(&a);
    a.exec(&["sh", "-c", "echo synced > /srv/data/synced; sync -f /srv/data"]).expect("writing");
    a.start_service("writer").expect("the writer");
    let acknowledged = a.state_dir().join("acknowledged");
    wait_for("fifty durable lines", Duration::from_secs(20), |last| {
        let count = fs::read_to_string(&acknowledged).unwrap_or_default().lines().count();
        *last = format!("{count} lines");
        Ok((count >= 50).then_some(()))
    })
    .expect("the writer writes");

    a.exec(&["sh", "-c", "echo lost >> /srv/data/synced"]).expect("writing without a sync");
    let cut = lab.power_cut("a").expect("a power cut");
    assert!(a.processes().expect("its cgroup").is_empty(), "every process is gone");
    assert!(Duration::from_nanos(cut.end_ns - cut.begin_ns) < Duration::from_secs(2), "{cut:?}");
    mount(&b);
    let kernel = b.exec(&["sh", "-c", "grep ' /srv/data ' /proc/mounts; cat /srv/data/synced"]).expect("the files");
    assert!(kernel.contains("synced\n") && !kernel.contains("lost\n"), "{kernel}");
    b.start_service("writer").expect("the writer");
    let log = b.path("/srv/data/log").expect("a path");
    wait_for("lines of b", Duration::from_secs(20), |last| {
        *last = fs::read_to_string(&log).unwrap_or_default().lines().last().unwrap_or_default().to_string();
        Ok(last.starts_with("b ").then_some(()))
    })
    .expect("b goes on where a ended");
    b.stop_service("writer", Duration::from_secs(5)).expect("the writer ends");
    let lines = parse_lines(&fs::read_to_string(&log).expect("the log")).expect("whole lines");
    let known = |host: &Host| {
        let text = fs::read_to_string(host.state_dir().join("acknowledged")).expect("a local file");
        (host.name().to_string(), parse_lines(&text).expect("whole lines"))
    };
    let tenures = check_overlap(&lines, &BTreeMap::from([known(&a), known(&b)])).expect("no overlap");
    assert_eq!(tenures.iter().map(|t| t.host.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    b.exec(&["umount", "/srv/data"]).expect("unmounted");
    lab.check_ext4("data").expect("the file system is whole");
    lab.close().expect("the lab goes");
}

#[test]
fn a_host_reads_what_the_other_wrote_although_it_had_read_the_disk_before() {
    let (lab, a, b) = two_hosts("cache");
    let sum = |host: &Host| host.exec(&["sha256sum", DEVICE]).expect("the disk is readable");
    let before = sum(&b);
    mount(&a);
    a.exec(&["sh", "-c", "head -c 4000000 /dev/urandom > /srv/data/new; umount /srv/data"]).expect("written");
    let after = sum(&b);
    assert_ne!(before, after, "b must not be served from pages that it cached earlier");
    assert_eq!(after, sum(&a));
    lab.close().expect("the lab goes");
}

#[test]
fn two_writers_at_once_are_found_out() {
    let (lab, a, b) = two_hosts("double");
    // What must never happen: both mount the file system and write.
    mount(&a);
    mount(&b);
    for host in [&a, &b] {
        host.start_service("writer").expect("the writer");
    }
    let known = |host: &Host| {
        let text = fs::read_to_string(host.state_dir().join("acknowledged")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        (host.name().to_string(), parse_lines(whole).expect("whole lines"))
    };
    wait_for("lines of both", Duration::from_secs(20), |last| {
        let counts = [known(&a).1.len(), known(&b).1.len()];
        *last = format!("{counts:?}");
        Ok(counts.iter().all(|count| *count >= 10).then_some(()))
    })
    .expect("both write");
    let acknowledged = BTreeMap::from([known(&a), known(&b)]);
    let text = a.exec(&["cat", "/srv/data/log"]).expect("the log as a sees it");
    let broken = check_overlap(&parse_lines(&text).expect("whole lines"), &acknowledged).expect_err("two writers");
    assert!(broken.iter().any(|line| line.contains("active on two hosts at once")), "{broken:?}");
    assert!(merge_tenures(&acknowledged).is_err());
    lab.close().expect("the lab goes");
}

#[test]
fn an_unreachable_disk_fails_on_one_host_only() {
    let (lab, a, b) = two_hosts("disk");
    let read = ["dd", &format!("if={DEVICE}"), "of=/dev/null", "iflag=direct", "bs=4096", "count=1", "skip=16"]
        .map(str::to_string);
    let bytes = |host: &Host| {
        let command =
            format!("{} 2>/dev/null | wc -c; {} 2>&1", read.join(" ").replace("of=/dev/null ", ""), read.join(" "));
        let text = host.exec(&["sh", "-c", &command]).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_string()
    };
    assert_eq!(bytes(&a), "4096");
    a.disk_unreachable("data").expect("cut");
    assert_ne!(bytes(&a), "4096");
    assert_eq!(bytes(&b), "4096");
    assert!(a.exec(&["mount", "-t", "ext4", DEVICE, "/mnt"]).is_err(), "nothing can be mounted from it");
    a.disk_reachable("data").expect("back");
    assert_eq!(bytes(&a), "4096");
    lab.close().expect("the lab goes");
}

#[test]
fn a_service_that_dies_is_started_again_and_a_stopped_one_is_not() {
    let (lab, a, _b) = two_hosts("service");
    a.start_service("sleeper").expect("started");
    let pids = || -> Vec<i32> {
        let all = a.processes().expect("processes");
        all.iter().filter(|process| process.args.first().is_some_and(|arg| arg == "sleep")).map(|p| p.pid).collect()
    };
    wait_for("the service", Duration::from_secs(5), |_| Ok((pids().len() == 1).then_some(()))).expect("it runs");
    let first = pids();
    let sleeper: Vec<_> = a.processes().expect("processes").into_iter().filter(|p| first.contains(&p.pid)).collect();
    a.signal(&sleeper, nix::sys::signal::Signal::SIGKILL).expect("killed");
    wait_for("the restart", Duration::from_secs(5), |last| {
        *last = format!("{:?}", pids());
        Ok((pids().len() == 1 && pids() != first).then_some(()))
    })
    .expect("it runs again");
    a.stop_service("sleeper", Duration::from_secs(5)).expect("stopped");
    assert!(pids().is_empty());

    a.freeze().expect("frozen");
    a.thaw().expect("thawed");
    assert_eq!(a.exec(&["echo", "alive"]).expect("echo").trim(), "alive");
    lab.close().expect("the lab goes");
}

#[test]
fn the_poller_measures_how_long_a_service_was_away() {
    let (lab, a, b) = two_hosts("poller");
    a.start_service("web").expect("the web server");
    let poller = Poller::start(&b, "192.0.2.1:80".parse().expect("an address")).expect("a poller");
    poller.wait_for_answer(Some("a"), Duration::from_secs(20)).expect("the first answer");
    let start = boottime_ns();
    a.freeze().expect("frozen");
    let frozen = boottime_ns();
    wait_for("half a second", Duration::from_secs(5), |_| Ok((boottime_ns() > frozen + 500_000_000).then_some(())))
        .expect("time passes");
    a.thaw().expect("thawed");
    poller.wait_for_answer(Some("a"), Duration::from_secs(5)).expect("an answer after the outage");
    let outage = poller.longest_outage(start).expect("an outage");
    assert!(outage.length >= Duration::from_millis(500) && outage.length < Duration::from_millis(1500), "{outage:?}");
    drop(poller);
    lab.close().expect("the lab goes");
}

#[test]
fn nothing_is_left_when_a_lab_is_closed_or_dropped() {
    let namespaces = || run("lsns", &["--noheadings", "--output", "NS,COMMAND"]).expect("lsns");
    let mentions = |id: &str| {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let own = unified_mount().expect("cgroup2").join(format!("holdfast-lab-{id}"));
        mounts.contains(id) || own.exists() || namespaces().contains(id)
    };
    for close in [true, false] {
        let (lab, a, _b) = two_hosts("trace");
        mount(&a);
        a.start_service("sleeper").expect("started");
        let (id, directory) = (lab.id().to_string(), lab.directory().to_path_buf());
        let links = run("ip", &["-br", "link"]).expect("links");
        assert!(
            !links.contains("lan0") && !links.contains("h0n0"),
            "the machine's own network is not touched: {links}"
        );
        assert!(mentions(&id) && directory.exists());
        if close {
            lab.close().expect("the lab goes");
        } else {
            drop(lab);
        }
        assert!(!mentions(&id), "mounts, cgroups or namespaces are left");
        assert!(!directory.exists());
        assert_eq!(devices_below(&directory).expect("loop devices"), vec![]);
    }
}

/// Set in the process that builds a lab and dies.
const DOOMED: &str = "HOLDFAST_TEST_DOOMED";

#[test]
fn what_a_killed_lab_leaves_is_removed_by_clean() {
    if std::env::var_os(DOOMED).is_some() {
        let (lab, a, _b) = two_hosts("doomed");
        mount(&a);
        a.start_service("sleeper").expect("started");
        // A frozen host can't notice that its lab is gone.
        a.freeze().expect("frozen");
        eprintln!("lab {}", lab.directory().display());
        // Without destructors, as when it is killed.
        std::process::exit(9);
    }
    let own = std::env::current_exe().expect("this program");
    let child = std::process::Command::new(own)
        .args(["--exact", "what_a_killed_lab_leaves_is_removed_by_clean", "--nocapture"])
        .env(DOOMED, "1")
        .output()
        .expect("the doomed process runs");
    let text = String::from_utf8_lossy(&child.stderr);
    let directory = text.lines().find_map(|line| line.strip_prefix("lab ")).expect("the lab's directory");
    let directory = PathBuf::from(directory);
    let cgroup = unified_mount().expect("cgroup2").join(directory.file_name().expect("a name"));
    assert!(directory.exists() && cgroup.exists(), "it left something: {text}");
    let (running, _a, _b) = two_hosts("alive");
    let removed = clean().expect("left-overs are removed");
    assert!(removed.iter().any(|line| line.contains(&*directory.to_string_lossy())), "{removed:?}");
    assert!(!directory.exists() && !cgroup.exists());
    assert_eq!(devices_below(&directory).expect("loop devices"), vec![]);
    assert!(running.directory().exists(), "a lab that runs is left alone");
    running.close().expect("the lab goes");
}
