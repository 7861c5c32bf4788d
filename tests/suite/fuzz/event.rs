//! What happens to a gate, one thing after the other, and the text that a corpus keeps of it.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::support::frame::Endpoint;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame from the DMZ.
    From(Vec<u8>),
    /// A frame on its way to the DMZ.
    To(Vec<u8>),
    /// A frame that comes back to the DMZ: it came in by the gate's own NIC, or by a device above it.
    Back(Vec<u8>, Above),
    /// A frame on its way to the DMZ that came in by the interface of this index. With a number the kernel has put
    /// datagrams of so many bytes together.
    Via(Vec<u8>, u32, u16),
    /// Time goes by: so many seconds, and [`JUMP_PART_NS`].
    Wait(u64),
    /// Another policy goes live.
    Swap(String),
    /// A policy on trial.
    Trial(String),
    /// Its time is over.
    WayBack,
    /// It stays.
    Confirm,
    /// Somebody is cut off, for so many seconds or until the release.
    Quarantine(Whom, Option<u32>),
    Release(Whom),
    /// Somebody allows a server a need for so many seconds, or denies it.
    Edit(EditOrder),
    /// The oldest edit is cancelled.
    Cancel,
    /// Flows are taken over for so many seconds from now on.
    Pickup(u32),
    /// A router takes over for so many seconds.
    Takeover(u32),
    /// Conntrack gets an entry.
    Conntrack(Known),
    /// The router's NIC has the first of these MACs, and devices above it the others. None: that is unknown.
    OwnMacs(Vec<[u8; 6]>),
}

/// An entry of conntrack: a flow between a server and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub tcp: bool,
    pub server: Endpoint,
    pub peer: Endpoint,
    pub state: KnownState,
}

/// How it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownState {
    Answered,
    OfServer,
    Unanswered,
    Unassured,
    Ending,
    OfOtherZone,
}

impl KnownState {
    pub const ALL: [(KnownState, &str); 6] = [
        (KnownState::Answered, "answered"),
        (KnownState::OfServer, "of-server"),
        (KnownState::Unanswered, "unanswered"),
        (KnownState::Unassured, "unassured"),
        (KnownState::Ending, "ending"),
        (KnownState::OfOtherZone, "of-other-zone"),
    ];
}

impl fmt::Display for Known {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.tcp { "tcp" } else { "udp" };
        let state =
            KnownState::ALL.iter().find(|(state, _)| *state == self.state).map_or("", |(_, word)| word);
        let [server, peer] = [self.server, self.peer].map(|(address, port)| SocketAddr::new(address, port));
        write!(out, "conntrack {protocol} {server} {peer} {state}")
    }
}

fn read_known(protocol: &str, server: &str, peer: &str, state: &str) -> Option<Known> {
    let end = |text: &str| text.parse().map(|end: SocketAddr| (end.ip(), end.port())).ok();
    let state = KnownState::ALL.iter().find(|(_, word)| *word == state)?.0;
    Some(Known { tcp: protocol == "tcp", server: end(server)?, peer: end(peer)?, state })
}

/// An edit that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditOrder {
    pub allows: bool,
    pub server: String,
    /// Peers open it; else the server does.
    pub inbound: bool,
    pub seconds: u32,
    pub need: String,
}

impl fmt::Display for EditOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EditOrder { allows, server, inbound, seconds, need } = self;
        let action = if *allows { "allow" } else { "deny" };
        let direction = if *inbound { "in" } else { "out" };
        write!(out, "{action} {server} {direction} {seconds} {need}")
    }
}

fn read_order(words: &[&str]) -> Option<EditOrder> {
    let [action, server, direction, seconds, need @ ..] = words else { return None };
    Some(EditOrder {
        allows: *action == "allow",
        server: (*server).to_owned(),
        inbound: *direction == "in",
        seconds: seconds.parse().ok()?,
        need: need.join(" "),
    })
}

