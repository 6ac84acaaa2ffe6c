//! What is fuzzed, and what has to hold for every input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::time::Duration;

use holdfast_agent::disk::layout::{self, AREA, BLOCK, Beat, Header, RING, Ring};
use holdfast_agent::paths::seal::{Keyring, Kind};
use holdfast_agent::paths::{seen, serial};
use holdfast_core::compact::Compact;
use holdfast_core::config::{LockKind, PathKind};
use holdfast_core::frame::{Frame, Heard as Echo, Intent};
use holdfast_core::lock::LockRecord;
use holdfast_core::message::{Envelope, Message};
use holdfast_core::names::{AcceptorId, BootId, ChainId, ClusterId};
use holdfast_core::settings::{LockPlace, PathSetting, Settings};
use holdfast_core::view::{Acceptor, Ballot, Departed, Evidence, Member, MemberTiming, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A parser.
pub(crate) trait Target {
    /// Inputs that it takes.
    fn valid(&self) -> Vec<Vec<u8>>;
    /// Whether it takes an input.
    fn takes(&self, input: &[u8]) -> bool;
    /// Panics if something is wrong about how it reads an input.
    fn check(&self, input: &[u8]);
    /// Makes check sums right that are no secret; returns whether there are any.
    fn seal(&self, _input: &mut Vec<u8>) -> bool {
        false
    }
}

pub(crate) const LOCK: AcceptorId = AcceptorId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn keys() -> Keyring {
    let data = [("1".to_owned(), vec![7; 32]), ("65".to_owned(), vec![9; 32])].into();
    Keyring::new("ha", "db", &data, 0).expect("keys")
}

fn timing() -> MemberTiming {
    let (lease, reset) = (Duration::from_millis(500), Duration::from_millis(200));
    let (soft_stop, kill) = (Duration::from_millis(300), Duration::from_millis(400));
    MemberTiming { lease, soft_stop, kill, reset, takeover_wait: Duration::from_secs(1), watchdog: true }
}

fn settings() -> Settings {
    let ms = Duration::from_millis;
    Settings {
        servers: [("a".into(), 1), ("b".into(), 2)].into(),
        paths: [("ic".into(), PathSetting { kind: PathKind::Interconnect, wires: [7, 9].into() })].into(),
        lock: Some(LockPlace { kind: LockKind::Disk, place: 5 }),
        interval: ms(100),
        timeout: ms(1000),
        stall: ms(200),
        renew: ms(50),
        io_timeout: ms(50),
        drain: ms(50),
    }
}

fn frame() -> Frame {
    let heard = Echo { paths: [("ic".into(), (77_000, 5)), ("com".into(), (66_000, 9))].into(), granted: 77_000 };
    Frame {
        cluster: Some(ClusterId(7)),
        from: "a".into(),
        id: 1,
        acceptor: AcceptorId(1),
        boot_counter: 3,
        boot: BootId(9),
        sequence: 123_456_000,
        lineage: 1,
        epoch: 4,
        chain: ChainId(8),
        heard: [("b".into(), heard)].into(),
        leased: true,
        lock_reachable: true,
        lock: Some(LOCK),
        lock_to_come: Some(LOCK),
        intent: Intent::Join,
        timing: timing(),
        is_virtual: false,
        config_generation: 12,
        held: [("web".into(), Default::default())].into(),
        specs: [("web".into(), 3)].into(),
        table: None,
        barred: false,
        stop_failed: false,
        fences: BTreeMap::new(),
        orders: BTreeSet::new(),
        candidate: BTreeSet::from(["a".into(), "b".into()]),
        down: Some("b".into()),
        refused: [7].into(),
        reports: [("b".into(), 4)].into(),
    }
}

pub(crate) fn view() -> View {
    let member =
        |id: u8| Member { id, acceptor: AcceptorId(id.into()), boot: BootId(9), timing: timing(), is_virtual: false };
    let departed =
        |evidence| Departed { is_virtual: true, takeover_wait: Duration::from_secs(1), evidence, power: None };
    View {
        cluster: ClusterId(7),
        lineage: 1,
        chain: ChainId(8),
        epoch: 5,
        members: [("a".into(), member(1)), ("b".into(), member(2))].into(),
        acceptors: [(Acceptor::Server("a".into()), AcceptorId(1)), (Acceptor::Lock, LOCK)].into(),
        unanimous: false,
        stopped: false,
        started: true,
        forced: false,
        detached: BTreeMap::new(),
        departed: [
            (("c".into(), BootId(3)), departed(Some(Evidence::Operator { by: "alice".to_owned() }))),
            (("d".into(), BootId(4)), departed(None)),
        ]
        .into(),
        config_generation: 4,
        settings: settings(),
    }
}

pub(crate) fn record(sequence: u64) -> LockRecord {
    let ballot = Ballot { round: 3, proposer: 2 };
    LockRecord {
        cluster: ClusterId(7),
        lock: LOCK,
        boot_counter: 2,
        sequence,
        lineage: 1,
        epoch: 5,
        ballot,
        accepted: Some((ballot, view())),
        lean: 9,
        claim: 0,
        view: view(),
    }
}

pub(crate) fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("it can be written")
}

