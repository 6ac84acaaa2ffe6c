//! Frames on a line of bytes: where one begins, and whether it arrived whole.
//!
//! ```text
//! byte 0       0: a frame begins; this value stands nowhere else in it
//! bytes 1-63   COBS form of 62 bytes: 60 of content, CRC-32C of them (its low 16 bits, little-endian)
//! ```
//!
//! Every frame has the same length, so it is complete with its last byte, and a reader that begins in the middle, or
//! after noise, is right again at the next zero. The check sum tells noise from a frame; who sent it is not its matter.

/// Content of a frame, in bytes.
pub const CONTENT: usize = 60;
/// A frame on the line, in bytes (protocol-why D32).
pub const FRAME: usize = 64;

const SUM: usize = 2;
const CODED: usize = FRAME - 1;

/// The bytes of a frame.
pub fn encode(content: &[u8; CONTENT]) -> [u8; FRAME] {
    let mut plain = [0; CONTENT + SUM];
    plain[..CONTENT].copy_from_slice(content);
    plain[CONTENT..].copy_from_slice(&sum(content));
    let mut frame = [0; FRAME];
    cobs::encode(&plain, &mut frame[1..]);
    frame
}

fn sum(content: &[u8]) -> [u8; SUM] {
    (crc32c::crc32c(content) as u16).to_le_bytes()
}

/// Finds frames in what arrives.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What came since the newest zero; none before the first one, and after a whole frame.
    coded: Option<Vec<u8>>,
    /// Bytes since the newest whole frame that belong to none.
    garbage: usize,
}

impl Deframer {
    /// Takes what arrived and returns the contents of all frames that became complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<[u8; CONTENT]> {
        bytes.iter().filter_map(|byte| self.push_one(*byte)).collect()
    }

    /// Bytes since the newest whole frame that belong to none: noise, or a line with another speed.
    pub fn garbage(&self) -> usize {
        self.garbage
    }

    fn push_one(&mut self, byte: u8) -> Option<[u8; CONTENT]> {
        if byte == 0 {
            self.garbage += self.coded.as_ref().map_or(0, |begun| 1 + begun.len());
            self.coded = Some(Vec::with_capacity(CODED));
            return None;
        }
        let Some(coded) = &mut self.coded else {
            self.garbage += 1;
            return None;
        };
        coded.push(byte);
        if coded.len() < CODED {
            return None;
        }
        let coded = self.coded.take()?;
        let content = decode(&coded);
        self.garbage = if content.is_some() { 0 } else { self.garbage + FRAME };
        content
    }
}

fn decode(coded: &[u8]) -> Option<[u8; CONTENT]> {
    let mut plain = [0; CODED];
    let length = cobs::decode(coded, &mut plain).ok()?;
    let (content, found) = plain.get(..length)?.split_first_chunk::<CONTENT>()?;
    // What another encoder would have written differently was altered.
    (found == sum(content) && encode(content)[1..] == *coded).then_some(*content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(seed: u8) -> [u8; CONTENT] {
        std::array::from_fn(|i| if i % 7 == 0 { 0 } else { (i as u8).wrapping_mul(31) ^ seed })
    }

    #[test]
    fn frames_are_found_after_noise_and_after_a_torn_one() {
        let mut line = vec![1, 2, 3, 0, 9, 9];
        line.extend(encode(&content(1)));
        line.extend(&encode(&content(2))[..40]);
        line.extend(encode(&content(3)));
        line.extend([5; 200]);
        line.extend(encode(&content(4)));
        let mut deframer = Deframer::default();
        // Whatever pieces it arrives in.
        let found: Vec<_> = line.chunks(7).flat_map(|piece| deframer.push(piece)).collect();
        assert_eq!(found, [content(1), content(3), content(4)]);
        assert_eq!(deframer.garbage(), 0);
        deframer.push(&[7; 500]);
        assert_eq!(deframer.garbage(), 500);
    }

    proptest! {
        #[test]
        fn every_content_comes_through(content in proptest::array::uniform30(any::<(u8, u8)>())) {
            let content: [u8; CONTENT] = std::array::from_fn(|i| {
                let (a, b) = content[i / 2];
                if i % 2 == 0 { a } else { b }
            });
            let frame = encode(&content);
            prop_assert!(!frame[1..].contains(&0));
            prop_assert_eq!(Deframer::default().push(&frame), [content]);
        }

        #[test]
        fn a_flipped_bit_costs_one_frame_and_never_alters_one(at in 0usize..FRAME, bit in 0u8..8) {
            let mut line = encode(&content(1));
            line[at] ^= 1 << bit;
            let mut deframer = Deframer::default();
            prop_assert_eq!(deframer.push(&line), Vec::<[u8; CONTENT]>::new());
            prop_assert_eq!(deframer.push(&encode(&content(2))), [content(2)]);
        }
    }
}
