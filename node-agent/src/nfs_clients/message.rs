//! What the kernel's NFS server asks about its clients, and what it is answered: `struct cld_msg` and `struct cld_msg_v2` of
//! `<linux/nfsd/cld.h>`, fixed in length and in the byte order of this machine. Pure.
//!
//! ```text
//!    0  version of the protocol          8  length of the client's id       (GetVersion: the version, GraceDone: a time)
//!    1  command                         10  the id, 1024 bytes
//!    2  status: 0 or a negative errno 1034  length of the principal's hash  (from here on version 2 only)
//!    4  number of the question        1035  the hash, 32 bytes
//! ```

use nix::libc;

const ID: usize = 10;
/// Longest id of a client (RFC 7530).
const ID_LIMIT: usize = 1024;
const PRINCIPAL: usize = ID + ID_LIMIT;
const PRINCIPAL_LIMIT: usize = 32;
/// Length of a message of version 1, and of version 2.
const LENGTHS: [usize; 2] = [PRINCIPAL, PRINCIPAL + 1 + PRINCIPAL_LIMIT];
/// The newest version that is spoken here; the kernel takes an older one if it has no other.
const VERSION: u8 = 2;

/// Longest message.
pub(super) const LONGEST: usize = LENGTHS[1];

/// A client, as the server knows it again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client {
    /// What it calls itself.
    pub(super) id: Vec<u8>,
    /// SHA-256 of the name that it proved with Kerberos; empty without.
    pub(super) principal: Vec<u8>,
}

/// What the kernel wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// This client is about to get its first file or lock: it has to be known after a crash.
    Create(Client),
    /// This client has gone, or its lease has run out: it may reclaim nothing.
    Remove(Vec<u8>),
    /// Clients have reclaimed what they had; who has not come by now is forgotten.
    GraceDone,
    /// The server begins: who may reclaim?
    GraceStart,
    /// Which version is spoken?
    GetVersion,
    /// Something else.
    Other(u8),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) command: Command,
    /// As it came: an answer is the same message with a status.
    bytes: Vec<u8>,
}

impl Question {
    /// None for what is no message.
    pub(super) fn parse(bytes: &[u8]) -> Option<Question> {
        if !LENGTHS.contains(&bytes.len()) {
            return None;
        }
        let id = || {
            let length = usize::from(u16::from_ne_bytes([bytes[8], bytes[9]]));
            (1..=ID_LIMIT).contains(&length).then(|| bytes[ID..ID + length].to_vec())
        };
        let command = match bytes[1] {
            0 => Command::Create(Client { id: id()?, principal: principal(bytes)? }),
            1 => Command::Remove(id()?),
            3 => Command::GraceDone,
            4 => Command::GraceStart,
            5 => Command::GetVersion,
            other => Command::Other(other),
        };
        Some(Question { command, bytes: bytes.to_vec() })
    }

    /// The final answer.
    pub(super) fn done(&self) -> Vec<u8> {
        let mut answer = self.with(0);
        if self.command == Command::GetVersion {
            answer[8] = VERSION;
        }
        answer
    }

    /// The final answer, where it could not be done.
    pub(super) fn failed(&self) -> Vec<u8> {
        let errno = if matches!(self.command, Command::Other(_)) { libc::EOPNOTSUPP } else { libc::EIO };
        self.with(-i16::try_from(errno).unwrap_or(i16::MAX))
    }

    /// Before the final answer to [`Command::GraceStart`]: a client that may reclaim.
    pub(super) fn may_reclaim(&self, client: &Client) -> Vec<u8> {
        let mut answer = self.with(-i16::try_from(libc::EINPROGRESS).unwrap_or(i16::MAX));
        answer[8..].fill(0);
        put(&mut answer, ID, &client.id);
        let length = u16::try_from(client.id.len()).unwrap_or(0);
        answer[8..ID].copy_from_slice(&length.to_ne_bytes());
        if answer.len() == LENGTHS[1] {
            put(&mut answer, PRINCIPAL + 1, &client.principal);
            answer[PRINCIPAL] = u8::try_from(client.principal.len()).unwrap_or(0);
        }
        answer
    }

    fn with(&self, status: i16) -> Vec<u8> {
        let mut answer = self.bytes.clone();
        put(&mut answer, 2, &status.to_ne_bytes());
        answer
    }
}

fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    message[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Empty in version 1; none where its length is wrong.
fn principal(bytes: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = bytes.get(PRINCIPAL..).filter(|rest| !rest.is_empty()) else { return Some(Vec::new()) };
    rest[1..].get(..usize::from(rest[0])).map(<[u8]>::to_vec)
}

impl Client {
    /// As a line of a file: both parts in hexadecimal digits.
    pub(super) fn to_line(&self) -> String {
        format!("{} {}\n", hex(&self.id), hex(&self.principal))
    }

    /// None for a line that was not written to its end, or not by us.
    pub(super) fn from_line(line: &str) -> Option<Client> {
        let (id, principal) = line.strip_suffix('\n')?.split_once(' ')?;
        let (id, principal) = (unhex(id)?, unhex(principal)?);
        let fits = (1..=ID_LIMIT).contains(&id.len()) && principal.len() <= PRINCIPAL_LIMIT;
        fits.then_some(Client { id, principal })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel of x86-64 lays it out.
    fn message(length: usize, command: u8, id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        (bytes[0], bytes[1]) = (2, command);
        bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[8..10].copy_from_slice(&u16::try_from(id.len()).unwrap().to_ne_bytes());
        put(&mut bytes, ID, id);
        bytes
    }

    fn client(id: &[u8], principal: &[u8]) -> Client {
        Client { id: id.to_vec(), principal: principal.to_vec() }
    }

    #[test]
    fn lengths_are_those_of_the_kernel() {
        assert_eq!(LENGTHS, [1034, 1067]);
        assert_eq!(Question::parse(&[0; 1033]), None);
        assert_eq!(Question::parse(&[0; 1068]), None);
    }

    #[test]
    fn questions_are_read_in_both_versions() {
        let mut create = message(1067, 0, b"Linux NFSv4.2 one");
        create[1034] = 32;
        create[1035..].fill(9);
        let command = |bytes: &[u8]| Question::parse(bytes).map(|question| question.command);
        assert_eq!(command(&create), Some(Command::Create(client(b"Linux NFSv4.2 one", &[9; 32]))));
        assert_eq!(command(&message(1034, 0, b"one")), Some(Command::Create(client(b"one", b""))));
        assert_eq!(command(&message(1067, 1, b"one")), Some(Command::Remove(b"one".to_vec())));
        assert_eq!(command(&message(1067, 4, b"")), Some(Command::GraceStart));
        assert_eq!(command(&message(1067, 3, b"")), Some(Command::GraceDone));
        assert_eq!(command(&message(1067, 2, b"one")), Some(Command::Other(2)));
        assert_eq!(command(&message(1067, 0, b"")), None, "a client without an id");
        create[1034] = 33;
        assert_eq!(command(&create), None, "a hash that is too long");
        create[8..10].copy_from_slice(&1025_u16.to_ne_bytes());
        assert_eq!(command(&create), None, "an id that is too long");
    }

    #[test]
    fn an_answer_is_the_question_with_a_status() {
        let question = Question::parse(&message(1034, 5, b"")).unwrap();
        let version = question.done();
        assert_eq!((version.len(), version[8], &version[2..8]), (1034, 2, &question.bytes[2..8]));
        let failed = Question::parse(&message(1067, 0, b"one")).unwrap().failed();
        assert_eq!(failed[2..4], (-5_i16).to_ne_bytes());
        let unknown = Question::parse(&message(1067, 9, b"")).unwrap().failed();
        assert_eq!(unknown[2..4], (-95_i16).to_ne_bytes());
    }

    #[test]
    fn a_client_that_may_reclaim_comes_before_the_end() {
        let one = client(b"one", &[9; 32]);
        let of = |length| Question::parse(&message(length, 4, b"")).unwrap().may_reclaim(&one);
        let (short, long) = (of(1034), of(1067));
        assert_eq!((short.len(), &short[2..4]), (1034, &(-115_i16).to_ne_bytes()[..]));
        assert_eq!((&short[8..10], &short[10..13]), (&3_u16.to_ne_bytes()[..], &b"one"[..]));
        assert_eq!((long[1034], &long[1035..]), (32, &[9; 32][..]));
    }

    proptest! {
        #[test]
        fn any_message_is_answered_at_its_length(
            bytes in prop_oneof![vec(any::<u8>(), 1034), vec(any::<u8>(), 1067)],
            id in vec(any::<u8>(), 1..=1024),
        ) {
            if let Some(question) = Question::parse(&bytes) {
                let one = client(&id, &[9; 32]);
                for answer in [question.done(), question.failed(), question.may_reclaim(&one)] {
                    prop_assert_eq!(answer.len(), bytes.len());
                }
                prop_assert_eq!(Client::from_line(&one.to_line()), Some(one));
            }
        }

        #[test]
        fn any_line_is_a_client_or_none(line in ".*\n?") {
            let _ = Client::from_line(&line);
        }
    }

    #[test]
    fn a_line_that_ends_early_is_no_client() {
        let one = client(b"a\0\n\xff", &[1, 2]);
        assert_eq!(one.to_line(), "61000aff 0102\n");
        assert_eq!(Client::from_line(&one.to_line()), Some(one));
        for wrong in ["", "61", "61 ", "61 01", "6 \n", "6g \n", " \n", "é0 \n"] {
            assert_eq!(Client::from_line(wrong), None, "{wrong:?}");
        }
        assert_eq!(Client::from_line("61 \n"), Some(client(b"a", b"")));
    }
}
