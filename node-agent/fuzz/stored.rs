//! What stands on the own disk, in the Lease of a quorum server, and what other programs print.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_agent::commands::Request;
use holdfast_agent::guard::kill_list;
use holdfast_agent::ledger;
use holdfast_agent::metadata::Metadata;
use holdfast_agent::quorum::object::{BLANK, Object};
use holdfast_agent::resources::mounts;
use holdfast_agent::resources::ocf::agents::{self, Name};
use holdfast_core::durable::Durable;
use holdfast_core::names::{AcceptorId, BootId};
use holdfast_core::view::Ballot;

use crate::targets::{LOCK, Target, record, view};

/// One slot of the ledger: what a server promised is read back as it was written, or not at all.
pub(crate) struct LedgerSlot;

impl Target for LedgerSlot {
    fn valid(&self) -> Vec<Vec<u8>> {
        let fresh = Durable::fresh(AcceptorId(1), BootId(9));
        let promised = Ballot { round: 3, proposer: 2 };
        let member = Durable { view: Some(view()), promised, accepted: Some((promised, view())), ..fresh.clone() };
        [fresh, member].iter().zip(7..).map(|(state, number)| ledger::encode(number, state).expect("it fits")).collect()
    }

    fn takes(&self, input: &[u8]) -> bool {
        ledger::decode(input).is_ok()
    }

    fn check(&self, input: &[u8]) {
        if let Ok((number, state)) = ledger::decode(input) {
            let again = ledger::encode(number, &state).expect("what was read fits");
            assert_eq!(ledger::decode(&again), Ok((number, state)));
        }
    }

    fn seal(&self, input: &mut Vec<u8>) -> bool {
        let Some((head, rest)) = input.split_first_chunk_mut::<24>() else { return false };
        let length = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize % (rest.len() + 1);
        head[16..20].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), &rest[..length]);
        head[20..].copy_from_slice(&sum.to_le_bytes());
        true
    }
}

/// A line that somebody says to the agent's local socket.
pub(crate) struct Commands;

impl Target for Commands {
    fn valid(&self) -> Vec<Vec<u8>> {
        [
            r#"{"status":{}}"#,
            r#"{"failover":{"group":"web","reason":"kernel update"}}"#,
            r#"{"down":{"reason":""}}"#,
            r#"{"run":{"group":"web","name":"worker","command":["/opt/worker","-x"],"directory":"/","user":"root",
                "restarts":3,"window":600,"grace":10}}"#,
            r#"{"stop":{"group":"web","name":"worker"}}"#,
        ]
        .map(|line| line.as_bytes().to_vec())
        .to_vec()
    }

    fn takes(&self, input: &[u8]) -> bool {
        Request::parse(input).is_ok()
    }

    fn check(&self, input: &[u8]) {
        match Request::parse(input) {
            // Sentences for people: neither is what was said to end in an endless one.
            Err(refusal) => assert!(!refusal.is_empty()),
            Ok(request) => {
                let line = request.line();
                assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
                assert_eq!(Request::parse(line.as_bytes()), Ok(request));
            }
        }
    }
}

/// The annotation of a quorum server's Lease.
pub(crate) struct LockObject;

fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

impl Target for LockObject {
    fn valid(&self) -> Vec<Vec<u8>> {
        let mut used = Object { lock: LOCK, counter: 0, view: None, entries: BTreeMap::new() };
        let mut texts = vec![BLANK.as_bytes().to_vec()];
        for (slot, number) in [(1, 12), (3, 14)] {
            used.swap(slot, Some(&record(number))).expect("it is for this lock");
            texts.push(used.text().expect("it fits").into_bytes());
        }
        texts
    }

    fn takes(&self, input: &[u8]) -> bool {
        Object::read(&text(input), LOCK).is_ok()
    }

    fn check(&self, input: &[u8]) {
        if let Ok(object) = Object::read(&text(input), LOCK) {
            assert_eq!(object.lock, LOCK, "the state of another lock is taken");
            if let Ok(again) = object.text() {
                assert_eq!(Object::read(&again, LOCK), Ok(object));
            }
        }
    }

    /// Makes the sum of the bytes inside right.
    fn seal(&self, input: &mut Vec<u8>) -> bool {
        use base64::Engine as _;
        let coded = text(input).rsplit(':').next().unwrap_or_default().to_owned();
        let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(coded.as_bytes()) else { return false };
        *input = format!("1:{:08x}:{coded}", crc32c::crc32c(&bytes)).into_bytes();
        true
    }
}

