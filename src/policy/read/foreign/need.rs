//! Needs in the manner of other tools.

use super::super::address::parse_prefix;
use super::address::{Meaning, read_address};
use crate::net::{self, Selector};
use crate::policy::model::Direction;

/// Words of rules that a need has no place for, and that change nothing in its meaning.
const NOISE: &[&str] = &[
    "a",
    "accept",
    "add",
    "allow",
    "and",
    "ct",
    "established",
    "filter",
    "forward",
    "established,related",
    "in",
    "inet",
    "ingress",
    "input",
    "insert",
    "ip",
    "ip6",
    "ipv4",
    "ipv6",
    "keep",
    "l4proto",
    "meta",
    "new",
    "on",
    "or",
    "out",
    "output",
    "pass",
    "permit",
    "proto",
    "protocol",
    "quick",
    "related",
    "rule",
    "state",
    "th",
    "-a",
    "-i",
    "-p",
    "--protocol",
    "-j",
    "-m",
    "--match",
    "--jump",
    "--state",
    "--ctstate",
    "state",
    "conntrack",
    "multiport",
    "comment",
];
/// Words of rules that deny.
const DENIALS: &[&str] = &["block", "deny", "drop", "reject"];

/// What the next word belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Any,
    Port,
    SourcePort,
    To,
    From,
    Type,
    Limit,
}

/// The parts of a rule, as far as they were found.
#[derive(Default)]
struct Rule {
    protocols: Vec<String>,
    ports: Vec<String>,
    source_ports: Vec<String>,
    to: Vec<String>,
    from: Vec<String>,
    limit: Option<String>,
    /// Something in it is not how a need has it.
    is_foreign: bool,
}

/// The help for a text that was refused as a need; `None` if it is in no manner that we know. `is_need` says
/// whether a text is a sound need, and only such needs are offered.
pub(crate) fn advise_on_need(
    text: &str,
    direction: Direction,
    is_need: impl Fn(&str) -> bool,
) -> Option<String> {
    let words = split(text);
    let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    if lower.iter().any(|word| DENIALS.contains(&word.as_str())) && words.len() > 1 {
        return Some("remove it: a policy lists what is permitted, and all the rest is dropped".to_owned());
    }
    if lower.iter().any(|word| word == "not" || word.starts_with('!')) {
        return Some("name the peers that are permitted: a need can't exclude any".to_owned());
    }
    let mut rule = Rule { is_foreign: text.chars().any(char::is_uppercase), ..Rule::default() };
    let mut slot = Slot::Any;
    for (word, lower) in words.iter().zip(&lower) {
        slot = rule.read_word(word, lower, slot)?;
    }
    if !rule.is_foreign {
        return None;
    }
    let needs = rule.to_needs(direction)?;
    if !needs.iter().all(|need| is_need(need)) {
        return None;
    }
    Some(match needs.as_slice() {
        [need] => format!("write `{need}`"),
        needs => format!("write one need for each: `{}`", needs.join("`, `")),
    })
}

/// Splits at white space, commas, braces and equal signs, and between protocols that are written together.
fn split(text: &str) -> Vec<String> {
    let is_border = |letter: char| letter.is_whitespace() || "{}(),;=\"'".contains(letter);
    text.split(is_border)
        .filter(|word| !word.is_empty())
        .flat_map(|word| {
            let parts: Vec<&str> = word.split(['+', '|', '&']).collect();
            let joins_protocols = parts.len() > 1
                && parts
                    .iter()
                    .all(|part| find_protocol(part.split('/').next().unwrap_or_default()).is_some());
            if joins_protocols { parts } else { vec![word] }
        })
        .map(str::to_owned)
        .collect()
}

