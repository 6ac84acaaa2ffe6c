//! Every byte of the CLUSTER area (docs/disk-area.md has the pictures). Little-endian, explicit, check sum last.
//!
//! Pure: bytes in, bytes out. A decoder never panics, whatever it is given, and says what is wrong. Invariants:
//! - a block names its own slot, so that a misdirected read or write is noticed (domain.md S3);
//! - a block names the lock that it was written for, so that nothing of an earlier life of the disk counts;
//! - the check sum covers the whole block with all its padding, so that a torn write is noticed.

use holdfast_core::lock::LockRecord;
use holdfast_core::names::AcceptorId;

/// Unit of reading, writing and check sums, in bytes. At least the sector size of every disk.
pub const BLOCK: usize = 4096;
/// Blocks of one slot, and of the header region before the first slot.
pub const SLOT_BLOCKS: usize = 16;
/// Blocks that a heartbeat may use, from the first of its slot.
pub const BEAT_BLOCKS: usize = 4;
/// First block of the ring, counted from the beginning of the slot.
pub const RING_START: usize = 4;
/// Blocks of the ring.
pub const RING: usize = 8;
/// Slots, numbered 1..=16 like `servers[].id`.
pub const SLOTS: u8 = 16;
/// Size of the whole area in bytes.
pub const AREA: u64 = ((SLOTS as usize + 1) * SLOT_BLOCKS * BLOCK) as u64;

const HEADER_MAGIC: &[u8; 8] = b"HOLDFAST";
const BEAT_MAGIC: &[u8; 8] = b"HFBEAT\0\0";
const LOCK_MAGIC: &[u8; 8] = b"HFLOCK\0\0";
const TRIAL_MAGIC: &[u8; 8] = b"HFTRIAL\0";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;
const BEAT_HEAD: usize = 40;
const LOCK_HEAD: usize = 48;
const SUM: usize = 4;

/// The longest payload of a heartbeat, in bytes.
pub const MAX_BEAT: usize = BEAT_BLOCKS * BLOCK - BEAT_HEAD - SUM;
/// The longest lock record, in bytes of its postcard form.
pub const MAX_LOCK: usize = BLOCK - LOCK_HEAD - SUM;

/// What is wrong with a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// Not as long as it has to be.
    #[error("{found} bytes instead of {wanted}")]
    Length {
        /// What was given.
        found: usize,
        /// What is needed.
        wanted: usize,
    },
    /// Not ours.
    #[error("no Holdfast block (its first bytes are {0:02x?})")]
    Magic([u8; 8]),
    /// Made by a version that this one can't read.
    #[error("made for layout version {0}, this program knows version {MAJOR}")]
    Version(u16),
    /// Torn, or damaged.
    #[error("the check sum is {found:08x}, the content has {computed:08x}")]
    Sum {
        /// In the block.
        found: u32,
        /// Over the block.
        computed: u32,
    },
    /// Read from, or written to, a wrong place.
    #[error("written for {0}, found elsewhere")]
    Place(String),
    /// Its inner length or form is wrong.
    #[error("the content is malformed: {0}")]
    Content(String),
    /// From another life of this disk.
    #[error("written for the lock {0}")]
    OtherLock(AcceptorId),
}

/// What doesn't fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {found} bytes doesn't fit into the {allowed} bytes that the disk area has for it")]
pub struct TooLarge {
    /// What it is.
    pub what: &'static str,
    /// Its size.
    pub found: usize,
    /// The most that fits.
    pub allowed: usize,
}

/// The header of an area; two copies of it stand in its first two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Identity of the lock, random, made when the area was formatted.
    pub lock: AcceptorId,
    /// When it was formatted, in seconds since 1970.
    pub created: u64,
    /// Size of the area in bytes.
    pub size: u64,
}

/// A heartbeat as it stands in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The slot.
    pub slot: u8,
    /// Identity of the lock.
    pub lock: AcceptorId,
    /// Counts up with every write; only says "new" to a reader.
    pub counter: u64,
    /// The sealed frame.
    pub payload: Vec<u8>,
}

/// First byte of the header copy `copy` (0 or 1), from the beginning of the area.
pub fn header_at(copy: u8) -> u64 {
    u64::from(copy) * BLOCK as u64
}

/// First byte of the heartbeat of `slot` (1..=16), from the beginning of the area.
pub fn beat_at(slot: u8) -> u64 {
    (usize::from(slot) * SLOT_BLOCKS * BLOCK) as u64
}

/// First byte of the ring of `slot`, from the beginning of the area.
pub fn ring_at(slot: u8) -> u64 {
    beat_at(slot) + (RING_START * BLOCK) as u64
}

/// First byte of the block of `slot` that is only for trying whether the disk can be written, from the beginning of the
/// area. Nobody but its own server reads it.
pub fn trial_at(slot: u8) -> u64 {
    beat_at(slot) + ((SLOT_BLOCKS - 1) * BLOCK) as u64
}

