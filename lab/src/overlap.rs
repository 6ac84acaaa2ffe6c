//! The proof that a group never ran on two servers, from what its writer left (see `writer`), without asking
//! Holdfast. The clock is CLOCK_BOOTTIME, which all hosts of a lab share.
//!
//! 1. On the shared disk sequences count up by one from 1, so nothing was lost, doubled or overwritten.
//! 2. Times only grow, so no line of an old host stands after the first of a new one.
//! 3. Epochs never go back.
//! 4. Every line that a host knew to be durable is on the shared disk, unchanged.
//! 5. The stretches of time in which hosts had durable lines do not overlap. This needs the local files, as a
//!    shared file system that was mounted twice would show only one of the two histories.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::LabError;

/// One line of the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who wrote it.
    pub host: String,
    /// The view's epoch that the writer was started in; 0 if it was not told.
    pub epoch: u64,
    /// One more than the line before.
    pub sequence: u64,
    /// CLOCK_BOOTTIME just before the write, nanoseconds.
    pub boottime_ns: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {} {}", self.host, self.epoch, self.sequence, self.boottime_ns)
    }
}

impl FromStr for Line {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Line, LabError> {
        let wrong = || LabError::Api(format!("not a line of the writer: {text:?}; it writes HOST EPOCH SEQUENCE NS"));
        let fields: Vec<&str> = text.split(' ').collect();
        let [host, epoch, sequence, boottime_ns] = fields.as_slice() else { return Err(wrong()) };
        let number = |field: &str| field.parse::<u64>().map_err(|_| wrong());
        Ok(Line {
            host: (*host).to_string(),
            epoch: number(epoch)?,
            sequence: number(sequence)?,
            boottime_ns: number(boottime_ns)?,
        })
    }
}

/// A stretch of consecutive lines of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// The host.
    pub host: String,
    /// Its epoch at the first line.
    pub epoch: u64,
    /// Sequence of its first and last line.
    pub sequences: (u64, u64),
    /// CLOCK_BOOTTIME of its first and last line, nanoseconds.
    pub span_ns: (u64, u64),
}

/// Reads the writer's lines out of a file's text.
///
/// # Errors
/// With the first line that is not the writer's.
pub fn parse_lines(text: &str) -> Result<Vec<Line>, LabError> {
    text.lines().map(str::parse).collect()
}

/// Checks the shared file's `lines` against the rules above, with what each host knew to be durable, and
/// returns who held the group when: one entry per takeover, so its length minus one is the number of changes of
/// host.
///
/// # Errors
/// One sentence per broken rule, with the lines that break it.
pub fn check_overlap(lines: &[Line], acknowledged: &BTreeMap<String, Vec<Line>>) -> Result<Vec<Tenure>, Vec<String>> {
    let mut broken = Vec::new();
    let mut expected = 1;
    for line in lines {
        if line.sequence != expected {
            broken
                .push(format!("expected sequence {expected}, found `{line}`: a line was lost, doubled or overwritten"));
        }
        expected = line.sequence + 1;
    }
    for (earlier, later) in lines.iter().zip(lines.iter().skip(1)) {
        if later.boottime_ns <= earlier.boottime_ns {
            broken.push(format!("`{later}` stands after `{earlier}` and is older: two writers at once"));
        }
        if later.epoch < earlier.epoch {
            broken.push(format!("`{later}` stands after `{earlier}`: the epoch went back"));
        }
    }
    let by_sequence: BTreeMap<u64, &Line> = lines.iter().map(|line| (line.sequence, line)).collect();
    for line in acknowledged.values().flatten() {
        match by_sequence.get(&line.sequence) {
            Some(found) if *found == line => {}
            Some(found) => broken.push(format!("`{line}` was durable, now `{found}` stands there")),
            None => broken.push(format!("`{line}` was durable and is gone")),
        }
    }
    broken.extend(interleaved(acknowledged));
    if broken.is_empty() { Ok(tenures(lines)) } else { Err(broken) }
}