/// The policy's name of a protocol, and whether it was written otherwise.
fn find_protocol(word: &str) -> Option<(String, bool)> {
    let lower = word.to_lowercase();
    let known = match lower.as_str() {
        "icmp6" | "ipv6-icmp" | "icmpv6" | "icmp-v6" => "icmpv6",
        "icmp4" | "icmpv4" => "icmp",
        "tcp4" | "tcp6" => "tcp",
        "udp4" | "udp6" => "udp",
        "ospfigp" | "ospf3" => "ospf",
        "ipencap" | "ip4" | "ipip" => "ipip",
        "6in4" => "sit",
        "carp" => "vrrp",
        _ => "",
    };
    if !known.is_empty() {
        return Some((known.to_owned(), known != word));
    }
    net::find_protocol(&lower).map(|_| (lower.clone(), lower != word))
}

/// Ports as a need has them (empty: every port), and whether they were written otherwise.
fn translate_ports(word: &str) -> Option<(String, bool)> {
    let is_number = |text: &str| !text.is_empty() && text.parse::<u16>().is_ok();
    if is_number(word) {
        return Some((word.to_owned(), false));
    }
    if matches!(word, "*" | "any" | "all" | "0-65535" | "0:65535" | "1-65535" | "1:65535") {
        return Some((String::new(), true));
    }
    if let Some(rest) = word.strip_prefix(">=").filter(|rest| is_number(rest)) {
        return Some((format!("{rest}-65535"), true));
    }
    if let Some(rest) = word.strip_prefix('>') {
        return Some((format!("{}-65535", rest.parse::<u16>().ok()?.checked_add(1)?), true));
    }
    if let Some(rest) = word.strip_prefix("<=").filter(|rest| is_number(rest)) {
        return Some((format!("0-{rest}"), true));
    }
    if let Some(rest) = word.strip_prefix('<') {
        return Some((format!("0-{}", rest.parse::<u16>().ok()?.checked_sub(1)?), true));
    }
    for mark in ["..", ":", "–", "-"] {
        let Some((first, last)) = word.split_once(mark) else { continue };
        let is_foreign = mark != "-" || first.is_empty() || last.is_empty();
        let first = if first.is_empty() { "0" } else { first };
        let last = if last.is_empty() { "65535" } else { last };
        if is_number(first) && is_number(last) {
            return Some((format!("{first}-{last}"), is_foreign));
        }
    }
    if let Some(first) = word.strip_suffix('+').filter(|first| is_number(first)) {
        return Some((format!("{first}-65535"), true));
    }
    (!net::find_protocols(word).is_empty()).then(|| (word.to_owned(), false))
}

impl Rule {
    /// Reads a word, and says what the next one belongs to; `None` for a word that no manner has.
    fn read_word(&mut self, word: &str, lower: &str, slot: Slot) -> Option<Slot> {
        if slot == Slot::Limit {
            return self.read_limit(lower);
        }
        if let Some(slot) = self.read_keyword(lower, slot) {
            return Some(slot);
        }
        if let Some((protocol, is_foreign)) = find_protocol(word) {
            self.is_foreign |= is_foreign || !self.protocols.is_empty();
            self.add_protocol(protocol);
            return Some(Slot::Any);
        }
        if word.contains("://") {
            self.read_url(word)?;
            return Some(Slot::Any);
        }
        match slot {
            Slot::To => {
                let peers = self.read_peer(word)?;
                self.to.extend(peers);
                return Some(Slot::To);
            }
            Slot::From => {
                let peers = self.read_peer(word)?;
                self.from.extend(peers);
                return Some(Slot::From);
            }
            Slot::SourcePort => {
                self.source_ports.push(translate_ports(lower)?.0);
                return Some(Slot::SourcePort);
            }
            Slot::Type => {
                self.ports.push(lower.to_owned());
                return Some(Slot::Type);
            }
            Slot::Port => {
                let (ports, is_foreign) = translate_ports(lower)?;
                self.is_foreign |= is_foreign;
                self.ports.push(ports);
                return Some(Slot::Port);
            }
            Slot::Any | Slot::Limit => {}
        }
        if matches!(lower, "ping" | "icmp-echo" | "echo-request") {
            self.is_foreign = true;
            if self.protocols.is_empty() {
                self.add_protocol("icmp".to_owned());
            }
            self.ports.push("echo-request".to_owned());
            return Some(Slot::Any);
        }
        if let Some(done) = self.read_service(lower) {
            return done.then_some(Slot::Any);
        }
        let (ports, _) = translate_ports(lower)?;
        // `tcp 80`, `80 tcp`, and the rest of `tcp/80,443`
        self.is_foreign |= !self.protocols.is_empty() || ports.parse::<u16>().is_ok();
        self.ports.push(ports);
        Some(Slot::Any)
    }

