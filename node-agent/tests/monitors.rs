//! Checks of monitors in real helpers: what is a failure of the service, what is none, and that a check is over before
//! anything is stopped.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{Server, failed};
use holdfast_agent::executor::Check;
use holdfast_core::{Action, Input, Outcome};
use serde_json::{Value, json};

/// Carries a check out and waits for its answer.
fn check(server: &Server, monitor: Value, timeout: Duration) -> Outcome {
    let op = submit(server, monitor, timeout);
    answer(server, op, timeout + Duration::from_secs(10))
}

fn submit(server: &Server, mut monitor: Value, timeout: Duration) -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    let op = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    monitor["name"] = "answers".into();
    monitor["action"] = "Report".into();
    let spec = serde_json::from_value(monitor).unwrap();
    let check = Check { op, group: common::GROUP.into(), monitor: "answers".into(), spec: Some(spec), timeout };
    server.executor.borrow().check(check);
    op
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
    assert_eq!(message, "exit 3; last line: no rows");
    let mut other = shell("echo primary; exit 3");
    other["exec"]["exitCodes"] = json!([0, 3]);
    other["exec"]["output"] = "^prim".into();
    assert_eq!(check(&server, other.clone(), LIMIT), Outcome::Running);
    other["exec"]["output"] = "^standby".into();
    let message = failed(check(&server, other, LIMIT));
    assert!(message.contains("does not match \"^standby\"; last line: primary"), "{message}");
    // More than a pipe holds must not make it wait; what it leaves running is ended.
    assert_eq!(check(&server, shell("yes | head -c 3000000; sleep 300 & exit 0"), LIMIT), Outcome::Running);
    let told = shell("test $HOLDFAST_GROUP.$HOLDFAST_MONITOR.$HOLDFAST_SERVER = ledger.answers.db1");
    assert_eq!(check(&server, told, LIMIT), Outcome::Running);

    let began = Instant::now();
    let message = failed(check(&server, shell("echo asking; sleep 300 & wait"), Duration::from_millis(500)));
    assert_eq!(message, "the program did not end within 500ms; last line: asking");
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
    let unknown = Check { op: 7, group: common::GROUP.into(), monitor: "gone".into(), spec: None, timeout: LIMIT };
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
    assert!(message.ends_with("the body does not match \"primary\""), "{message}");
    let bad = web(Some("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"));
    let message = failed(check(&server, http(&bad, json!({})), LIMIT));
    assert!(message.ends_with("/healthz?deep=1 answers 500 Internal Server Error"), "{message}");
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