/// Who is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    Server(String),
    /// Whatever server has them.
    Addresses(IpNet),
    /// A machine of this server, by its MAC.
    Machine(String, [u8; 6]),
}

impl fmt::Display for Whom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Server(name) => out.write_str(name),
            Whom::Addresses(prefix) => write!(out, "{prefix}"),
            Whom::Machine(server, mac) => write!(out, "{server}@{}", to_hex(mac)),
        }
    }
}

fn read_whom(text: &str) -> Option<Whom> {
    if let Some((server, mac)) = text.split_once('@') {
        return Some(Whom::Machine(server.to_owned(), from_hex(mac)?.try_into().ok()?));
    }
    let addresses = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    Some(addresses.map_or_else(|_| Whom::Server(text.to_owned()), Whom::Addresses))
}

/// Whether a device above the NIC is meant, and not the NIC itself.
pub type Above = bool;

/// A policy, and what happens while it is live and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub policy: String,
    pub events: Vec<Event>,
}

/// Added to each wait: timeouts are whole seconds, so that no entry comes to be as old as its
/// timeout to the millisecond, where the two clocks could differ by a tick.
pub const JUMP_PART_NS: u64 = 370_000_000;

const POLICY: &str = "policy";
const TRIAL: &str = "trial";
const LINE: &str = "| ";

impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_policy(out, &self.policy)?;
        for event in &self.events {
            writeln!(out, "{event}")?;
        }
        Ok(())
    }
}

fn write_policy(out: &mut fmt::Formatter<'_>, policy: &str) -> fmt::Result {
    out.write_str(POLICY)?;
    for line in policy.lines() {
        write!(out, "\n{LINE}{line}")?;
    }
    out.write_char('\n')
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::From(frame) => write!(out, "from {}", to_hex(frame)),
            Event::To(frame) => write!(out, "to {}", to_hex(frame)),
            Event::Wait(seconds) => write!(out, "wait {seconds}"),
            Event::WayBack => out.write_str("way-back"),
            Event::Confirm => out.write_str("confirm"),
            Event::Swap(policy) | Event::Trial(policy) => {
                out.write_str(if matches!(self, Event::Trial(_)) { TRIAL } else { POLICY })?;
                policy.lines().try_for_each(|line| write!(out, "\n{LINE}{line}"))
            }
            Event::Quarantine(whom, None) => write!(out, "quarantine {whom}"),
            Event::Quarantine(whom, Some(seconds)) => write!(out, "quarantine {whom} {seconds}"),
            Event::Release(whom) => write!(out, "release {whom}"),
            Event::Back(frame, false) => write!(out, "back {}", to_hex(frame)),
            Event::Back(frame, true) => write!(out, "back-above {}", to_hex(frame)),
            Event::Via(frame, interface, together) => {
                write!(out, "via {interface} {together} {}", to_hex(frame))
            }
            Event::Edit(order) => write!(out, "{order}"),
            Event::Cancel => out.write_str("cancel"),
            Event::Pickup(seconds) => write!(out, "pickup {seconds}"),
            Event::Takeover(seconds) => write!(out, "takeover {seconds}"),
            Event::Conntrack(known) => write!(out, "{known}"),
            Event::OwnMacs(macs) => {
                out.write_str("own")?;
                macs.iter().try_for_each(|mac| write!(out, " {}", to_hex(mac)))
            }
        }
    }
}

/// Reads what `Display` has written. Lines that begin with `#` are for people.
pub fn read_sequence(text: &str) -> Result<Sequence, String> {
    let mut policy = None;
    let mut events = Vec::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if line == POLICY || line == TRIAL {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with(LINE.trim_end())) {
                text.push_str(line.strip_prefix(LINE).unwrap_or_default());
                text.push('\n');
            }
            match policy {
                None if line == POLICY => policy = Some(text),
                _ if line == TRIAL => events.push(Event::Trial(text)),
                _ => events.push(Event::Swap(text)),
            }
        } else {
            events.push(read_event(line).ok_or_else(|| format!("`{line}` is no event"))?);
        }
    }
    Ok(Sequence { policy: policy.ok_or("no policy")?, events })
}

