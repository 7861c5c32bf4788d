//! The grammar of needs: from a text to a need, or to every mistake in the text. More than 500 lines, because each
//! clause of a need has its mistakes beside it, and they share one cursor.

use std::ops::RangeInclusive;

use super::address::parse_prefix;
use super::document::{Section, Text};
use super::foreign::advise_on_need;
use super::mistake::Mistake;
use super::names::{looks_like_name, parse_name};
use super::peer_names::PeerNames;
use super::suggestion::suggest;
use super::words::{Word, split_words};
use crate::net::{self, Selector};
use crate::policy::diagnostic::{Finding, FindingOrigin};
use crate::policy::model::{Direction, Limit, Location, Need, Peer};

/// The highest limit, in flows. It is far above what a NIC can carry, and low enough for the
/// kernel's arithmetic.
const MAX_LIMIT: u32 = 10_000_000;

const NAMES_ARE_FOR_OUT: &str = "a name stands behind `to` in an `out` need alone: write addresses here";

/// Reads the list of needs under a key.
pub(super) fn read_needs(
    section: &Section<'_, '_>,
    key: &str,
    direction: Direction,
    names: &PeerNames<'_>,
) -> Option<Vec<Need>> {
    let read = |text: Text<'_>| {
        let place = section.place(&text.span);
        read_need(text.value, direction, names, place, &mut |finding| {
            let span = text.part(finding.span.clone());
            section.add(Finding { span, ..finding });
        })
    };
    Some(section.list(key)?.into_iter().filter_map(read).collect())
}

/// Reads a need and reports every mistake in it; `None` if there was one. Spans are bytes of `text`.
pub(super) fn read_need(
    text: &str,
    direction: Direction,
    names: &PeerNames<'_>,
    place: Location,
    report: &mut dyn FnMut(Finding),
) -> Option<Need> {
    let mut findings = Vec::new();
    let need = read_plain_need(text, direction, names, place, &mut |finding| findings.push(finding));
    if need.is_some() {
        return need;
    }
    let is_need = |text: &str| read_plain_need(text, direction, names, place, &mut |_| {}).is_some();
    match advise_on_need(text, direction, is_need) {
        Some(help) => {
            let message = format!("`{}` is not how a need is written", text.trim());
            report(Finding::new(0..text.len(), message).with_help(help));
        }
        None => findings.into_iter().for_each(report),
    }
    None
}

/// The same for needs in the manner of this language alone.
pub(super) fn read_plain_need(
    text: &str,
    direction: Direction,
    names: &PeerNames<'_>,
    place: Location,
    report: &mut dyn FnMut(Finding),
) -> Option<Need> {
    let mut reader = NeedReader { direction, names, sound: true, report };
    let words = split_words(text);
    let Some((head, rest)) = words.split_first() else {
        reader.refuse(
            Mistake::new(0..text.len(), "this need is empty").with_help("write a need like `tcp/80`"),
        );
        return None;
    };
    let service = reader.read_service(head);
    let protocol = service.as_ref().map(|(protocol, _)| *protocol);
    let Clauses { peers, sport, limit } = reader.read_clauses(rest, protocol, text.len());
    let (protocol, ports) = service?;
    reader.sound.then_some(Need { direction, protocol, ports, peers, sport, limit, place })
}

/// Reads the name of a peer by itself: an address, a prefix, `@SET` or a server. Spans are bytes of `text`.
pub(super) fn read_peer_name(
    text: &str,
    names: &PeerNames<'_>,
    report: &mut dyn FnMut(Finding),
) -> Option<Peer> {
    let mut reader = NeedReader { direction: Direction::In, names, sound: true, report };
    reader.read_peer(&Word { text, span: 0..text.len() })
}

/// The clauses behind the protocol of a need.
#[derive(Default)]
struct Clauses {
    peers: Vec<Peer>,
    sport: Option<RangeInclusive<u16>>,
    limit: Option<Limit>,
}

