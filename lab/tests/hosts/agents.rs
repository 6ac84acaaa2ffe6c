//! Real agents of Debian's package resource-agents, unchanged, each in a group of its own: started, found broken by their
//! checks and started again, and stopped, by the word of those who use them. `exportfs` needs a kernel's NFS server of its
//! own: `node-agent/tests/machine_nfs.rs`. Taking over: `ocf` and `examples`.

use std::path::Path;
use std::thread;

use holdfast_lab::{CLIENT, Cluster, ClusterOptions, wait_for};
use serde_yaml::Value;

use crate::harness::{LIMIT, LogsOnPanic};

const SERVER: &str = "alder";

/// One agent.
struct Case {
    group: &'static str,
    /// Shell: makes the files that it needs.
    files: &'static str,
    /// YAML: the agent and its parameters.
    ocf: &'static str,
    /// On which host somebody looks, by which script, and what it prints if all is well.
    evidence: (&'static str, &'static str, &'static str),
    /// What breaks it, on the server.
    breaks: &'static str,
}

const CASES: [Case; 9] = [
    Case {
        group: "dummy",
        files: "",
        ocf: "{type: Dummy}",
        evidence: (SERVER, "test -e /run/resource-agents/Dummy-dummy.app.state && echo there", "there"),
        breaks: "rm /run/resource-agents/Dummy-dummy.app.state",
    },
    Case {
        // Started, and promoted by nobody.
        group: "stateful",
        files: "",
        ocf: "{type: Stateful}",
        evidence: (SERVER, "cat /run/resource-agents/Stateful-stateful.app.state", "slave"),
        breaks: "rm /run/resource-agents/Stateful-stateful.app.state",
    },
    Case {
        group: "delay",
        files: "",
        ocf: "{type: Delay, parameters: {startdelay: '1', stopdelay: '0', mondelay: '0'}}",
        evidence: (SERVER, "test -e /run/resource-agents/Delay_delay.app && echo there", "there"),
        breaks: "rm /run/resource-agents/Delay_delay.app",
    },
    Case {
        group: "ipaddr2",
        files: "",
        ocf: "{type: IPaddr2, parameters: {ip: 192.0.2.20, cidr_netmask: '24', nic: pub}}",
        evidence: (CLIENT, "ping -q -c 1 -W 1 192.0.2.20 > /dev/null && echo there", "there"),
        breaks: "ip address delete 192.0.2.20/24 dev pub",
    },
    Case {
        // Mounted all the time: the plain check is content, the one that writes is not.
        group: "filesystem",
        files: "",
        ocf: "{type: Filesystem, depths: [{depth: 20, interval: 1s}],
            parameters: {device: none, directory: /mnt/agents, fstype: tmpfs}}",
        evidence: (SERVER, "touch /mnt/agents/written && stat -f -c %T /mnt/agents", "tmpfs"),
        breaks: "mount -o remount,ro /mnt/agents",
    },
    Case {
        // It runs all the time, and does not answer what the deeper check asks.
        group: "nginx",
        files: "mkdir -p /run/web/html
            echo nginx > /run/web/html/index.html
            printf '%s\n' 'pid /run/web/nginx.pid;' 'error_log /run/web/error.log;' 'events {}' \
              'http { access_log off; server { listen 81; root /run/web/html; } }' > /run/web/nginx.conf",
        ocf: "{type: nginx, depths: [{depth: 10, interval: 1s, timeout: 2s}], parameters: {httpd: /usr/sbin/nginx,
            configfile: /run/web/nginx.conf, status10url: 'http://127.0.0.1:81/', status10regex: ^nginx}}",
        evidence: (CLIENT, "curl -s --max-time 1 http://192.0.2.1:81/", "nginx"),
        breaks: "kill -STOP $(pgrep -P $(cat /run/web/nginx.pid))",
    },
    Case {
        group: "apache",
        files: "mkdir -p /run/apache/html
            echo apache > /run/apache/html/index.html
            modules=/usr/lib/apache2/modules
            printf '%s\n' 'ServerRoot /run/apache' 'ServerName alder' 'Listen 82' 'PidFile /run/apache/httpd.pid' \
              'ErrorLog /run/apache/error.log' \
              \"LoadModule mpm_event_module $modules/mod_mpm_event.so\" \
              \"LoadModule authz_core_module $modules/mod_authz_core.so\" \
              \"LoadModule dir_module $modules/mod_dir.so\" \
              'User www-data' 'Group www-data' 'DocumentRoot /run/apache/html' > /run/apache/httpd.conf",
        ocf: "{type: apache, parameters: {httpd: /usr/sbin/apache2, configfile: /run/apache/httpd.conf,
            statusurl: 'http://127.0.0.1:82/', testregex: ^apache}}",
        evidence: (CLIENT, "curl -s --max-time 1 http://192.0.2.1:82/", "apache"),
        breaks: "kill -KILL $(cat /run/apache/httpd.pid)",
    },
    Case {
        group: "redis",
        files: "printf '%s\n' 'port 6380' 'bind *' 'protected-mode no' 'save \"\"' 'dir /run' > /run/redis.conf",
        ocf: "{type: redis, parameters: {config: /run/redis.conf, rundir: /run/cache}}",
        evidence: (CLIENT, "timeout 1 redis-cli -h 192.0.2.1 -p 6380 ping", "PONG"),
        breaks: "kill -KILL $(cat /run/cache/redis-server.pid)",
    },
    Case {
        group: "pgsql",
        files: "set -e
            test -e /run/pg/data && exit 0
            install -d -o postgres -g postgres -m 700 /run/pg
            setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/15/bin/initdb -D /run/pg/data \
              --no-sync --wal-segsize=1 --auth=trust --no-instructions
            echo 'host all all 192.0.2.0/24 trust' >> /run/pg/data/pg_hba.conf",
        ocf: "{type: pgsql, parameters: {pgctl: /usr/lib/postgresql/15/bin/pg_ctl, pgdata: /run/pg/data,
            config: /run/pg/data/postgresql.conf, pgport: '5433', socketdir: /run/pg,
            start_opt: '-c listen_addresses=* -c port=5433 -c unix_socket_directories=/run/pg'}}",
        evidence: (
            CLIENT,
            "psql -Atqc 'select 6 * 7' 'host=192.0.2.1 port=5433 user=postgres connect_timeout=1'",
            "42",
        ),
        breaks: "kill -KILL $(head -n 1 /run/pg/data/postmaster.pid)",
    },
];