fn read_event(line: &str) -> Option<Event> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(match *words.as_slice() {
        ["from", hex] => Event::From(from_hex(hex)?),
        ["to", hex] => Event::To(from_hex(hex)?),
        ["way-back"] => Event::WayBack,
        ["confirm"] => Event::Confirm,
        ["wait", seconds] => Event::Wait(seconds.parse().ok()?),
        ["back", hex] => Event::Back(from_hex(hex)?, false),
        ["via", interface, together, hex] => {
            Event::Via(from_hex(hex)?, interface.parse().ok()?, together.parse().ok()?)
        }
        ["back-above", hex] => Event::Back(from_hex(hex)?, true),
        ["quarantine", whom] => Event::Quarantine(read_whom(whom)?, None),
        ["quarantine", whom, seconds] => Event::Quarantine(read_whom(whom)?, Some(seconds.parse().ok()?)),
        ["release", whom] => Event::Release(read_whom(whom)?),
        ["allow" | "deny", ..] => Event::Edit(read_order(&words)?),
        ["cancel"] => Event::Cancel,
        ["pickup", seconds] => Event::Pickup(seconds.parse().ok()?),
        ["takeover", seconds] => Event::Takeover(seconds.parse().ok()?),
        ["conntrack", protocol, server, peer, state] => {
            Event::Conntrack(read_known(protocol, server, peer, state)?)
        }
        ["own", ref macs @ ..] => {
            let macs: Option<Vec<_>> = macs.iter().map(|mac| from_hex(mac)?.try_into().ok()).collect();
            Event::OwnMacs(macs?)
        }
        _ => return None,
    })
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_read_back_as_it_was_written() {
        let policy = "[policy]\n\n[servers.web]\naddresses = [\"192.0.2.1\"]\n".to_owned();
        let events = vec![
            Event::From(vec![0, 1, 0xfe]),
            Event::To(vec![0x80]),
            Event::Wait(30),
            Event::Swap("a = 1\n".to_owned()),
            Event::Trial("a = 2\n".to_owned()),
            Event::WayBack,
            Event::Confirm,
            Event::Quarantine(Whom::Server("web".to_owned()), Some(60)),
            Event::Quarantine(Whom::Server("web".to_owned()), None),
            Event::Release(Whom::Server("web".to_owned())),
            Event::Edit(EditOrder {
                allows: false,
                server: "web".to_owned(),
                inbound: true,
                seconds: 60,
                need: "tcp/80-90 from 192.0.2.0/24".to_owned(),
            }),
            Event::Cancel,
            Event::Pickup(120),
            Event::Takeover(10),
            Event::Conntrack(Known {
                tcp: true,
                server: ("2001:db8::1".parse().unwrap(), 80),
                peer: ("2001:db8::2".parse().unwrap(), 51_000),
                state: KnownState::OfServer,
            }),
            Event::OwnMacs(vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x20]]),
            Event::OwnMacs(Vec::new()),
            Event::Back(vec![0xfe; 20], false),
            Event::Back(vec![0xfe; 20], true),
            Event::Via(vec![0xfe; 20], 3, 120),
            Event::Quarantine(Whom::Addresses("192.0.2.10/32".parse().unwrap()), Some(60)),
            Event::Quarantine(Whom::Addresses("2001:db8:1::/64".parse().unwrap()), None),
            Event::Quarantine(Whom::Machine("farm".to_owned(), [2, 0, 0, 0, 0, 0x10]), None),
            Event::Release(Whom::Machine("farm".to_owned(), [2, 0, 0, 0, 0, 0x10])),
        ];
        let sequence = Sequence { policy, events };
        assert_eq!(read_sequence(&sequence.to_string()), Ok(sequence));
        assert!(read_sequence("policy\nfrom 0").is_err());
        assert!(read_sequence("wait 3").is_err());
    }
}
