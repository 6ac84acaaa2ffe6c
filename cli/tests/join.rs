//! A server joins a control plane: real processes, as on two machines. Needs root, for the agent's cgroup.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: &str = "ha/db/db1";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn holdfast() -> Command {
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
}

/// A process that is asked to end when dropped, and killed if it does not.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control plane whose agents' certificates live as long as given.
struct Control {
    _process: Running,
    directory: tempfile::TempDir,
    url: String,
}

/// Starts a server on a free port and gives its first line.
fn ready(command: &[&str], directory: &Path) -> (Running, String) {
    let mut process = holdfast()
        .args(command)
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    (Running(process), line)
}

impl Control {
    fn start(life: &str) -> Control {
        let directory = tempfile::tempdir().expect("a directory");
        let (process, line) = ready(&["server", "--agent-certificate-life", life], directory.path());
        let url = line.strip_prefix("ready: ").and_then(|rest| rest.split(',').next()).expect("ready").to_owned();
        Control { _process: process, directory, url }
    }

    /// A command of the administrator, which must succeed; its standard output.
    fn admin(&self, arguments: &[&str]) -> String {
        let output =
            holdfast().args(arguments).env("KUBECONFIG", self.directory.path().join("admin.kubeconfig")).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn token(&self, arguments: &[&str]) -> String {
        self.admin(&[&["token", "create"], arguments].concat()).trim().to_owned()
    }

    /// Who asked for a certificate, in the order of time, as kubectl shows it.
    fn requests(&self) -> Vec<String> {
        let output = Command::new("kubectl")
            .args(["get", "--raw", REQUESTS])
            .env("KUBECONFIG", self.directory.path().join("admin.kubeconfig"))
            .env("HOME", self.directory.path())
            .output()
            .expect("kubectl is installed");
        let list: Value = serde_json::from_slice(&output.stdout).expect("a list");
        let mut items: Vec<&Value> = list["items"].as_array().expect("items").iter().collect();
        let revision =
            |item: &Value| item["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        items.sort_by_key(|item| revision(item));
        items.iter().map(|item| item["spec"]["username"].as_str().expect("a user").to_owned()).collect()
    }
}

/// A server's files.
struct Machine {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup2 is mounted");
        let mount = mount.split(' ').nth(1).expect("a mount point");
        let cgroup = Path::new(mount).join(format!("holdfast-{name}-{}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("a cgroup can be made (this test needs root)");
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "namespace: ha\nsubCluster: db\nserver: db1\ncredentials: {}\ndataDir: {}\nrunDir: {}\ncgroup: {}\n",
            at("agent.kubeconfig"),
            at("data"),
            at("run"),
            cgroup.display()
        );
        std::fs::write(directory.path().join("agent.yaml"), config).expect("written");
        Machine { directory, cgroup }
    }

    fn credentials(&self) -> PathBuf {
        self.directory.path().join("agent.kubeconfig")
    }

    fn agent(&self, url: &str, token: &str) -> Command {
        let mut command = holdfast();
        command.args(["agent", "--config"]).arg(self.directory.path().join("agent.yaml"));
        command.args(["--join", url, "--token", token]).stdin(Stdio::null());
        command
    }

    /// Joins, which must be refused with exit status 1; what it said.
    fn refused(&self, url: &str, token: &str) -> String {
        let Output { status, stderr, .. } = self.agent(url, token).output().expect("the program runs");
        let text = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(!self.credentials().exists(), "{text}");
        text
    }
}

impl Drop for Machine {
    /// The cgroups go once everything in them has ended.
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = std::fs::remove_dir(directory);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.cgroup.exists() && Instant::now() < end {
            remove(&self.cgroup);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn until<T>(what: &str, check: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_joins_with_its_token_and_lives_on_with_renewed_certificates() {
    let control = Control::start("10s");
    let machine = Machine::new("join");
    let token = control.token(&["--server", SERVER]);
    let agent = machine.agent(&control.url, &token).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let agent = Running(agent.expect("the agent starts"));
    until("there are credentials", || machine.credentials().exists().then_some(()));
    let mode = std::fs::metadata(machine.credentials()).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = std::fs::read_to_string(machine.credentials()).expect("read");
    // The third certificate is asked for after the first has ended: with the second.
    let requests = until("two renewals", || Some(control.requests()).filter(|requests| requests.len() >= 3));
    let own = "holdfast:server:ha:db:db1";
    assert!(
        requests[0].starts_with("system:bootstrap:") && requests[1..].iter().all(|user| user == own),
        "{requests:?}"
    );
    until("the file holds a new certificate", || {
        std::fs::read_to_string(machine.credentials()).ok().filter(|text| *text != first)
    });
    assert!(!machine.directory.path().join("agent.joining.key").exists());
    drop(agent);
    // The same command again, as a supervisor gives it: the token, which is used up, is not needed.
    let again = machine.agent(&control.url, &token).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut again = Running(again.expect("the agent starts"));
    let said = BufReader::new(again.0.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(said.into_iter().any(|line| line.contains("this server has credentials already")));
}

#[test]
fn a_token_that_is_not_for_this_server_or_has_ended_or_is_of_another_control_plane_is_refused() {
    let (control, other) = (Control::start("1h"), Control::start("1h"));
    let machine = Machine::new("refused");
    let wrong = machine.refused(&control.url, &control.token(&["--server", "ha/db/db2"]));
    assert!(
        wrong.contains("is for the server \"ha/db/db2\"") && wrong.contains("token create --server ha/db/db1"),
        "{wrong}"
    );
    let ended = machine.refused(&control.url, &control.token(&["--server", SERVER, "--ttl", "1ms"]));
    assert!(ended.contains("does not take the token") && ended.contains("token create --server ha/db/db1"), "{ended}");
    // Nothing is shown to a server that the token does not name.
    let foreign = machine.refused(&control.url, &other.token(&["--server", SERVER]));
    assert!(foreign.contains("does not show that it is the API server of the token"), "{foreign}");
    let nobody = machine.refused("https://127.0.0.1:1", &control.token(&["--server", SERVER]));
    assert!(nobody.contains("can't be reached"), "{nobody}");
    let text = machine.refused(&control.url, "abcdef.0123456789abcdef");
    assert!(text.contains("ID.SECRET:sha256:FINGERPRINT"), "{text}");
    let output = holdfast().args(["token", "create", "--server", "db1"]).output().expect("the program runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("NAMESPACE/SUBCLUSTER/SERVER"));
}

#[test]
fn what_init_prepares_is_what_the_server_then_uses() {
    let directory = tempfile::tempdir().expect("a directory");
    let init = || {
        let output =
            holdfast().args(["init", "--listen", "127.0.0.1:6999", "--data-dir"]).arg(directory.path()).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (
            String::from_utf8_lossy(&output.stderr).into_owned(),
            std::fs::read(directory.path().join("pki/ca.crt")).expect("a CA"),
        )
    };
    let (text, ca) = init();
    assert!(text.contains("holdfast server --data-dir") && text.contains("holdfast token create"), "{text}");
    assert_eq!(init().1, ca, "given again it keeps what is there");
    let (_process, line) = ready(&["apiserver"], directory.path());
    assert!(line.starts_with("ready: "), "{line}");
    assert_eq!(std::fs::read(directory.path().join("pki/ca.crt")).expect("a CA"), ca);
}
