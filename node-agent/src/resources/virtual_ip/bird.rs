//! BIRD's control socket: what it makes of our route. Read only; BIRD learns the route from the kernel.
//!
//! A command is a line; its answer is lines that begin with a code of four digits, then `-` while more follow and a blank
//! on the last one, or with a blank where the code is that of the line before (BIRD programmer's manual, "Commands").

use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::Known;
use crate::resources::netlink::routes::PROTOCOL;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    /// The last code: 0…: fine, 8…: can't be done, 9…: not understood.
    code: u16,
    /// The text of all lines.
    lines: Vec<String>,
}

/// Asks what BIRD makes of our route to an address. `protocol`: the instance that is to announce it.
///
/// # Errors
/// A sentence: BIRD can't be asked.
pub(super) fn known(socket: &Path, address: IpAddr, protocol: Option<&str>, limit: Duration) -> Result<Known, String> {
    let net = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    let talk = |command: &str| {
        ask(socket, command, limit).map_err(|e| format!("BIRD does not answer on {}: {e}", socket.display()))
    };
    let wanted = protocol.map_or_else(|| "primary".to_owned(), |name| format!("export {name}"));
    let reply = talk(&format!("show route {net} {wanted} all"))?;
    if is_ours(&reply) {
        return Ok(Known::Announced);
    }
    let all = talk(&format!("show route {net} all"))?;
    let state = match protocol {
        Some(name) => talk(&format!("show protocols {name}"))?.lines,
        None => Vec::new(),
    };
    Ok(Known::Not(reason(&net, protocol, &reply, &all, &state)))
}

/// Codes of what can't be done, from here on.
const REFUSED: u16 = 8000;
/// "Network not found".
const NOT_FOUND: u16 = 8001;

/// `wanted`: the answer to what was hoped for; `all`: every route to it; `state`: rows about the protocol.
fn reason(net: &str, protocol: Option<&str>, wanted: &Reply, all: &Reply, state: &[String]) -> String {
    if !is_ours(all) {
        return format!(
            "BIRD has not learnt {net} from the kernel; its configuration needs a protocol kernel with `learn;` and an import \
             that takes krt_source = {PROTOCOL}"
        );
    }
    // Name, kind, table, state, since, info.
    let row = protocol.and_then(|name| state.iter().find(|line| line.split_whitespace().next() == Some(name)));
    if let (Some(name), Some(row)) = (protocol, row)
        && row.split_whitespace().nth(3) != Some("up")
    {
        return format!("protocol {name} of BIRD is not up: {}", row.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    // Its own words, for a name that it doesn't have.
    if wanted.code >= REFUSED && wanted.code != NOT_FOUND {
        let name = protocol.unwrap_or_default();
        return format!("BIRD can't say what it announces to {name:?}: {}", wanted.lines.join(" "));
    }
    let best = all.lines.iter().find(|line| line.contains(" * "));
    if let Some(best) = best.filter(|_| !best_is_ours(all)) {
        return format!(
            "BIRD prefers another route to {net}: {}; give the channel of its protocol kernel a higher preference",
            best.trim()
        );
    }
    match protocol {
        Some(name) => {
            format!("BIRD does not export {net} to {name}; its export filter has to take krt_source = {PROTOCOL}")
        }
        None => format!("BIRD does not use its route to {net}"),
    }
}

/// Whether an attribute of a route says that it is ours.
fn source(line: &str) -> bool {
    let Some((name, value)) = line.trim().split_once(':') else { return false };
    // BIRD 2, BIRD 3.
    matches!(name, "Kernel.source" | "krt_source") && value.trim() == PROTOCOL.to_string()
}

fn is_ours(reply: &Reply) -> bool {
    reply.code < 8000 && reply.lines.iter().any(|line| source(line))
}

/// Whether the route with the asterisk, the one in use, is ours.
fn best_is_ours(reply: &Reply) -> bool {
    let after = reply.lines.iter().skip_while(|line| !line.contains(" * ")).skip(1);
    after.take_while(|line| line.starts_with(char::is_whitespace) && !line.contains('[')).any(|line| source(line))
}

fn ask(socket: &Path, command: &str, limit: Duration) -> io::Result<Reply> {
    // A listener that nobody accepts on lets the connection wait, not the connecting.
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut reader = BufReader::new(stream);
    let greeting = reply(&mut reader)?;
    if greeting.code != 1 {
        return Err(io::Error::other(format!("its greeting is {greeting:?}")));
    }
    reader.get_mut().write_all(format!("{command}\n").as_bytes())?;
    reply(&mut reader)
}

/// Most that an answer about one route may be; more is not BIRD.
const MOST: usize = 1 << 20;

fn reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        length += line.len();
        if length > MOST {
            return Err(io::Error::other("its answer has no end"));
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match (line.get(..4).and_then(|code| code.parse::<u16>().ok()), line.as_bytes().get(4)) {
            (Some(code), Some(b'-')) if code > 0 => lines.push(line[5..].to_owned()),
            (Some(code), last) => {
                lines.push(last.map_or("", |_| line.get(5..).unwrap_or_default()).to_owned());
                return Ok(Reply { code, lines });
            }
            (None, _) => lines.push(line.strip_prefix(' ').unwrap_or(&line).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reply {
        reply(&mut text.as_bytes()).unwrap()
    }

    const OURS: &str = "1007-Table master4:\n 10.9.9.9/32          unicast [kernel1 10:00:00.000] * (10)\n \tdev lo\n\
                        1008-\tType: inherit univ\n1012-\tKernel.source: 72\n \tKernel.metric: 0\n0000 \n";
    const BOTH: &str = "1007-Table master4:\n 10.9.9.9/32          unicast [ospf1 10:00:00.000] * E2 (150/10/10000) [10.0.0.2]\n\
                        \x20\tvia 10.0.0.2 on eth0\n1008-\tType: OSPF-E2 univ\n1012-\tOSPF.metric1: 10\n\
                        1007-                     unicast [kernel1 10:00:01.000] (10)\n \tdev lo\n\
                        1012-\tKernel.source: 72\n0000 \n";

    #[test]
    fn our_route_is_told_from_that_of_another_server() {
        assert!(is_ours(&read(OURS)) && best_is_ours(&read(OURS)));
        assert!(is_ours(&read(BOTH)) && !best_is_ours(&read(BOTH)));
        assert!(!is_ours(&read("8001 Network not found\n")));
        assert!(!is_ours(&read(&OURS.replace("72", "12"))), "that of another program");
        assert!(reply(&mut &b"1007-Table"[..]).is_err());
    }

    #[test]
    fn the_reason_is_what_has_to_be_changed_in_birds_configuration() {
        let state = |word: &str| {
            vec!["Name Proto Table State Since Info".into(), format!("ospf1 OSPF master4 {word} 10:00 Alone")]
        };
        let none = || read("8001 Network not found\n");
        let reason = |all: &str, protocol, word| reason("10.9.9.9/32", protocol, &none(), &read(all), &state(word));
        assert!(reason("8001 Network not found\n", None, "up").contains("needs a protocol kernel with `learn;`"));
        assert!(reason(OURS, Some("ospf1"), "down").contains("ospf1 of BIRD is not up: ospf1 OSPF master4 down"));
        assert!(reason(OURS, Some("ospf1"), "up").contains("its export filter"));
        let other = reason(BOTH, None, "up");
        assert!(
            other.contains("prefers another route") && other.contains("[ospf1") && other.contains("preference"),
            "{other}"
        );
    }
}