struct NeedReader<'r> {
    direction: Direction,
    names: &'r PeerNames<'r>,
    sound: bool,
    report: &'r mut dyn FnMut(Finding),
}

impl NeedReader<'_> {
    fn refuse(&mut self, mistake: Mistake) {
        self.refuse_because(mistake, FindingOrigin::Text);
    }

    fn refuse_because(&mut self, mistake: Mistake, origin: FindingOrigin) {
        self.sound = false;
        (self.report)(
            Finding::new(mistake.span, mistake.message).with_hint(mistake.help).with_origin(origin),
        );
    }

    fn read_service(&mut self, word: &Word<'_>) -> Option<(u8, RangeInclusive<u16>)> {
        let (name, selection) = match word.text.split_once('/') {
            Some((name, selection)) => (name, Some(selection)),
            None => (word.text, None),
        };
        let name_span = word.span.start..word.span.start + name.len();
        let protocol = match parse_protocol(name) {
            Ok(protocol) => protocol,
            Err(mistake) => {
                self.refuse(mistake.shifted(name_span.start));
                return None;
            }
        };
        let whole = Selector::of(protocol).whole();
        let Some(selection) = selection else {
            return Some((protocol, whole));
        };
        match parse_selection(protocol, selection) {
            Ok(ports) => Some((protocol, ports)),
            Err(mistake) => {
                self.refuse(mistake.shifted(name_span.end + 1));
                None
            }
        }
    }

    /// Reads what follows the protocol: peers, then the server's port, then a limit.
    fn read_clauses(&mut self, words: &[Word<'_>], protocol: Option<u8>, end: usize) -> Clauses {
        let mut clauses = Clauses::default();
        let mut rest = words;
        if let Some((word, after)) = rest.split_first()
            && matches!(word.text, "to" | "from")
        {
            self.check_preposition(word);
            let ends = |word: &Word<'_>| matches!(word.text, "sport" | "limit");
            let length = after.iter().position(ends).unwrap_or(after.len());
            let (list, tail) = after.split_at(length);
            let list_end = tail.first().map_or(end, |word| word.span.start);
            clauses.peers = self.read_peers(list, word.span.end.min(end), list_end);
            rest = tail;
        }
        if let Some((word, after)) = rest.split_first()
            && word.text == "sport"
        {
            clauses.sport = self.read_sport(word, after.first(), protocol);
            rest = after.get(1..).unwrap_or_default();
        }
        if let Some((word, after)) = rest.split_first()
            && word.text == "limit"
        {
            clauses.limit = self.read_limit(word, after.first());
            rest = after.get(1..).unwrap_or_default();
        }
        if let Some(word) = rest.first() {
            self.refuse(explain_surplus(word, self.direction));
        }
        clauses
    }

    /// Reads the ports of the server; `None` for every port.
    fn read_sport(
        &mut self,
        keyword: &Word<'_>,
        value: Option<&Word<'_>>,
        protocol: Option<u8>,
    ) -> Option<RangeInclusive<u16>> {
        if self.direction != Direction::Out {
            let message = format!(
                "`sport` is the port from which a server opens, so it belongs to `out`, not to `{}`",
                self.direction
            );
            self.refuse(Mistake::new(keyword.span.clone(), message));
            return None;
        }
        let protocol = protocol?;
        if !net::has_ports(protocol) {
            let message = format!("protocol `{}` has no ports", net::name_protocol(protocol));
            self.refuse(Mistake::new(keyword.span.clone(), message).with_help("remove `sport`"));
            return None;
        }
        let Some(value) = value else {
            let at = keyword.span.end;
            self.refuse(
                Mistake::new(at..at, "a port is missing here")
                    .with_help("write the server's own port, like `sport 20` or `sport 600-1023`"),
            );
            return None;
        };
        match parse_ports(protocol, value.text) {
            Ok(ports) => Some(ports).filter(|ports| *ports != Selector::Port.whole()),
            Err(mistake) => {
                self.refuse(mistake.shifted(value.span.start));
                None
            }
        }
    }

    fn check_preposition(&mut self, word: &Word<'_>) {
        let right = self.direction.preposition();
        if word.text != right {
            let message = format!("a need of `{}` has `{right}`, not `{}`", self.direction, word.text);
            self.refuse(Mistake::new(word.span.clone(), message).with_help(format!("write `{right}`")));
        }
    }

    fn read_peers(&mut self, words: &[Word<'_>], start: usize, end: usize) -> Vec<Peer> {
        let mut peers = Vec::new();
        let mut wants_peer = true;
        for word in words {
            match (word.text, wants_peer) {
                (",", true) => {
                    self.refuse(Mistake::new(word.span.clone(), "an address is missing before this comma"));
                }
                (",", false) => wants_peer = true,
                (_, true) => {
                    peers.extend(self.read_peer(word));
                    wants_peer = false;
                }
                (text, false) => {
                    let message = format!("expected a comma or `limit` before `{text}`");
                    self.refuse(Mistake::new(word.span.clone(), message));
                    break;
                }
            }
        }
        if wants_peer {
            let preposition = self.direction.preposition();
            let at = words.last().map_or(start, |word| word.span.end).min(end);
            self.refuse(
                Mistake::new(at..at, "an address, prefix or @set is missing here")
                    .with_help(format!("name a peer, or remove `{preposition}` to mean every peer")),
            );
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn read_peer(&mut self, word: &Word<'_>) -> Option<Peer> {
        let Some(name) = word.text.strip_prefix('@') else {
            return match (parse_prefix(word.text), self.names.servers.get(word.text)) {
                (Ok(prefix), _) => Some(Peer::Prefix(prefix)),
                (_, Some(addresses)) => Some(Peer::Server(word.text.to_owned(), addresses.clone())),
                (Err(_), None) if looks_like_name(word.text) => self.read_name(word),
                (Err(mistake), None) => {
                    self.refuse_peer(word, mistake);
                    None
                }
            };
        };
        match self.names.sets.get(name) {
            Some(set) if !set.names.is_empty() && self.direction != Direction::Out => {
                let message = format!("set `{name}` has names, and `{}` can't", self.direction);
                self.refuse(Mistake::new(word.span.clone(), message).with_help(NAMES_ARE_FOR_OUT));
                None
            }
            Some(set) if set.is_empty() && set.sound => {
                let message = format!("set `{name}` is empty, so this need could never be met");
                self.refuse(
                    Mistake::new(word.span.clone(), message)
                        .with_help("add a member to the set, or remove the need"),
                );
                None
            }
            Some(_) => Some(Peer::Set(name.to_owned())),
            None => {
                let help = suggest(name, self.names.sets.keys().map(String::as_str))
                    .map(|help| help.replacen('`', "`@", 1));
                let mistake =
                    Mistake::new(word.span.clone(), format!("no set is called `{name}`")).with_hint(help);
                self.refuse_because(
                    mistake,
                    FindingOrigin::Undefined { table: "sets", name: name.to_owned() },
                );
                None
            }
        }
    }

    /// Reads a DNS name.
    fn read_name(&mut self, word: &Word<'_>) -> Option<Peer> {
        if self.direction != Direction::Out {
            let message = format!("`{}` is a name, and `{}` can't have one", word.text, self.direction);
            self.refuse(Mistake::new(word.span.clone(), message).with_help(NAMES_ARE_FOR_OUT));
            return None;
        }
        match parse_name(word.text) {
            Ok(name) => Some(Peer::Name(name)),
            Err(mistake) => {
                self.refuse(mistake.shifted(word.span.start));
                None
            }
        }
    }

    /// Refuses a word that is neither an address nor the name of a server.
    fn refuse_peer(&mut self, word: &Word<'_>, mistake: Mistake) {
        if self.names.sets.contains_key(word.text) {
            let help = format!("write `@{}`: the name of a set has an `@` before it", word.text);
            self.refuse(mistake.with_help(help).shifted(word.span.start));
            return;
        }
        let help = self.names.suggest_server(word.text).or_else(|| mistake.help.clone());
        let is_name = word.text.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && word.text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter));
        if !is_name {
            self.refuse(mistake.with_hint(help).shifted(word.span.start));
            return;
        }
        let message = format!("no server is called `{}`", word.text);
        let origin = FindingOrigin::Undefined { table: "servers", name: word.text.to_owned() };
        self.refuse_because(Mistake::new(word.span.clone(), message).with_hint(help), origin);
    }

    fn read_limit(&mut self, keyword: &Word<'_>, value: Option<&Word<'_>>) -> Option<Limit> {
        if self.direction != Direction::Out {
            let message = format!(
                "`limit` caps what a server opens, so it belongs to `out`, not to `{}`",
                self.direction
            );
            self.refuse(Mistake::new(keyword.span.clone(), message));
            return None;
        }
        let Some(value) = value else {
            let at = keyword.span.end;
            self.refuse(
                Mistake::new(at..at, "a limit is missing here")
                    .with_help("write a limit like `20/s` or `100/m`"),
            );
            return None;
        };
        match parse_limit(value.text) {
            Ok(limit) => Some(limit),
            Err(mistake) => {
                self.refuse(mistake.shifted(value.span.start));
                None
            }
        }
    }
}

fn explain_surplus(word: &Word<'_>, direction: Direction) -> Mistake {
    let mistake = Mistake::new(word.span.clone(), format!("`{}` is not expected here", word.text));
    match word.text {
        "," => mistake.with_help("write one need for each port or range, each in its own quotes"),
        "to" | "from" => mistake.with_help("name the peers once, before `limit`"),
        "sport" => mistake.with_help("write `sport` once, behind the peers and before `limit`"),
        "limit" => mistake.with_help("write one limit"),
        text if parse_prefix(text).is_ok() || text.starts_with('@') => {
            mistake.with_help(format!("write `{} {text}`", direction.preposition()))
        }
        text => mistake.with_hint(suggest(text, [direction.preposition(), "sport", "limit"])),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_protocol(text: &str) -> Result<u8, Mistake> {
    let whole = 0..text.len();
    if is_number(text) {
        return text.parse().map_err(|_| Mistake::new(whole, format!("protocol {text} is over 255")));
    }
    if let Some(number) = net::find_protocol(text) {
        return Ok(number);
    }
    if text.is_empty() {
        return Err(Mistake::new(whole, "a protocol is missing here").with_help("write a need like `tcp/80`"));
    }
    let mistake = Mistake::new(whole, format!("no protocol is called `{text}`"));
    let ports = net::find_protocols(text);
    let mut services = ports.iter().map(|number| format!("`{}/{text}`", net::name_protocol(*number)));
    let help = suggest(text, net::protocol_names())
        .or_else(|| services.next().map(|need| format!("did you mean {need}?")));
    Err(mistake.with_help(help.unwrap_or_else(|| "write its number, 0 to 255".to_owned())))
}

/// Parses what follows a protocol's `/`.
fn parse_selection(protocol: u8, text: &str) -> Result<RangeInclusive<u16>, Mistake> {
    let name = net::name_protocol(protocol);
    match Selector::of(protocol) {
        Selector::None => Err(Mistake::new(0..text.len(), format!("protocol `{name}` has no ports"))
            .with_help(format!("write `{name}` alone"))),
        Selector::Type => parse_icmp_type(protocol, text).map(|number| number..=number),
        Selector::Port => parse_ports(protocol, text),
    }
}

fn parse_icmp_type(protocol: u8, text: &str) -> Result<u16, Mistake> {
    let whole = 0..text.len();
    let name = net::name_protocol(protocol);
    if is_number(text) {
        return match text.parse::<u8>() {
            Ok(number) => Ok(u16::from(number)),
            Err(_) => Err(Mistake::new(whole, format!("{name} type {text} is over 255"))),
        };
    }
    if text.is_empty() {
        return Err(Mistake::new(whole, "a type is missing after `/`")
            .with_help("write a type like `echo-request`, or remove `/` to mean every type"));
    }
    if let Some(number) = net::find_icmp_type(protocol, text) {
        return Ok(u16::from(number));
    }
    let mistake = Mistake::new(whole, format!("no {name} type is called `{text}`"));
    if text.split('-').all(is_number) {
        return Err(mistake.with_help("write one need for each type: types have no ranges"));
    }
    Err(mistake.with_hint(suggest(text, net::icmp_type_names(protocol))))
}

fn parse_ports(protocol: u8, text: &str) -> Result<RangeInclusive<u16>, Mistake> {
    let whole = 0..text.len();
    if text.is_empty() {
        return Err(Mistake::new(whole, "a port is missing after `/`")
            .with_help("write a port, or remove `/` to mean every port"));
    }
    if let Some((first, last)) = text.split_once('-')
        && is_number(first)
    {
        let low = parse_port(first)?;
        if !is_number(last) {
            let mistake = Mistake::new(
                first.len() + 1..text.len(),
                format!("`{last}` is not the end of a range of ports"),
            );
            return Err(mistake.with_help("write two port numbers, like `6000-6063`"));
        }
        let high = parse_port(last).map_err(|mistake| mistake.shifted(first.len() + 1))?;
        if low > high {
            return Err(Mistake::new(whole, format!("the range `{text}` runs backwards"))
                .with_help(format!("did you mean `{high}-{low}`?")));
        }
        return Ok(low..=high);
    }
    let port = if is_number(text) { parse_port(text)? } else { find_service(protocol, text)? };
    Ok(port..=port)
}

fn parse_port(text: &str) -> Result<u16, Mistake> {
    text.parse().map_err(|_| Mistake::new(0..text.len(), format!("port {text} is over 65535")))
}

fn find_service(protocol: u8, text: &str) -> Result<u16, Mistake> {
    if let Some(port) = net::find_port(protocol, text) {
        return Ok(port);
    }
    let name = net::name_protocol(protocol);
    let mistake = Mistake::new(0..text.len(), format!("no {name} service is called `{text}`"));
    let elsewhere: Vec<String> = net::find_protocols(text)
        .into_iter()
        .map(|other| format!("`{}/{text}`", net::name_protocol(other)))
        .collect();
    if !elsewhere.is_empty() {
        return Err(mistake
            .with_help(format!("did you mean {}? If not, write the port's number", elsewhere.join(" or "))));
    }
    let help = suggest(text, net::service_names(protocol));
    Err(mistake.with_help(help.unwrap_or_else(|| "write the port's number".to_owned())))
}

fn parse_limit(text: &str) -> Result<Limit, Mistake> {
    let whole = 0..text.len();
    let shape = "write a limit like `20/s` or `100/m`";
    let Some((count, unit)) = text.split_once('/') else {
        return Err(Mistake::new(whole, format!("`{text}` is not a limit")).with_help(shape));
    };
    let per_seconds = match unit {
        "s" => 1,
        "m" => 60,
        _ => {
            let span = count.len() + 1..text.len();
            return Err(Mistake::new(span, format!("`{unit}` is not a unit of a limit")).with_help(shape));
        }
    };
    let span = 0..count.len();
    if !is_number(count) {
        return Err(Mistake::new(span, format!("`{count}` is not a number")).with_help(shape));
    }
    match count.parse() {
        Ok(0) => {
            Err(Mistake::new(span, "a limit of zero lets nothing out").with_help("remove the need instead"))
        }
        Ok(count) if count <= MAX_LIMIT => Ok(Limit { count, per_seconds }),
        _ => Err(Mistake::new(span, format!("limit {count} is over {MAX_LIMIT}"))),
    }
}