    fn read_keyword(&mut self, lower: &str, slot: Slot) -> Option<Slot> {
        let (next, is_foreign) = match lower {
            "to" => (Slot::To, false),
            "from" => (Slot::From, false),
            "sport" => (Slot::SourcePort, false),
            "limit" => (Slot::Limit, false),
            "daddr" | "-d" | "--dst" | "--destination" => (Slot::To, true),
            "saddr" | "-s" | "--src" | "--source" => (Slot::From, true),
            "dport" | "--dport" | "--dports" | "--destination-port" | "port" | "ports" | "dst-port" => {
                (Slot::Port, true)
            }
            "--sport" | "--sports" | "--source-port" | "src-port" => (Slot::SourcePort, true),
            "type" | "icmp-type" | "--icmp-type" | "--icmpv6-type" => (Slot::Type, true),
            word if NOISE.contains(&word) && slot != Slot::Type => (Slot::Any, true),
            _ => return None,
        };
        self.is_foreign |= is_foreign;
        Some(next)
    }

    /// `PROTO/PORT`, `PORT/PROTO`, `PROTO:PORT`, `PROTO/PROTO/PORT`. `None`: it is none of them. `Some(false)`:
    /// it is one, and can't be read.
    fn read_service(&mut self, word: &str) -> Option<bool> {
        let mark = if word.contains('/') { '/' } else { ':' };
        let parts: Vec<&str> = word.split(mark).collect();
        let is_protocol =
            |part: &&str| find_protocol(part).is_some() || matches!(*part, "any" | "*" | "tcpudp");
        if parts.len() < 2 || !parts.iter().any(is_protocol) {
            return None;
        }
        self.is_foreign |= mark == ':' || parts.len() > 2 || !self.protocols.is_empty();
        for (index, part) in parts.iter().enumerate() {
            if part.is_empty() {
                // `tcp/{80,443}`: the ports are the next words
            } else if matches!(*part, "any" | "*") && index > 0 {
                self.is_foreign = true;
                self.ports.push(String::new());
            } else if matches!(*part, "any" | "*" | "tcpudp") {
                self.is_foreign = true;
                self.add_protocol("tcp".to_owned());
                self.add_protocol("udp".to_owned());
            } else if let Some((protocol, is_foreign)) = find_protocol(part) {
                // a protocol behind its port
                self.is_foreign |= is_foreign || index > 0;
                self.add_protocol(protocol);
            } else if let Some((ports, is_foreign)) = translate_ports(part) {
                self.is_foreign |= is_foreign;
                self.ports.push(ports);
            } else {
                // the name of a type, which the reader of needs knows
                self.ports.push((*part).to_owned());
            }
        }
        Some(true)
    }

    fn add_protocol(&mut self, protocol: String) {
        if !self.protocols.contains(&protocol) {
            self.protocols.push(protocol);
        }
    }