/// Envelopes of LAN and disk: nothing is taken but what somebody with a key sealed.
pub(crate) struct Envelopes {
    keys: Keyring,
    sealed: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Envelopes {
    pub(crate) fn new() -> Envelopes {
        let keys = keys();
        let mut sealed = BTreeMap::new();
        for number in [1, 65] {
            keys.seal_with(number);
            for content in [bytes(&frame()), Vec::new()] {
                sealed.insert(keys.seal(Kind::Frame, "ic", &content).expect("a seal"), content);
            }
        }
        Envelopes { keys, sealed }
    }
}

impl Target for Envelopes {
    fn valid(&self) -> Vec<Vec<u8>> {
        self.sealed.keys().cloned().collect()
    }

    fn takes(&self, input: &[u8]) -> bool {
        self.keys.open("ic", input).is_ok()
    }

    fn check(&self, input: &[u8]) {
        if let Ok(opened) = self.keys.open("ic", input) {
            assert_eq!(self.sealed.get(input), Some(&opened.content), "an altered envelope is taken");
        }
        assert!(self.keys.open("other", input).is_err(), "an envelope of another path is taken");
    }
}

/// What is inside: no authentication here, so all that counts is that what is read is also written.
pub(crate) struct Plain<T> {
    value: T,
    kind: PhantomData<T>,
}

impl Plain<Frame> {
    pub(crate) fn frames() -> Plain<Frame> {
        Plain { value: frame(), kind: PhantomData }
    }
}

impl Plain<Envelope> {
    pub(crate) fn messages() -> Plain<Envelope> {
        let elapsed = [("c".into(), Duration::from_millis(40))].into();
        let message = Message::Learn { view: view(), elapsed };
        Plain { value: Envelope { from: "a".into(), boot: BootId(9), message }, kind: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Target for Plain<T> {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![bytes(&self.value)]
    }

    fn takes(&self, input: &[u8]) -> bool {
        postcard::from_bytes::<T>(input).is_ok()
    }

    fn check(&self, input: &[u8]) {
        if let Ok(value) = postcard::from_bytes::<T>(input) {
            assert_eq!(postcard::from_bytes::<T>(&bytes(&value)).as_ref(), Ok(&value));
        }
    }
}

/// The content of a frame of a serial line.
pub(crate) struct CompactFrames {
    keys: Keyring,
    sealed: BTreeSet<Vec<u8>>,
}

impl CompactFrames {
    pub(crate) fn new() -> CompactFrames {
        let keys = keys();
        let mut sealed = BTreeSet::new();
        for (number, to) in [(1, "b"), (65, "c")] {
            keys.seal_with(number);
            let compact = Compact::of(&frame(), &to.into(), &"com".into()).encode().expect("it fits");
            sealed.insert(serial::seal(&keys, &"com".into(), &compact).expect("a seal").to_vec());
        }
        CompactFrames { keys, sealed }
    }

    fn open(&self, input: &[u8]) -> Option<Compact> {
        let compact = serial::open(&self.keys, &"com".into(), input.try_into().ok()?).ok()?;
        Some(Compact::decode(compact).expect("what has a key's tag was made by Holdfast"))
    }
}

impl Target for CompactFrames {
    fn valid(&self) -> Vec<Vec<u8>> {
        self.sealed.iter().cloned().collect()
    }

    fn takes(&self, input: &[u8]) -> bool {
        self.open(input).is_some()
    }

    fn check(&self, input: &[u8]) {
        if self.open(input).is_some() {
            assert!(self.sealed.contains(input), "an altered compact frame is taken");
        }
        if let Ok(compact) = Compact::decode(input) {
            assert_eq!(compact.encode().expect("what was read fits").to_vec(), input);
        }
    }
}

/// A whole line, with frames somewhere in it.
pub(crate) struct SerialLine {
    frames: CompactFrames,
}

impl SerialLine {
    pub(crate) fn new() -> SerialLine {
        SerialLine { frames: CompactFrames::new() }
    }

    fn framed(&self) -> Vec<[u8; serial::FRAME]> {
        let content = |sealed: &Vec<u8>| sealed.as_slice().try_into().expect("its length");
        self.frames.sealed.iter().map(|sealed| serial::encode_frame(&content(sealed))).collect()
    }
}

impl Target for SerialLine {
    fn valid(&self) -> Vec<Vec<u8>> {
        let all = self.framed().concat();
        vec![[&all[..], &[0x55; 40][..], &all[..]].concat(), all]
    }

    fn takes(&self, input: &[u8]) -> bool {
        serial::Deframer::default().push(input).len() >= 2
    }

    fn check(&self, input: &[u8]) {
        let mut deframer = serial::Deframer::default();
        for content in deframer.push(input) {
            self.frames.check(&content);
        }
        // Whatever came before: the next whole frame is found.
        let frame = self.framed()[0];
        let found = deframer.push(&frame);
        assert_eq!(found.iter().map(serial::encode_frame).collect::<Vec<_>>(), [frame], "the line is out of step");
        assert_eq!(deframer.garbage(), 0);
    }
}

/// Puts the right check sum at the end of a block, cut or padded to whole blocks.
fn resum(input: &mut Vec<u8>) -> bool {
    let length = input.len().div_ceil(BLOCK).clamp(1, 4) * BLOCK;
    input.resize(length, 0);
    let sum = crc32c::crc32c(&input[..length - 4]);
    input[length - 4..].copy_from_slice(&sum.to_le_bytes());
    true
}

/// The header of a disk area.
pub(crate) struct DiskHeader;

impl Target for DiskHeader {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![Header { lock: LOCK, created: 1_700_000_000, size: AREA }.encode(1)]
    }

    fn takes(&self, input: &[u8]) -> bool {
        Header::decode(input, 1).is_ok()
    }

    fn check(&self, input: &[u8]) {
        for copy in [0, 1] {
            if let Ok(header) = Header::decode(input, copy) {
                assert_eq!(input.len(), BLOCK);
                assert_eq!(input[BLOCK - 4..], crc32c::crc32c(&input[..BLOCK - 4]).to_le_bytes());
                assert_eq!(Header::decode(&header.encode(copy), copy), Ok(header));
            }
        }
    }

    fn seal(&self, input: &mut Vec<u8>) -> bool {
        resum(input)
    }
}

/// A heartbeat in its slot.
pub(crate) struct DiskBeat;

impl Target for DiskBeat {
    fn valid(&self) -> Vec<Vec<u8>> {
        [0, 6, 5000].map(|length| Beat::encode(2, LOCK, 258, &vec![7; length]).expect("it fits")).into()
    }

