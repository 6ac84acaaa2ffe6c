//! A real etcd cluster on loopback, with TLS and client certificates, whose members can be killed, frozen and started
//! again. It is the system's own program.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::TlsFiles;

/// The program.
const ETCD: &str = "/usr/bin/etcd";

/// How long a process may go on after it was told to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Freezes (`STOP`) or thaws (`CONT`) a process. When this returns after `STOP` none of its threads runs any more: the
/// signal alone does not say so, and a thread that the machine had set aside may answer a client meanwhile.
///
/// # Errors
/// When the process does not run, or goes on for 10 s.
pub fn signal(process: &Child, name: &str) -> io::Result<()> {
    let pid = process.id();
    // The shell's own `kill`: the program is of a package that a bare machine lacks.
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status()?;
    if !done.success() {
        return Err(io::Error::other("the signal was not sent"));
    }
    let deadline = Instant::now() + STOPS_WITHIN;
    while name == "STOP" && !is_stopped(pid)? {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("process {pid} goes on")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether the kernel has stopped every thread of a process (`State` in proc_pid_status(5)).
fn is_stopped(pid: u32) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended meanwhile is no thread.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        if !status.lines().any(|line| line.starts_with("State:\tT")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A cluster; its members are killed when it is dropped.
pub struct EtcdCluster {
    dir: tempfile::TempDir,
    members: Vec<Member>,
    /// Further arguments of each member, e.g. a quota.
    pub arguments: Vec<String>,
}

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl EtcdCluster {
    /// Certificates and ports for this many members, none of which runs yet.
    ///
    /// # Errors
    /// When a file or a port can't be had.
    pub fn new(members: usize) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        make_certificates(dir.path()).map_err(io::Error::other)?;
        // Held until all are chosen, so that no port comes twice.
        let listeners = (0..members * 2).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
        let ports = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<io::Result<Vec<_>>>()?;
        let member = |pair: &[u16]| Member { client: pair[0], peer: pair[1], process: None };
        Ok(Self { dir, members: ports.chunks(2).map(member).collect(), arguments: Vec::new() })
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// What `--store` takes, the member `first` in front.
    pub fn spec(&self, first: usize) -> String {
        let count = self.members.len();
        let ports = (0..count).map(|n| self.members[(first + n) % count].client);
        format!("etcd://{}", ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(","))
    }

    /// The files of a client that etcd accepts.
    pub fn tls(&self) -> TlsFiles {
        TlsFiles { ca: self.file("ca.pem"), client: Some((self.file("client.pem"), self.file("client.key"))) }
    }

    /// A file of the certificates: `ca.pem`, `client.pem`, `client.key`, and of a stranger `other-ca.pem`, `other.pem`,
    /// `other.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts every member that does not run.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(&mut self) -> io::Result<()> {
        (0..self.members.len()).try_for_each(|n| self.start_one(n))
    }

    /// Starts one member if it does not run.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_one(&mut self, n: usize) -> io::Result<()> {
        if self.members[n].process.is_some() {
            return Ok(());
        }
        let member = &self.members[n];
        let (client, peer) =
            (format!("https://127.0.0.1:{}", member.client), format!("https://127.0.0.1:{}", member.peer));
        let process = Command::new(ETCD)
            .args(["--name", &format!("m{n}"), "--log-level", "error", "--logger", "zap", "--data-dir"])
            .arg(self.data(n))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.peers()])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .args(["--trusted-ca-file".as_ref(), self.file("ca.pem").as_os_str()])
            .args(["--cert-file".as_ref(), self.file("server.pem").as_os_str()])
            .args(["--key-file".as_ref(), self.file("server.key").as_os_str()])
            .args(["--peer-trusted-ca-file".as_ref(), self.file("ca.pem").as_os_str()])
            .args(["--peer-cert-file".as_ref(), self.file("server.pem").as_os_str()])
            .args(["--peer-key-file".as_ref(), self.file("server.key").as_os_str()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.members[n].process = Some(process);
        Ok(())
    }

    /// Kills one member; no signal handler runs.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut process) = self.members[n].process.take() {
            // One that is frozen dies, too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Kills every member.
    pub fn kill_all(&mut self) {
        (0..self.members.len()).for_each(|n| self.kill(n));
    }

    /// Freezes (`STOP`) or thaws (`CONT`) one member.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, n: usize, name: &str) -> io::Result<()> {
        let process = self.members[n].process.as_ref().ok_or_else(|| io::Error::other("the member does not run"))?;
        signal(process, name)
    }

    /// Takes a snapshot of the running cluster, as its administrators do.
    ///
    /// # Errors
    /// When it can't be taken.
    pub fn save(&self, name: &str) -> io::Result<()> {
        let endpoint = format!("https://127.0.0.1:{}", self.members[0].client);
        let mut command = Command::new("etcdctl");
        command.args(["--endpoints", &endpoint, "--cacert"]).arg(self.file("ca.pem"));
        command.arg("--cert").arg(self.file("client.pem")).arg("--key").arg(self.file("client.key"));
        run(command.args(["snapshot", "save"]).arg(self.file(name)))
    }

    /// Makes all members anew from a snapshot, as a new cluster with their names and addresses; they must not run.
    ///
    /// # Errors
    /// When it can't be restored.
    pub fn restore(&self, name: &str) -> io::Result<()> {
        for (n, member) in self.members.iter().enumerate() {
            fs::remove_dir_all(self.data(n))?;
            let mut command = Command::new("etcdctl");
            command.args(["snapshot", "restore"]).arg(self.file(name)).args(["--name", &format!("m{n}"), "--data-dir"]);
            command.arg(self.data(n)).args(["--initial-cluster", &self.peers()]);
            run(command.args(["--initial-advertise-peer-urls", &format!("https://127.0.0.1:{}", member.peer)]))?;
        }
        Ok(())
    }

    /// All members with their addresses, as they know each other.
    fn peers(&self) -> String {
        let peers = self.members.iter().enumerate().map(|(n, m)| format!("m{n}=https://127.0.0.1:{}", m.peer));
        peers.collect::<Vec<_>>().join(",")
    }

    fn data(&self, n: usize) -> PathBuf {
        self.file(&format!("data-{n}"))
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Runs a tool to its end.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.env("ETCDCTL_API", "3").output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// An authority with a certificate for the members and one for clients, and another authority with one for a client.
fn make_certificates(dir: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for (authority, leaves) in [("ca", ["server", "client"].as_slice()), ("other-ca", ["other"].as_slice())] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        fs::write(dir.join(format!("{authority}.pem")), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        for leaf in leaves {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
            params.distinguished_name.push(rcgen::DnType::CommonName, *leaf);
            // A member is a client of its peers.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            fs::write(dir.join(format!("{leaf}.pem")), params.signed_by(&key, &issuer)?.pem())?;
            fs::write(dir.join(format!("{leaf}.key")), key.serialize_pem())?;
        }
    }
    Ok(())
}
