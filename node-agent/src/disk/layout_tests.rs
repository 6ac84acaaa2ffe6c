//! The layout byte by byte, and decoders under every kind of rubbish.

use std::collections::BTreeMap;

use holdfast_core::names::{AcceptorId, BootId, ChainId, ClusterId};
use holdfast_core::orders::Power;
use holdfast_core::settings::Settings;
use holdfast_core::view::{Acceptor, Ballot, Departed, Member, MemberTiming, View};
use proptest::prelude::*;

use super::*;

pub(crate) const LOCK: AcceptorId = AcceptorId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

pub(crate) fn record(boot_counter: u64, sequence: u64) -> LockRecord {
    LockRecord {
        cluster: ClusterId(7),
        lock: LOCK,
        boot_counter,
        sequence,
        lineage: 1,
        epoch: 5,
        ballot: Ballot { round: 3, proposer: 2 },
        accepted: None,
        lean: 9,
        claim: 0,
        view: View {
            cluster: ClusterId(7),
            lineage: 1,
            chain: ChainId(8),
            epoch: 5,
            members: BTreeMap::new(),
            acceptors: BTreeMap::new(),
            unanimous: false,
            stopped: false,
            started: false,
            forced: false,
            detached: BTreeMap::new(),
            departed: BTreeMap::new(),
            config_generation: 4,
            settings: Settings::default(),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let header = Header { lock: LOCK, created: 0x6565_6565, size: AREA }.encode(1);
    assert_eq!(
        hex(&header[..49]),
        "484f4c4446415354\
         010000000010\
         0000ffeeddccbbaa99887766554433221100\
         6565656500000000\
         0000110000000000\
         01"
    );
    let beat = Beat::encode(2, LOCK, 258, b"sealed").unwrap();
    assert_eq!(beat.len(), BLOCK);
    assert_eq!(
        hex(&beat[..46]),
        "4846424541540000\
         02000000\
         06000000\
         0201000000000000\
         ffeeddccbbaa99887766554433221100\
         7365616c6564"
    );
    let lock = encode_lock(3, &record(2, 12)).unwrap();
    // The length is that of the record, whose form is the core's.
    assert_eq!(hex(&lock[..12]), "48464c4f434b000003040000");
    assert_eq!(hex(&lock[16..48]), "02000000000000000c00000000000000ffeeddccbbaa99887766554433221100");
    for block in [&header, &beat, &lock] {
        // CRC-32C by its definition (reflected polynomial 82f63b78), not by the crate that made it.
        let mut sum = !0u32;
        for byte in &block[..BLOCK - 4] {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ (0x82f6_3b78 & (0u32.wrapping_sub(sum & 1)));
            }
        }
        assert_eq!(block[BLOCK - 4..], (!sum).to_le_bytes());
    }
    assert_eq!((AREA, beat_at(1), ring_at(1), beat_at(16)), (1_114_112, 65_536, 81_920, 1_048_576));
}

#[test]
fn what_was_written_is_read_and_what_is_out_of_place_is_not() {
    let header = Header { lock: LOCK, created: 1, size: AREA };
    assert_eq!(Header::decode(&header.encode(0), 0), Ok(header));
    assert!(matches!(Header::decode(&header.encode(0), 1), Err(BadBlock::Place(_))));
    let payload = vec![7; 5000];
    let blocks = Beat::encode(4, LOCK, 1, &payload).unwrap();
    assert_eq!(blocks.len(), 2 * BLOCK);
    assert_eq!(Beat::decode(&blocks, 4, LOCK).unwrap().unwrap().payload, payload);
    assert!(matches!(Beat::decode(&blocks, 5, LOCK), Err(BadBlock::Place(_))));
    assert!(matches!(Beat::decode(&blocks, 4, AcceptorId(1)), Err(BadBlock::OtherLock(LOCK))));
    assert!(Beat::encode(4, LOCK, 1, &vec![0; MAX_BEAT + 1]).is_err());
    assert_eq!(Beat::decode(&vec![0; 4 * BLOCK], 4, LOCK), Ok(None));
}

/// A ring after writes with these sequences.
fn ring(sequences: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let mut bytes = vec![0; RING * BLOCK];
    for sequence in sequences {
        let start = ring_position(sequence) * BLOCK;
        bytes[start..start + BLOCK].copy_from_slice(&encode_lock(1, &record(2, sequence)).unwrap());
    }
    bytes
}

#[test]
fn the_newest_record_of_a_ring_counts_even_if_the_next_write_was_torn() {
    assert_eq!(decode_ring(&vec![0; RING * BLOCK], 1, LOCK), Ring::Blank);
    let mut bytes = ring(1..=13);
    assert_eq!(decode_ring(&bytes, 1, LOCK), Ring::Newest(Box::new(record(2, 13))));
    bytes[ring_position(14) * BLOCK + 100] ^= 1;
    assert_eq!(decode_ring(&bytes, 1, LOCK), Ring::Newest(Box::new(record(2, 13))));
    // A late write of an earlier boot doesn't hide a newer one (protocol-why D10).
    let late = encode_lock(1, &record(1, 22)).unwrap();
    let start = ring_position(22) * BLOCK;
    let mut with_late = ring(1..=13);
    with_late[start..start + BLOCK].copy_from_slice(&late);
    assert_eq!(decode_ring(&with_late, 1, LOCK), Ring::Newest(Box::new(record(2, 13))));
}

#[test]
fn a_ring_with_damage_that_may_hide_something_newer_has_no_vote() {
    let mut elsewhere = ring(1..=13);
    elsewhere[ring_position(9) * BLOCK + 100] ^= 1;
    assert!(matches!(decode_ring(&elsewhere, 1, LOCK), Ring::Damaged(bad) if bad[0].0 == ring_position(9)));
    let mut two = ring(1..=13);
    two[ring_position(14) * BLOCK] ^= 1;
    two[ring_position(15) * BLOCK] ^= 1;
    assert!(matches!(decode_ring(&two, 1, LOCK), Ring::Damaged(bad) if bad.len() == 2));
    assert!(matches!(decode_ring(&ring(1..=13), 2, LOCK), Ring::Damaged(_)), "the ring of another slot");
    assert!(matches!(decode_ring(&ring(1..=13), 1, AcceptorId(1)), Ring::Damaged(_)), "of another lock");
    assert!(matches!(decode_ring(&[], 1, LOCK), Ring::Damaged(_)));
}

proptest! {
    #[test]
    fn decoders_stand_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3 * BLOCK), slot in 0..20u8) {
        let _ = Header::decode(&bytes, 0);
        let _ = Beat::decode(&bytes, slot, LOCK);
        let _ = decode_lock(&bytes, slot, 1, LOCK);
        let _ = decode_ring(&bytes, slot, LOCK);
    }

    /// With a right check sum, so that what lies behind it is reached.
    #[test]
    fn decoders_stand_any_sealed_block(
        head in proptest::collection::vec(any::<u8>(), 56), body in proptest::collection::vec(any::<u8>(), 0..600),
        magic in prop_oneof![Just(*HEADER_MAGIC), Just(*BEAT_MAGIC), Just(*LOCK_MAGIC)],
    ) {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(&magic);
        block[8..56].copy_from_slice(&head[8..]);
        block[48..48 + body.len()].copy_from_slice(&body);
        let block = seal(block);
        let lock = AcceptorId(u128::from_le_bytes(array(&block, 32)));
        let _ = Header::decode(&block, block[48]);
        let _ = Beat::decode(&block, block[8], AcceptorId(u128::from_le_bytes(array(&block, 24))));
        let _ = decode_lock(&block, block[8], usize::from(block[9]), lock);
    }

    #[test]
    fn one_flipped_bit_is_noticed(at in 0..BLOCK, bit in 0..8u8) {
        let mut block = encode_lock(1, &record(2, 12)).unwrap();
        block[at] ^= 1 << bit;
        prop_assert!(decode_lock(&block, 1, ring_position(12), LOCK).is_err());
    }
}