    fn takes(&self, input: &[u8]) -> bool {
        Beat::decode(input, 2, LOCK).is_ok_and(|beat| beat.is_some())
    }

    fn check(&self, input: &[u8]) {
        if let Ok(Some(beat)) = Beat::decode(input, 2, LOCK) {
            assert_eq!((beat.slot, beat.lock), (2, LOCK), "a heartbeat of another place is taken");
            let again = Beat::encode(2, LOCK, beat.counter, &beat.payload).expect("what was read fits");
            assert!(again.len() <= input.len());
            assert_eq!(Beat::decode(&again, 2, LOCK), Ok(Some(beat)));
        }
    }

    fn seal(&self, input: &mut Vec<u8>) -> bool {
        resum(input)
    }
}

/// A lock record in its ring.
pub(crate) struct DiskLock;

const POSITION: usize = 4;

impl Target for DiskLock {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![layout::encode_lock(3, &record(12)).expect("it fits")]
    }

    fn takes(&self, input: &[u8]) -> bool {
        layout::decode_lock(input, 3, POSITION, LOCK).is_ok_and(|record| record.is_some())
    }

    fn check(&self, input: &[u8]) {
        if let Ok(Some(record)) = layout::decode_lock(input, 3, POSITION, LOCK) {
            assert_eq!((record.lock, layout::ring_position(record.sequence)), (LOCK, POSITION), "of another place");
            let again = layout::encode_lock(3, &record).expect("what was read fits");
            assert_eq!(layout::decode_lock(&again, 3, POSITION, LOCK), Ok(Some(record)));
        }
    }