/// The place in the ring where a record with this sequence goes.
pub fn ring_position(sequence: u64) -> usize {
    (sequence % RING as u64) as usize
}

impl Header {
    /// The block for copy 0 or 1.
    pub fn encode(&self, copy: u8) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[0..8].copy_from_slice(HEADER_MAGIC);
        block[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        block[10..12].copy_from_slice(&MINOR.to_le_bytes());
        block[12..16].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        block[16..32].copy_from_slice(&self.lock.0.to_le_bytes());
        block[32..40].copy_from_slice(&self.created.to_le_bytes());
        block[40..48].copy_from_slice(&self.size.to_le_bytes());
        block[48] = copy;
        seal(block)
    }

    /// Reads copy 0 or 1.
    pub fn decode(block: &[u8], copy: u8) -> Result<Header, BadBlock> {
        let block = opened(block, HEADER_MAGIC, BLOCK)?;
        let major = u16::from_le_bytes(array(block, 8));
        if major != MAJOR {
            return Err(BadBlock::Version(major));
        }
        if block[48] != copy {
            return Err(BadBlock::Place(format!("header copy {}", block[48])));
        }
        let unit = u32::from_le_bytes(array(block, 12));
        let size = u64::from_le_bytes(array(block, 40));
        if unit as usize != BLOCK || size != AREA {
            return Err(BadBlock::Content(format!("block size {unit}, area size {size}")));
        }
        Ok(Header {
            lock: AcceptorId(u128::from_le_bytes(array(block, 16))),
            created: u64::from_le_bytes(array(block, 32)),
            size,
        })
    }
}