fn group(case: &Case) -> Value {
    let ocf: Value = serde_yaml::from_str(case.ocf).unwrap_or_else(|error| panic!("{}: {error}", case.group));
    let mut app = serde_json::json!({"name": "app", "monitor": {"interval": "1s"}, "ocf": ocf});
    let mut resources = Vec::new();
    if !case.files.is_empty() {
        app["dependsOn"] = serde_json::json!(["files"]);
        let script = serde_json::json!({"start": {"inline": case.files}, "stop": {"inline": "exit 0"}});
        resources.push(serde_json::json!({"name": "files", "script": script}));
    }
    resources.push(app);
    let spec = serde_json::json!({"subCluster": "shop", "placement": {"servers": [SERVER]}, "resources": resources});
    let object = serde_json::json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
        "metadata": {"name": case.group, "namespace": "ha"}, "spec": spec});
    serde_yaml::to_value(object).expect("YAML")
}

/// What somebody who uses it sees.
fn seen(cluster: &Cluster, case: &Case) -> String {
    let (host, script, _) = case.evidence;
    let found = cluster.host(host).expect("a host").exec(&["sh", "-c", script]);
    found.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

fn works(cluster: &Cluster, case: &Case) {
    wait_for(&format!("{} to work", case.group), LIMIT, |last| {
        *last = seen(cluster, case);
        Ok((last == case.evidence.2).then_some(()))
    })
    .expect("it serves");
}

#[test]
fn real_agents_are_started_found_broken_started_again_and_stopped() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-servers");
    let edit = |documents: &mut Vec<(std::path::PathBuf, Value)>| {
        documents.retain(|(_, document)| document["kind"] != "FailoverGroup");
        documents.extend(CASES.iter().map(|case| (case.group.into(), group(case))));
    };
    let options = ClusterOptions { edit: Some(&edit), ..ClusterOptions::default() };
    let cluster = Cluster::start("agents", &directory, &options).expect("the cluster is built");
    let server = cluster.host(SERVER).expect("a host");
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(vec![server.clone()]);
    for case in &CASES {
        cluster.wait_online(case.group, Some(SERVER), LIMIT).expect("it starts");
        works(&cluster, case);
    }

    for case in &CASES {
        server.exec(&["sh", "-c", case.breaks]).unwrap_or_else(|error| panic!("{}: {error}", case.group));
    }
    for case in &CASES {
        wait_for(&format!("{} to be started again", case.group), LIMIT, |last| {
            let status = cluster.group(case.group)?.status.unwrap_or_default();
            *last = format!("{:?}", status.resources);
            Ok(status.resources.iter().any(|found| found.name == "app" && found.restarts == 1).then_some(()))
        })
        .expect("the check sees it");
        cluster.wait_online(case.group, Some(SERVER), LIMIT).expect("it is back");
        works(&cluster, case);
    }

    thread::scope(|scope| {
        for case in &CASES {
            scope.spawn(|| {
                cluster.holdfast(&["stop", case.group, "--namespace", "ha"]).expect("it is stopped");
                assert_ne!(seen(&cluster, case), case.evidence.2, "{} is gone", case.group);
            });
        }
    });
    let left = server.processes().expect("its processes");
    let names = ["nginx", "apache2", "redis-server", "postgres"];
    let left: Vec<_> =
        left.iter().filter(|p| p.args.first().is_some_and(|a| names.iter().any(|n| a.contains(n)))).collect();
    assert!(left.is_empty(), "{left:?}");
    cluster.close().expect("the lab goes");
}