/// Two servers with a lock disk and the longest names, a third one joining, in the middle of a change of all paths, with
/// a successor accepted.
#[test]
fn the_largest_record_of_a_lock_disk_has_room() {
    let mut largest = record(u64::MAX, u64::MAX);
    let time = std::time::Duration::from_nanos(u64::MAX);
    let timing =
        MemberTiming { lease: time, soft_stop: time, kill: time, reset: time, takeover_wait: time, watchdog: true };
    largest.view.settings = crate::testing::largest_settings(3, 400 / 16);
    for (n, name) in (1..).zip(largest.view.settings.servers.clone().into_keys()) {
        let (acceptor, boot) = (AcceptorId(u128::MAX), BootId(u128::MAX));
        largest.view.acceptors.insert(Acceptor::Server(name.clone()), acceptor);
        largest.view.members.insert(name.clone(), Member { id: n, acceptor, boot, timing, is_virtual: true });
        let departed = Departed { is_virtual: true, takeover_wait: time, evidence: None, power: Some(Power::Reboot) };
        largest.view.departed.insert((name, boot), departed);
    }
    largest.accepted = Some((largest.ballot, largest.view.clone()));
    let size = postcard::to_stdvec(&largest).unwrap().len();
    assert!(size <= MAX_LOCK, "{size} of {MAX_LOCK} bytes");
}