impl Beat {
    /// The blocks of a heartbeat: as many as it needs.
    pub fn encode(slot: u8, lock: AcceptorId, counter: u64, payload: &[u8]) -> Result<Vec<u8>, TooLarge> {
        if payload.len() > MAX_BEAT {
            return Err(TooLarge { what: "a heartbeat", found: payload.len(), allowed: MAX_BEAT });
        }
        let mut blocks = vec![0; beat_size(payload.len())];
        blocks[0..8].copy_from_slice(BEAT_MAGIC);
        blocks[8] = slot;
        blocks[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        blocks[16..24].copy_from_slice(&counter.to_le_bytes());
        blocks[24..40].copy_from_slice(&lock.0.to_le_bytes());
        blocks[BEAT_HEAD..BEAT_HEAD + payload.len()].copy_from_slice(payload);
        Ok(seal(blocks))
    }

    /// Reads the heartbeat of `slot`; `None` if the slot was never written.
    pub fn decode(blocks: &[u8], slot: u8, lock: AcceptorId) -> Result<Option<Beat>, BadBlock> {
        if blocks.len() < BLOCK {
            return Err(BadBlock::Length { found: blocks.len(), wanted: BLOCK });
        }
        if blocks[..BLOCK].iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let length = u32::from_le_bytes(array(blocks, 12)) as usize;
        let magic: [u8; 8] = array(blocks, 0);
        if &magic != BEAT_MAGIC {
            return Err(BadBlock::Magic(magic));
        }
        if length > MAX_BEAT {
            return Err(BadBlock::Content(format!("a payload of {length} bytes")));
        }
        let size = beat_size(length);
        let block = opened(blocks.get(..size).unwrap_or(blocks), BEAT_MAGIC, size)?;
        if block[8] != slot {
            return Err(BadBlock::Place(format!("slot {}", block[8])));
        }
        let owner = AcceptorId(u128::from_le_bytes(array(block, 24)));
        if owner != lock {
            return Err(BadBlock::OtherLock(owner));
        }
        let counter = u64::from_le_bytes(array(block, 16));
        Ok(Some(Beat { slot, lock, counter, payload: block[BEAT_HEAD..BEAT_HEAD + length].to_vec() }))
    }
}

/// The block that tries whether the disk can be written; `token` tells one trial from the others.
pub fn encode_trial(slot: u8, lock: AcceptorId, token: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[0..8].copy_from_slice(TRIAL_MAGIC);
    block[8] = slot;
    block[16..32].copy_from_slice(&token);
    block[32..48].copy_from_slice(&lock.0.to_le_bytes());
    seal(block)
}

/// The block of a lock record in the ring of `slot`.
pub fn encode_lock(slot: u8, record: &LockRecord) -> Result<Vec<u8>, TooLarge> {
    let payload = postcard::to_stdvec(record).unwrap_or_default();
    if payload.is_empty() || payload.len() > MAX_LOCK {
        return Err(TooLarge { what: "a lock record", found: payload.len(), allowed: MAX_LOCK });
    }
    let mut block = vec![0; BLOCK];
    block[0..8].copy_from_slice(LOCK_MAGIC);
    block[8] = slot;
    block[9] = ring_position(record.sequence) as u8;
    block[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    block[16..24].copy_from_slice(&record.boot_counter.to_le_bytes());
    block[24..32].copy_from_slice(&record.sequence.to_le_bytes());
    block[32..48].copy_from_slice(&record.lock.0.to_le_bytes());
    block[LOCK_HEAD..LOCK_HEAD + payload.len()].copy_from_slice(&payload);
    Ok(seal(block))
}

/// Reads the block at `position` of the ring of `slot`; `None` if it was never written.
pub fn decode_lock(block: &[u8], slot: u8, position: usize, lock: AcceptorId) -> Result<Option<LockRecord>, BadBlock> {
    if block.len() == BLOCK && block.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let block = opened(block, LOCK_MAGIC, BLOCK)?;
    if block[8] != slot || usize::from(block[9]) != position {
        return Err(BadBlock::Place(format!("slot {} position {}", block[8], block[9])));
    }
    let length = u32::from_le_bytes(array(block, 12)) as usize;
    if length > MAX_LOCK {
        return Err(BadBlock::Content(format!("a payload of {length} bytes")));
    }
    let (record, rest) = postcard::take_from_bytes::<LockRecord>(&block[LOCK_HEAD..LOCK_HEAD + length])
        .map_err(|e| BadBlock::Content(e.to_string()))?;
    let order = (u64::from_le_bytes(array(block, 16)), u64::from_le_bytes(array(block, 24)));
    if !rest.is_empty() || order != (record.boot_counter, record.sequence) || ring_position(order.1) != position {
        return Err(BadBlock::Content("head and record differ".to_owned()));
    }
    let owner = AcceptorId(u128::from_le_bytes(array(block, 32)));
    if owner != lock || record.lock != lock {
        return Err(BadBlock::OtherLock(owner));
    }
    Ok(Some(record))
}

/// What the ring of one slot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ring {
    /// Formatted and never written.
    Blank,
    /// The newest record.
    Newest(Box<LockRecord>),
    /// It can't be told what was written last; the reasons, by position.
    Damaged(Vec<(usize, BadBlock)>),
}

/// Reads a whole ring (`RING` blocks). The highest valid (boot counter, sequence) is the newest. One bad block right
/// where the next write goes is a write that never completed, so its writer never had an answer and nothing rests on
/// it; any other bad block may have held something newer.
pub fn decode_ring(bytes: &[u8], slot: u8, lock: AcceptorId) -> Ring {
    let mut newest: Option<LockRecord> = None;
    let mut bad = Vec::new();
    for position in 0..RING {
        let start = position * BLOCK;
        let block = bytes.get(start..start + BLOCK).unwrap_or_default();
        match decode_lock(block, slot, position, lock) {
            Ok(None) => {}
            Ok(Some(record)) => {
                let order = |r: &LockRecord| (r.boot_counter, r.sequence);
                if newest.as_ref().is_none_or(|n| order(n) < order(&record)) {
                    newest = Some(record);
                }
            }
            Err(reason) => bad.push((position, reason)),
        }
    }
    let torn = match (&newest, bad.as_slice()) {
        (_, []) => true,
        // The very first write of a slot goes to the place of sequence 1.
        (None, [(position, _)]) => *position == ring_position(1),
        (Some(newest), [(position, _)]) => *position == ring_position(newest.sequence.wrapping_add(1)),
        _ => false,
    };
    match newest {
        _ if !torn => Ring::Damaged(bad),
        Some(record) => Ring::Newest(Box::new(record)),
        None => Ring::Blank,
    }
}

fn beat_size(payload: usize) -> usize {
    (BEAT_HEAD + payload + SUM).div_ceil(BLOCK) * BLOCK
}

/// Writes the check sum into the last four bytes.
fn seal(mut block: Vec<u8>) -> Vec<u8> {
    let end = block.len() - SUM;
    let sum = crc32c::crc32c(&block[..end]);
    block[end..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// Checks length, magic and check sum.
fn opened<'a>(block: &'a [u8], magic: &[u8; 8], wanted: usize) -> Result<&'a [u8], BadBlock> {
    if block.len() != wanted || wanted < BLOCK {
        return Err(BadBlock::Length { found: block.len(), wanted });
    }
    let found: [u8; 8] = array(block, 0);
    if &found != magic {
        return Err(BadBlock::Magic(found));
    }
    let end = block.len() - SUM;
    let (sum, computed) = (u32::from_le_bytes(array(block, end)), crc32c::crc32c(&block[..end]));
    if sum != computed {
        return Err(BadBlock::Sum { found: sum, computed });
    }
    Ok(block)
}

/// `N` bytes from `start`; the caller has checked the length, and what lies outside reads as zero.
fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(start..start + N) {
        out.copy_from_slice(found);
    }
    out
}

#[cfg(test)]
#[path = "layout_tests.rs"]
pub(crate) mod tests;