/// The kill list: a line that can't be read hides no other.
pub(crate) struct KillLines;

const HELD: &str = r#"{"hold":{"group":"web","resource":"addr","cgroup":"/sys/fs/cgroup/h/web","address":"10.0.0.9"}}"#;

impl Target for KillLines {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![format!("{HELD}\n").into_bytes(), format!("{HELD}\n{{\"released\":\"web\"}}\n{HELD}\n").into_bytes()]
    }

    fn takes(&self, input: &[u8]) -> bool {
        kill_list::read(input).len() == 1
    }

    fn check(&self, input: &[u8]) {
        let known = kill_list::read(input);
        let after = kill_list::read(&[input, b"\n", HELD.as_bytes(), b"\n"].concat());
        let ours = kill_list::read(HELD.as_bytes());
        assert!(after.contains(&ours[0]), "an entry is hidden by what stands before it");
        assert!(known.iter().all(|entry| after.contains(entry)), "an entry is lost");
    }
}

/// What a fence agent prints about itself.
pub(crate) struct AgentMetadata;

const FENCE_AGENT: &str = r#"<?xml version="1.0" ?><resource-agent name="fence_x" shortdesc="a switch"><parameters>
<parameter name="ip" required="1"><getopt mixed="-a" /><content type="string" default="x" /></parameter>
<parameter name="password" required="0"><content type="string" /></parameter></parameters>
<actions><action name="on" automatic="0"/><action name="off" /><action name="status" /></actions></resource-agent>"#;

const RESOURCE_AGENT: &str = r#"<?xml version="1.0"?><!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="X" version="1.0"><shortdesc lang="en">An &lt;agent&gt;</shortdesc><parameters>
<parameter name="ip" unique="1" required="1"><shortdesc lang="en">Its address</shortdesc><content type="string" default=""/></parameter>
</parameters><actions><action name="start" timeout="20s"/><action name="stop" timeout="100"/>
<action name="monitor" depth="10" timeout="30000ms" interval="1min"/><action name="monitor" depth="0" timeout="30s" interval="15s"/>
</actions></resource-agent>"#;

impl Target for AgentMetadata {
    fn valid(&self) -> Vec<Vec<u8>> {
        [FENCE_AGENT, RESOURCE_AGENT].map(|text| text.as_bytes().to_vec()).to_vec()
    }

    fn takes(&self, input: &[u8]) -> bool {
        Metadata::parse(&text(input)).is_ok_and(|found| found.actions.contains("on") || found.actions.contains("start"))
    }

    fn check(&self, input: &[u8]) {
        let Ok(found) = Metadata::parse(&text(input)) else { return };
        assert_eq!(Metadata::parse(&format!("\n {}", text(input).trim_start())), Ok(found.clone()));
        for proposed in &found.proposed {
            let known = found.proposed(&proposed.action).expect("an action that is there has times");
            assert!(known.depth <= proposed.depth);
            // What the API takes.
            for time in [proposed.timeout, proposed.interval].into_iter().flatten() {
                assert!(!time.is_zero() && time <= Duration::from_secs(24 * 3600), "{time:?}");
            }
        }
        // A resource that gives every parameter and no other is refused only for what the agent is.
        let all = found.parameters.keys().map(|name| (name.clone(), "x".to_owned())).collect();
        let name = Name::parse("test:X").expect("a name");
        for refusal in agents::refusals(&name, &found, &all) {
            assert!(refusal.starts_with("ocf.type: "), "{refusal}");
        }
    }
}

/// The kernel's table of mounts, in which anybody who may mount chooses names.
pub(crate) struct MountTable;

const MOUNT: &[u8] = b"36 35 98:0 /mnt1 /srv/a\\040b rw,noatime master:1 - ext4 /dev/sda rw,errors=continue";

impl Target for MountTable {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![[MOUNT, b"\n"].concat(), [MOUNT, b"\n", MOUNT, b"\n"].concat()]
    }

    fn takes(&self, input: &[u8]) -> bool {
        mounts::parse_table(input).iter().any(|mount| mount.point.as_os_str() == "/srv/a b")
    }

    fn check(&self, input: &[u8]) {
        let before = mounts::parse_table(input).len();
        let after = mounts::parse_table(&[input, b"\n", MOUNT].concat());
        assert_eq!(after.len(), before + 1, "a mount is hidden by what stands before it");
    }
}