/// Who held the group when, from the hosts' own files alone: for groups without a shared disk. Rules 3 and 5.
///
/// # Errors
/// One sentence per broken rule, with the lines that break it.
pub fn merge_tenures(acknowledged: &BTreeMap<String, Vec<Line>>) -> Result<Vec<Tenure>, Vec<String>> {
    let broken = interleaved(acknowledged);
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut found: Vec<Tenure> = acknowledged.values().flat_map(|lines| epochs(lines)).collect();
    found.sort_by_key(|tenure| tenure.span_ns);
    Ok(found)
}

/// Rule 5 over the hosts' own files: the stretches of one epoch each may not overlap, nor come in another order
/// than their epochs.
fn interleaved(acknowledged: &BTreeMap<String, Vec<Line>>) -> Vec<String> {
    let mut spans: Vec<Tenure> = acknowledged.values().flat_map(|lines| epochs(lines)).collect();
    spans.sort_by_key(|tenure| tenure.span_ns);
    let mut broken = Vec::new();
    for (earlier, later) in spans.iter().zip(spans.iter().skip(1)) {
        if later.span_ns.0 <= earlier.span_ns.1 {
            broken.push(format!("active on two hosts at once: {earlier:?} and {later:?}"));
        }
        if later.epoch < earlier.epoch {
            broken.push(format!("{later:?} came after {earlier:?}: the epoch went back"));
        }
    }
    broken
}

/// Splits one host's lines where its sequence has a gap or its epoch changes: only there another host can have
/// held the group in between.
fn epochs(lines: &[Line]) -> Vec<Tenure> {
    let same = |a: &Line, b: &Line| a.epoch == b.epoch;
    lines.chunk_by(same).flat_map(tenures).collect()
}

/// Joins consecutive lines of one host. A gap in the sequence ends a stretch, too: in a host's own file it means
/// that another host wrote in between.
fn tenures(lines: &[Line]) -> Vec<Tenure> {
    let mut found: Vec<Tenure> = Vec::new();
    for line in lines {
        match found.last_mut() {
            Some(last) if last.host == line.host && last.sequences.1 + 1 == line.sequence => {
                last.sequences.1 = line.sequence;
                last.span_ns.1 = line.boottime_ns;
            }
            _ => found.push(Tenure {
                host: line.host.clone(),
                epoch: line.epoch,
                sequences: (line.sequence, line.sequence),
                span_ns: (line.boottime_ns, line.boottime_ns),
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        parse_lines(text).expect("the test's lines are well formed")
    }

    fn check(shared: &str, acknowledged: &[(&str, &str)]) -> Result<Vec<String>, Vec<String>> {
        let acknowledged = acknowledged.iter().map(|(host, text)| (host.to_string(), lines(text))).collect();
        let tenures = check_overlap(&lines(shared), &acknowledged)?;
        Ok(tenures.into_iter().map(|tenure| tenure.host).collect())
    }

    #[test]
    fn a_clean_takeover_and_return_is_three_tenures() {
        let found = check(
            "a 1 1 10\na 1 2 20\nb 2 3 30\na 3 4 40\n",
            &[("a", "a 1 1 10\na 1 2 20\na 3 4 40"), ("b", "b 2 3 30")],
        );
        assert_eq!(found, Ok(vec!["a".to_string(), "b".to_string(), "a".to_string()]));
    }

    #[test]
    fn each_broken_rule_is_told() {
        let cases = [
            ("a 1 1 10\na 1 3 20\n", vec![], "lost, doubled"),
            ("a 1 1 10\nb 2 2 30\na 2 3 20\n", vec![], "two writers"),
            ("a 2 1 10\nb 1 2 30\n", vec![], "epoch went back"),
            ("a 1 1 10\n", vec![("a", "a 1 1 10\na 1 2 20")], "is gone"),
            ("a 1 1 10\nb 2 2 30\n", vec![("a", "a 1 1 10\na 1 2 20")], "now `b 2 2 30` stands there"),
            ("a 1 1 10\na 1 2 40\n", vec![("a", "a 1 1 10\na 1 2 40"), ("b", "b 2 1 30")], "two hosts at once"),
        ];
        for (shared, acknowledged, expected) in cases {
            let broken = check(shared, &acknowledged).expect_err(expected);
            assert!(broken.iter().any(|line| line.contains(expected)), "{expected}: {broken:?}");
        }
    }
}
