//! Checks of monitors in real helpers: what is a failure of the service, what is none, and that a check is over before
//! anything is stopped.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Server, failed};
use holdfast_agent::disk::format::{self, Force};
use holdfast_agent::executor::Check;
use holdfast_agent::monitors::plan::{DiskIo, OwnSlot};
use holdfast_agent::monitors::{Facts, Plan};
use holdfast_agent::resources::plan::PathFacts;
use holdfast_api::v1::Resource;
use holdfast_core::names::ResourceName;
use holdfast_core::{Action, Input, Outcome};
use serde_json::{Value, json};

/// Carries a check out and waits for its answer.
fn check(server: &Server, monitor: Value, timeout: Duration) -> Outcome {
    let op = submit(server, monitor, timeout);
    answer(server, op, timeout + Duration::from_secs(10))
}

fn submit(server: &Server, monitor: Value, timeout: Duration) -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    let op = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    server.executor.borrow().check(Check { op, ..of(server, monitor, timeout) });
    op
}

/// The group's resources: a program and an address.
fn resources() -> BTreeMap<ResourceName, Resource> {
    let all = [
        json!({"name": "app", "process": {"command": ["/bin/sleep", "300"]}}),
        json!({"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}}),
    ];
    all.map(common::resource).map(|resource| (resource.name.as_str().into(), resource)).into()
}

fn of(server: &Server, mut monitor: Value, timeout: Duration) -> Check {
    monitor["name"] = "answers".into();
    monitor["action"] = "Report".into();
    let spec = serde_json::from_value(monitor).unwrap();
    let network = server.network.borrow();
    let sources = server.sources.borrow();
    let facts = Facts { network: &network, disks: &BTreeMap::new(), resources: &resources(), sources: &sources };
    let plan = Plan::new(&spec, &facts);
    Check { op: 0, group: Some(common::GROUP.into()), monitor: "answers".into(), plan, timeout, since: None }
}

fn answer(server: &Server, wanted: u64, limit: Duration) -> Outcome {
    match server.wait(limit, |input| matches!(input, Input::ResourceDone { op, .. } if *op == wanted)) {
        Input::ResourceDone { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

fn shell(script: &str) -> Value {
    json!({"exec": {"command": ["/bin/sh", "-c", script]}})
}

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_program_passes_by_exit_code_and_output_and_fails_when_it_hangs() {
    let server = Server::new();
    assert_eq!(check(&server, shell("exit 0"), LIMIT), Outcome::Running);
    let message = failed(check(&server, shell("echo stale; echo no rows >&2; exit 3"), LIMIT));
    assert_eq!(message, "exit 3; it printed: no rows");
    let mut other = shell("echo primary; exit 3");
    other["exec"]["exitCodes"] = json!([0, 3]);
    other["exec"]["output"] = "^prim".into();
    assert_eq!(check(&server, other.clone(), LIMIT), Outcome::Running);
    other["exec"]["output"] = "^standby".into();
    let message = failed(check(&server, other, LIMIT));
    assert!(message.contains("does not match \"^standby\"; it printed: primary"), "{message}");
    // More than a pipe holds must not make it wait; what it leaves running is ended.
    assert_eq!(check(&server, shell("yes | head -c 3000000; sleep 300 & exit 0"), LIMIT), Outcome::Running);
    let told = shell("test $HOLDFAST_GROUP.$HOLDFAST_MONITOR.$HOLDFAST_SERVER = ledger.answers.db1");
    assert_eq!(check(&server, told, LIMIT), Outcome::Running);

    let began = Instant::now();
    let message = failed(check(&server, shell("echo asking; sleep 300 & wait"), Duration::from_millis(500)));
    assert_eq!(message, "the program did not end within 500ms; it printed: asking");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(server.cgroups.helpers().pids(), [] as [i32; 0], "nothing of any check is left");
}

#[test]
fn a_check_that_can_not_be_carried_out_is_no_failure_of_the_service() {
    let server = Server::new();
    let nobody = json!({"exec": {"command": ["/bin/true"], "runAs": {"user": "no-such-user"}}});
    for monitor in [json!({"exec": {"command": ["/no/such/program"]}}), nobody] {
        let outcome = check(&server, monitor, LIMIT);
        assert!(
            matches!(&outcome, Outcome::Unknown(m) if m.contains("no such") || m.contains("no-such") || m.contains("No such")),
            "{outcome:?}"
        );
    }
    let plan = Err("its specification is not known on this server".to_owned());
    let unknown =
        Check { op: 7, group: Some(common::GROUP.into()), monitor: "gone".into(), plan, timeout: LIMIT, since: None };
    server.executor.borrow().check(unknown);
    assert!(matches!(answer(&server, 7, LIMIT), Outcome::Unknown(_)));
}

/// A web server that gives the same answer to everybody; none: it takes requests and says nothing.
fn web(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(answer) = answer {
                let mut request = [0; 4096];
                let count = stream.read(&mut request).unwrap();
                let text = String::from_utf8_lossy(&request[..count]).to_lowercase();
                assert!(
                    text.starts_with("get /healthz?deep=1 http/1.1\r\n") && text.contains("\r\nhost: 127.0.0.1:"),
                    "{text}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            } else {
                open.push(stream);
            }
        }
    });
    address
}

fn http(address: &str, more: Value) -> Value {
    let mut monitor = json!({"http": {"url": format!("http://{address}/healthz?deep=1")}});
    monitor["http"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    monitor
}

#[test]
fn a_web_server_passes_by_status_and_body_and_fails_when_it_hangs_or_is_gone() {
    let server = Server::new();
    let good = web(Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"));
    assert_eq!(check(&server, http(&good, json!({})), LIMIT), Outcome::Running);
    assert_eq!(check(&server, http(&good, json!({"body": "^ready$"})), LIMIT), Outcome::Running);
    let message = failed(check(&server, http(&good, json!({"body": "primary"})), LIMIT));
    assert!(message.contains("the body does not match \"primary\"; `curl -v -X GET 'http://"), "{message}");
    let bad = web(Some("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"));
    let message = failed(check(&server, http(&bad, json!({})), LIMIT));
    assert!(
        message.contains("/healthz?deep=1 answers 500 Internal Server Error, http.statuses has 200; `curl -v -X GET '"),
        "{message}"
    );
    assert_eq!(check(&server, http(&bad, json!({"statuses": [204, 500]})), LIMIT), Outcome::Running);
    let nonsense = web(Some("220 mail.example ESMTP\r\n"));
    failed(check(&server, http(&nonsense, json!({})), LIMIT));

    let hangs = web(None);
    let began = Instant::now();
    let message = failed(check(&server, http(&hangs, json!({})), Duration::from_millis(500)));
    assert!(message.contains("no answer within 500ms"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(check(&server, json!({"tcp": {"address": hangs}}), LIMIT), Outcome::Running, "it takes connections");
    let closed = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string() };
    for monitor in [http(&closed, json!({})), json!({"tcp": {"address": closed}})] {
        let message = failed(check(&server, monitor, LIMIT));
        assert!(message.contains("refused"), "{message}");
    }
}

/// An authority, for tests.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Authority(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    /// A web server with a certificate for `name`, valid until this year; gives its port.
    fn serves(&self, name: &str, until: i32) -> u16 {
        use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto, pki_types};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        let key = pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(std::sync::Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let config = std::sync::Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
                // A client that does not like the certificate says so and goes.
                if stream.read(&mut [0; 4096]).is_ok() {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready").unwrap();
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        port
    }
}

#[test]
fn a_web_server_has_to_be_who_the_url_names_by_the_word_of_the_secrets_authority() {
    let server = Server::new();
    let (good, other) = (Authority::new(), Authority::new());
    let secret = |name: &str, key: &str, text: String| (name.to_owned(), [(key.to_owned(), text.into_bytes())].into());
    let secrets = [
        secret("good", "ca.crt", good.0.pem()),
        secret("other", "ca.crt", other.0.pem()),
        secret("nonsense", "ca.crt", "no PEM".into()),
        secret("empty", "tls.crt", good.0.pem()),
    ];
    *server.sources.borrow_mut() = std::sync::Arc::new(holdfast_agent::resources::Sources {
        namespace: "ha".into(),
        secrets: holdfast_agent::fencing::Secrets(secrets.into()),
        ..Default::default()
    });
    let https = |port: u16, ca: Option<&str>| {
        let monitor = json!({"http": {"url": format!("https://localhost:{port}/"), "body": "^ready$", "caSecret": ca}});
        check(&server, monitor, LIMIT)
    };
    let fine = good.serves("localhost", 2999);
    assert_eq!(https(fine, Some("good")), Outcome::Running);
    let url = format!("https://localhost:{fine}/");
    let said = |outcome: Outcome| failed(outcome);
    let more = format!("; `curl -v -X GET '{url}'` on this server shows all of it");
    assert_eq!(
        said(https(fine, Some("other"))),
        format!("{url}: its certificate is signed by no authority of Secret other{more}")
    );
    let by_name = said(https(good.serves("db.example", 2999), Some("good")));
    assert!(
        by_name.contains("its certificate is not for localhost, but for DnsName(\"db.example\");")
            || by_name.contains("its certificate is not for localhost, but for db.example;"),
        "{by_name}"
    );
    let expired = said(https(good.serves("localhost", 2001), Some("good")));
    assert!(expired.contains("its certificate has expired;"), "{expired}");
    // Nobody whom this system trusts has signed it, if it trusts anybody.
    match https(fine, None) {
        Outcome::Failed(text) => {
            assert_eq!(text, format!("{url}: its certificate is signed by no authority that this system trusts{more}"))
        }
        Outcome::Unknown(text) => assert!(text.contains("this system has no certificates of authorities"), "{text}"),
        other => panic!("{other:?}"),
    }
    let plain = web(None);
    let port: u16 = plain.rsplit(':').next().unwrap().parse().unwrap();
    let unknown = |outcome: Outcome| match outcome {
        Outcome::Unknown(text) => text,
        other => panic!("{other:?}"),
    };
    let text = unknown(https(fine, Some("nonsense")));
    assert!(
        text.ends_with(
            "ca.crt of Secret nonsense has no certificate; put the certificate of the authority there, as PEM"
        ),
        "{text}"
    );
    let text = unknown(https(fine, Some("empty")));
    assert_eq!(
        text,
        "http.caSecret: Secret empty in namespace ha has no text ca.crt; it has: tls.crt. Add the key to it"
    );
    assert!(unknown(https(fine, Some("none"))).starts_with("http.caSecret: Secret none in namespace ha is not known"));
    // One that takes connections and says nothing has failed.
    let monitor = json!({"http": {"url": format!("https://localhost:{port}/"), "caSecret": "good"}});
    assert!(said(check(&server, monitor, Duration::from_millis(500))).contains("no answer within 500ms"));
}

#[test]
fn a_check_is_over_before_anything_of_its_group_is_stopped() {
    let server = Server::new();
    let file = server.run_dir.path().join("held");
    let app = common::resource(json!({"name": "app", "script": {
        "start": {"inline": "true"},
        // Fails while a check still has the file.
        "stop": {"inline": format!("! flock --nonblock --conflict-exit-code 1 {0} true && exit 1; exit 0", file.display())},
    }}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    let hangs = shell(&format!("exec flock {0} sh -c 'echo > {0}.begun; sleep 300'", file.display()));
    let op = submit(&server, hangs, Duration::from_secs(60));
    let begun = server.run_dir.path().join("held.begun");
    common::eventually("the check runs", LIMIT, || {
        // The executor's work is done by this thread.
        server.find(Duration::from_millis(10), &|_| false);
        begun.exists()
    });
    let began = Instant::now();
    assert_eq!(server.run(Action::Stop, &app), Outcome::Stopped);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(matches!(answer(&server, op, LIMIT), Outcome::Unknown(_)), "nothing was learnt");
    assert_eq!(server.cgroups.helpers().pids(), [] as [i32; 0]);
}

#[test]
fn processes_are_counted_by_their_command_line_or_by_their_resource() {
    let server = Server::new();
    let app = &resources()["app"];
    assert_eq!(server.run(Action::Start, app), Outcome::Running);
    assert_eq!(check(&server, json!({"process": {"resource": "app"}}), LIMIT), Outcome::Running);
    let message = failed(check(&server, json!({"process": {"resource": "app", "min": 2}}), LIMIT));
    assert_eq!(
        message,
        "1 processes of resource app, at least 2 are needed; if that is right, change process.min or process.max, else restart app"
    );
    let mark = format!("sleep 300 holdfast-{}", std::process::id());
    // The helper that looks is told the pattern, too, and is none of them.
    let matching = |min: u32, max: u32| json!({"process": {"pattern": format!("^{mark}"), "min": min, "max": max}});
    assert_eq!(check(&server, matching(0, 0), LIMIT), Outcome::Running);
    let mut child =
        std::process::Command::new("/bin/bash").args(["-c", &format!("exec -a '{mark}' sleep 300")]).spawn().unwrap();
    common::eventually("it runs", LIMIT, || {
        std::fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.starts_with(b"sleep 300 hold"))
    });
    let message = failed(check(&server, matching(0, 0), LIMIT));
    assert!(
        message.starts_with("1 processes match ") && message.contains("at most 0 are allowed; `pgrep -af '"),
        "{message}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(check(&server, matching(0, 0), LIMIT), Outcome::Running);
    assert_eq!(server.run(Action::Stop, app), Outcome::Stopped);
    failed(check(&server, json!({"process": {"resource": "app"}}), LIMIT));
}

/// A link of two ends, the other one in a network of its own, kept by the process that is returned.
fn neighbour() -> std::process::Child {
    common::own_network();
    let other = std::process::Command::new("unshare").args(["--net", "sleep", "300"]).spawn().unwrap();
    let name = std::fs::read_link("/proc/self/ns/net").unwrap();
    common::eventually("its network is its own", LIMIT, || {
        std::fs::read_link(format!("/proc/{}/ns/net", other.id())).is_ok_and(|other| other != name)
            && std::fs::read(format!("/proc/{}/cmdline", other.id())).is_ok_and(|line| line.starts_with(b"sleep"))
    });
    let pid = other.id();
    common::sh(&format!("ip link add eth0 type veth peer name eth1 netns {pid}"));
    common::sh(
        "ip link set eth0 up && ip address add 192.0.2.1/24 dev eth0 && ip address add 2001:db8::1/64 dev eth0 nodad",
    );
    inside(
        &other,
        "ip link set eth1 up && ip address add 192.0.2.2/24 dev eth1 && ip address add 2001:db8::2/64 dev eth1 nodad",
    );
    common::eventually("the link is up", LIMIT, || {
        common::sh("cat /sys/class/net/eth0/operstate || true") == "up"
            || common::sh("ip link show eth0").contains("LOWER_UP")
    });
    other
}

fn inside(other: &std::process::Child, command: &str) {
    common::sh(&format!("nsenter --net --target {} /bin/sh -c '{command}'", other.id()));
}

#[test]
fn ping_link_and_address_see_what_the_network_does() {
    let mut other = neighbour();
    let server = Server::new();
    let facts = PathFacts { interface: None, endpoint: Some("192.0.2.1".parse().unwrap()) };
    server.network.borrow_mut().insert("pub".to_owned(), facts);
    let short = Duration::from_millis(600);

    let icmp = |targets: &[&str], min: u8| json!({"icmp": {"targets": targets, "minReachable": min}});
    assert_eq!(check(&server, icmp(&["192.0.2.2", "2001:db8::2"], 2), LIMIT), Outcome::Running);
    let began = Instant::now();
    assert_eq!(check(&server, icmp(&["192.0.2.77", "192.0.2.2"], 1), LIMIT), Outcome::Running);
    assert!(began.elapsed() < Duration::from_secs(5), "enough answers end it: {:?}", began.elapsed());
    let message = failed(check(&server, icmp(&["192.0.2.77", "192.0.2.2", "2001:db8::77"], 2), short));
    assert_eq!(
        message,
        "1 of 2 needed targets answer; no answer to ping from 192.0.2.77, 2001:db8::77 within 600ms; \
         `ip route get 192.0.2.77` shows the way there; look at it, and for a firewall"
    );
    // No route at all, and nobody who asks: no answer.
    failed(check(&server, icmp(&["198.51.100.1"], 1), short));
    let unknown = check(&server, icmp(&["no-such-host.invalid"], 1), LIMIT);
    assert!(matches!(&unknown, Outcome::Unknown(m) if m.contains("can't be looked up")), "{unknown:?}");

    let (link, named) = (json!({"link": {"path": "pub"}}), json!({"link": {"interface": "eth0"}}));
    let address = json!({"address": {"resource": "addr"}});
    assert_eq!(check(&server, link.clone(), LIMIT), Outcome::Running);
    assert_eq!(
        failed(check(&server, address.clone(), LIMIT)),
        "192.0.2.10 is not on this server; if nobody meant to remove it, a restart of its resource brings it back"
    );
    assert_eq!(server.run(Action::Start, &resources()["addr"]), Outcome::Running);
    assert_eq!(check(&server, address.clone(), LIMIT), Outcome::Running);
    // Somebody else takes it without asking.
    inside(&other, "ip address add 192.0.2.10/24 dev eth1");
    let message = failed(check(&server, address.clone(), LIMIT));
    assert!(message.starts_with("192.0.2.10 is used by somebody else on eth0, too: "), "{message}");
    // Told once, however often it is seen.
    failed(check(&server, address.clone(), LIMIT));
    let told = server.told();
    assert!(matches!(&told[..], [one] if one.starts_with("AddressConflict: ") && one.ends_with(&message)), "{told:?}");
    inside(&other, "ip address del 192.0.2.10/24 dev eth1");
    assert_eq!(check(&server, address.clone(), LIMIT), Outcome::Running);

    // The other end of the cable.
    inside(&other, "ip link set eth1 down");
    for monitor in [&link, &named, &address] {
        let message = failed(check(&server, monitor.clone(), LIMIT));
        assert!(message.contains("eth0 has no carrier; look at its cable, switch and bond"), "{message}");
    }
    inside(&other, "ip link set eth1 up");
    assert_eq!(check(&server, named.clone(), LIMIT), Outcome::Running);
    common::sh("ip link del eth0");
    let message = failed(check(&server, named, LIMIT));
    assert!(message.contains("has no interface \"eth0\""), "{message}");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_disk_is_read_and_its_area_written_and_a_full_file_system_is_told() {
    common::own_mounts();
    let server = Server::new();
    let disk = common::Disk::new(64, "mkfs.ext4 -q -N 32");
    let read = json!({"diskIO": {"device": disk.device}});
    assert_eq!(check(&server, read.clone(), LIMIT), Outcome::Running);
    let message = failed(check(&server, json!({"diskIO": {"device": "/dev/disk/by-id/gone"}}), LIMIT));
    assert!(message.starts_with("it can't be read: /dev/disk/by-id/gone: No such file"), "{message}");

    let area = common::Disk::new(4, "true");
    let written = |server: &Server| {
        let place = OwnSlot { device: area.device.clone().into(), offset: 0, slot: 2 };
        let plan = Plan::DiskIo(DiskIo { device: area.device.clone().into(), area: Some(place) });
        let check = Check { op: 0, plan: Ok(plan), ..of(server, read.clone(), LIMIT) };
        server.executor.borrow().check(Check { op: 9, ..check });
        answer(server, 9, LIMIT)
    };
    assert!(failed(written(&server)).contains("holds no Holdfast area"));
    format::format(Path::new(&area.device), 0, Force::No).unwrap();
    assert_eq!(written(&server), Outcome::Running);

    let mount = server.run_dir.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    common::sh(&format!("mount {} {}", disk.device, mount.display()));
    let usage = |percent: u8| json!({"usage": {"of": "FileSystem", "path": mount, "maxPercent": percent}});
    assert_eq!(check(&server, usage(50), LIMIT), Outcome::Running);
    // All inodes, and hardly a block.
    common::sh(&format!("cd {}; i=0; while touch $i 2>/dev/null; do i=$((i + 1)); done", mount.display()));
    let message = failed(check(&server, usage(99), LIMIT));
    assert!(
        message.ends_with(
            "mnt (inodes) is 100 % full, at most 99 % are allowed; remove or move files, or raise usage.maxPercent"
        ),
        "{message}"
    );
    common::sh(&format!("rm {0}/[0-9]*; dd if=/dev/zero of={0}/fill bs=1M 2>/dev/null || true", mount.display()));
    let message = failed(check(&server, usage(99), LIMIT));
    assert!(
        message
            .ends_with("mnt is 100 % full, at most 99 % are allowed; remove or move files, or raise usage.maxPercent"),
        "{message}"
    );
    common::sh(&format!("umount {}", mount.display()));
    for of in ["Memory", "Cpu"] {
        assert_eq!(check(&server, json!({"usage": {"of": of, "maxPercent": 100}}), LIMIT), Outcome::Running);
    }
    assert!(
        failed(check(&server, json!({"usage": {"of": "Memory", "maxPercent": 1}}), LIMIT)).contains("the memory is ")
    );
}

/// A journal of this thread's own, taken by a real systemd-journald.
struct Journal(std::process::Child);

impl Journal {
    fn start() -> Journal {
        common::own_mounts();
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().replace('-', "");
        common::sh(
            "mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd/journal /run/log/journal",
        );
        common::sh(&format!(
            "echo {id} > /run/machine-id && touch /etc/machine-id && mount --bind /run/machine-id /etc/machine-id"
        ));
        let daemon = std::process::Command::new("/lib/systemd/systemd-journald").spawn().unwrap();
        common::eventually("the journal runs", LIMIT, || Path::new("/run/systemd/journal/stdout").exists());
        Journal(daemon)
    }

    fn rotate(&self) {
        let files = || common::sh("ls /run/log/journal/* | wc -l").parse::<u32>().unwrap();
        let before = files();
        common::sh(&format!("kill -USR2 {}", self.0.id()));
        common::eventually("another file", LIMIT, || files() > before);
    }

    /// Returns when it can be read.
    fn write(text: &str) {
        common::sh(&format!("echo '{text}' | systemd-cat -t test"));
        common::eventually(text, LIMIT, || common::sh("journalctl --no-pager -t test -o cat").contains(text));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lines_of_the_journal_count_once_over_rotation_and_a_restart_of_the_agent() {
    let server = Server::new();
    let broken = json!({"journal": {"match": "sd[a-z]: I/O error", "within": "1h", "count": 2}});
    let at = |since: u64| {
        let op = 5000 + since;
        let check = of(&server, broken.clone(), LIMIT);
        let since = (since > 0).then_some(holdfast_core::time::Instant(since));
        server.executor.borrow().check(Check { op, since, ..check });
        answer(&server, op, LIMIT)
    };
    let now = holdfast_agent::clock::now().0;
    let none = at(0);
    let without_journal = !Path::new("/run/systemd/journal/socket").exists();
    assert!(!without_journal || matches!(&none, Outcome::Unknown(m) if m.contains("does not run")), "{none:?}");

    let journal = Journal::start();
    // Helpers see the mounts of the thread that their nursery was started by.
    server.restart();
    Journal::write("sda: I/O error before");
    let begun = holdfast_agent::clock::now().0;
    assert_eq!(at(begun), Outcome::Running, "what was before does not count");
    Journal::write("sda: I/O error one");
    Journal::write("all is well");
    assert_eq!(at(begun), Outcome::Running);
    assert_eq!(at(begun), Outcome::Running, "a line counts once");
    journal.rotate();
    server.restart();
    assert_eq!(at(0), Outcome::Running, "nor twice after a restart");
    Journal::write("sdb: I/O error two");
    let message = failed(at(0));
    assert!(
        message.ends_with("within 1h (`journalctl` shows what was before); the last one: sdb: I/O error two"),
        "{message}"
    );
    failed(at(begun));
    assert!(now < begun);
    assert_eq!(at(holdfast_agent::clock::now().0), Outcome::Running, "an action has answered them");
}