    fn seal(&self, input: &mut Vec<u8>) -> bool {
        input.truncate(BLOCK);
        resum(input)
    }
}

/// A whole ring: it says a record that was written, or that it can't tell.
pub(crate) struct DiskRing {
    blocks: BTreeSet<Vec<u8>>,
    ring: Vec<u8>,
}

impl DiskRing {
    pub(crate) fn new() -> DiskRing {
        let mut ring = vec![0; RING * BLOCK];
        let mut blocks = BTreeSet::new();
        for sequence in 1..=11 {
            let block = layout::encode_lock(3, &record(sequence)).expect("it fits");
            let at = layout::ring_position(sequence) * BLOCK;
            ring[at..at + BLOCK].copy_from_slice(&block);
            blocks.insert(block);
        }
        DiskRing { blocks, ring }
    }
}

impl Target for DiskRing {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![self.ring.clone(), vec![0; RING * BLOCK]]
    }

    fn takes(&self, input: &[u8]) -> bool {
        !matches!(layout::decode_ring(input, 3, LOCK), Ring::Damaged(_))
    }

    fn check(&self, input: &[u8]) {
        if let Ring::Newest(record) = layout::decode_ring(input, 3, LOCK) {
            let block = layout::encode_lock(3, &record).expect("what was read fits");
            assert!(self.blocks.contains(&block), "a record that nobody wrote: {record:?}");
        }
    }
}

/// What was heard before a restart.
pub(crate) struct Heard;

impl Target for Heard {
    fn valid(&self) -> Vec<Vec<u8>> {
        let mark = seen::Mark::from(&frame());
        vec![Vec::new(), seen::encode(&[("a".into(), mark), ("b".into(), mark)].into())]
    }

    fn takes(&self, input: &[u8]) -> bool {
        seen::decode(input).is_ok()
    }

    fn check(&self, input: &[u8]) {
        if let Ok(marks) = seen::decode(input) {
            assert_eq!(seen::decode(&seen::encode(&marks)), Ok(marks));
        }
    }

    fn seal(&self, input: &mut Vec<u8>) -> bool {
        let Some((head, rest)) = input.split_first_chunk_mut::<8>() else { return false };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize % (rest.len() + 1);
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(&rest[..length]).to_le_bytes());
        true
    }
}