    fn read_url(&mut self, word: &str) -> Option<()> {
        let (scheme, rest) = word.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let scheme = scheme.to_lowercase();
        self.is_foreign = true;
        let (address, port) = match read_address(host) {
            Some(Meaning::WithPort(address, port)) => (address, Some(port)),
            Some(Meaning::Prefixes(prefixes)) => (prefixes.first()?.clone(), None),
            _ => match host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
                Some((name, port)) => (name.to_owned(), Some(port.to_owned())),
                None => (host.to_owned(), None),
            },
        };
        if let Some((protocol, _)) = find_protocol(&scheme) {
            self.add_protocol(protocol);
            self.ports.push(port?);
        } else {
            let protocol = *net::find_protocols(&scheme).first()?;
            self.add_protocol(net::name_protocol(protocol).into_owned());
            self.ports.push(port.unwrap_or(scheme));
        }
        self.to.push(address);
        Some(())
    }

    /// The peers that a word stands for; an empty list: every peer.
    fn read_peer(&mut self, word: &str) -> Option<Vec<String>> {
        if parse_prefix(word).is_ok() || word.starts_with('@') {
            return Some(vec![word.to_owned()]);
        }
        let meaning = read_address(word);
        self.is_foreign |= meaning.is_some();
        match meaning {
            Some(Meaning::Everybody) => Some(Vec::new()),
            Some(Meaning::Prefixes(prefixes)) => Some(prefixes),
            Some(Meaning::WithPort(address, port)) => {
                self.ports.push(port);
                Some(vec![address])
            }
            Some(Meaning::Variable(name)) => Some(vec![format!("@{name}")]),
            Some(Meaning::Negation | Meaning::WideRange) => None,
            // perhaps the name of a server
            None => Some(vec![word.to_owned()]),
        }
    }

    /// `20/s`, and nft's `rate 20/second`.
    fn read_limit(&mut self, lower: &str) -> Option<Slot> {
        if lower == "rate" {
            self.is_foreign = true;
            return Some(Slot::Limit);
        }
        let (count, unit) = lower.split_once('/')?;
        let unit = match unit {
            "s" | "m" => unit,
            "second" | "sec" => "s",
            "minute" | "min" => "m",
            _ => return None,
        };
        self.is_foreign |= unit.len() != lower.len() - count.len() - 1;
        self.limit = Some(format!("{count}/{unit}"));
        Some(Slot::Any)
    }

    /// The needs that say the same.
    fn to_needs(&self, direction: Direction) -> Option<Vec<String>> {
        let mut protocols = self.protocols.clone();
        if protocols.is_empty() {
            if self.ports.is_empty() {
                return None;
            }
            protocols.extend(["tcp".to_owned(), "udp".to_owned()]);
        }
        let peers = if direction == Direction::In { &self.from } else { &self.to };
        let mut clauses = String::new();
        if !peers.is_empty() {
            clauses = format!(" {} {}", direction.preposition(), peers.join(", "));
        }
        if let [ports] = self.source_ports.as_slice()
            && direction == Direction::Out
            && !ports.is_empty()
        {
            clauses.push_str(&format!(" sport {ports}"));
        }
        if let Some(limit) = self.limit.as_ref().filter(|_| direction == Direction::Out) {
            clauses.push_str(&format!(" limit {limit}"));
        }
        let mut needs = Vec::new();
        for protocol in &protocols {
            let has_none =
                net::find_protocol(protocol).is_some_and(|number| Selector::of(number) == Selector::None);
            if has_none && !self.ports.is_empty() {
                return None;
            }
            if self.ports.is_empty() || self.ports.iter().any(String::is_empty) {
                needs.push(format!("{protocol}{clauses}"));
                continue;
            }
            // A service that one protocol lacks belongs to the others.
            let is_known = |ports: &&String| {
                ports.starts_with(|letter: char| letter.is_ascii_digit())
                    || !self.protocols.is_empty() && protocols.len() == 1
                    || net::find_protocol(protocol)
                        .is_some_and(|number| net::find_port(number, ports).is_some())
            };
            for ports in self.ports.iter().filter(is_known) {
                needs.push(format!("{protocol}/{ports}{clauses}"));
            }
        }
        (!needs.is_empty()).then_some(needs)
    }
}
