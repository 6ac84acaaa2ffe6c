//! The lock on a stock Kubernetes API server, with the role that docs/quorum-server.md gives to agents.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use holdfast_agent::quorum::access::{AccessError, Credentials};
use serde_json::json;

use super::{LIMIT, check, open, swaps_at_the_same_time};

/// An etcd and a kube-apiserver; killed when dropped.
struct Kubernetes {
    children: Vec<Child>,
    directory: tempfile::TempDir,
    url: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

impl Kubernetes {
    fn start(program: &Path) -> Kubernetes {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).to_str().expect("a name").to_owned();
        let (etcd, peer, api) = (free_port(), free_port(), free_port());
        fs::write(at("tokens"), "boss,admin,1,\"system:masters\"\nguest,shop,2\n").expect("written");
        let key = Command::new("openssl").args(["genrsa", "-out", &at("key"), "2048"]).output().expect("openssl");
        assert!(key.status.success(), "{}", String::from_utf8_lossy(&key.stderr));
        let log = fs::File::create(at("log")).expect("a log");
        let spawn = |mut command: Command| {
            command.stdout(Stdio::null()).stderr(log.try_clone().expect("the log")).spawn().expect("it starts")
        };
        let mut command = Command::new("etcd");
        let (client, peers) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peer}"));
        command.args(["--data-dir", &at("etcd"), "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        let mut server = Command::new(program);
        server.args(["--etcd-servers", &client, "--secure-port", &api.to_string(), "--bind-address", "127.0.0.1"]);
        server.args(["--cert-dir", &at("certs"), "--token-auth-file", &at("tokens"), "--authorization-mode", "RBAC"]);
        server.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        server.args(["--service-account-signing-key-file", &at("key"), "--service-account-key-file", &at("key")]);
        server.args(["--service-cluster-ip-range", "10.0.0.0/24"]);
        let url = format!("https://127.0.0.1:{api}");
        Kubernetes { children: vec![spawn(command), spawn(server)], url, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("a name").to_owned()
    }

    /// Its administrator's kubeconfig, once it answers.
    fn admin(&self) -> String {
        let path = self.path("admin.kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "k", "cluster": {"server": self.url, "certificate-authority": self.path("certs/apiserver.crt")}}],
            "users": [{"name": "admin", "user": {"token": "boss"}}],
            "contexts": [{"name": "k", "context": {"cluster": "k", "user": "admin"}}],
            "current-context": "k",
        });
        fs::write(&path, kubeconfig.to_string()).expect("written");
        let until = Instant::now() + 3 * LIMIT;
        while !self.kubectl(&["get", "--raw", "/readyz"], &path) {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < until, "it does not answer:\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        path
    }

    fn kubectl(&self, args: &[&str], kubeconfig: &str) -> bool {
        let output = Command::new("kubectl").args(args).args(["--kubeconfig", kubeconfig]).output().expect("kubectl");
        output.status.success()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The role of docs/quorum-server.md, for the lock of this test.
fn documented_role() -> String {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quorum-server.md")).expect("the page");
    let from = page.find("apiVersion: rbac.authorization.k8s.io/v1").expect("the role");
    let role = page[from..].split("```").next().expect("its end");
    role.replace("quartet-lock", "db-lock").replace("[quartet]", "[db]")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kube-apiserver: KUBE_APISERVER=FILE cargo test -p holdfast --test quorum -- --ignored"]
async fn a_stock_kubernetes_api_server_carries_the_lock_with_the_documented_role_and_nothing_more() {
    let program = std::env::var_os("KUBE_APISERVER").expect("KUBE_APISERVER names the program");
    let kubernetes = Kubernetes::start(Path::new(&program));
    let admin = kubernetes.admin();
    let role = kubernetes.path("role.yaml");
    fs::write(&role, documented_role()).expect("written");
    assert!(kubernetes.kubectl(&["create", "namespace", "ha"], &admin));
    assert!(kubernetes.kubectl(&["apply", "-f", &role], &admin));
    let binding = ["create", "rolebinding", "shop", "-n", "ha", "--role", "db-lock", "--user", "shop"];
    assert!(kubernetes.kubectl(&binding, &admin));

    let ca = fs::read(kubernetes.path("certs/apiserver.crt")).expect("its certificate");
    let secret = BTreeMap::from([("ca.crt".to_owned(), ca), ("token".to_owned(), b"guest".to_vec())]);
    let credentials = Credentials::Secret(secret);
    let absent = open(&kubernetes.url, &credentials, "ha/db").await.swap(1, None).await.expect_err("there is none");
    assert!(matches!(absent, AccessError::Absent { .. }), "{absent}");
    check(&["lock", "create", "ha/db", "--kubeconfig", &admin], 0, "lock ");
    check(&["lock", "create", "ha/web", "--kubeconfig", &admin], 0, "lock ");
    swaps_at_the_same_time(&kubernetes.url, &credentials, &admin).await;
    let foreign = open(&kubernetes.url, &credentials, "ha/web").await.swap(1, None).await.expect_err("not theirs");
    assert!(matches!(foreign, AccessError::Forbidden { .. }), "{foreign}");
}
