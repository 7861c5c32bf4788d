//! DNS names as destinations, and the values of `[names]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::parse_prefix;
use super::document::{Findings, Section};
use super::mistake::Mistake;
use super::peer_names::PeerNames;
use crate::net::{DomainError, DomainName, show_prefix};
use crate::policy::diagnostic::Finding;
use crate::policy::model::{
    Direction, NameSettings, Need, Prefixes, Questions, Role, Set, Settings, Tracking,
};

/// The longest name of an interface, in bytes (IFNAMSIZ).
const LONGEST_INTERFACE: usize = 15;
/// Lengths that a prefix of NAT64 may have (RFC 6052, 2.2).
const NAT64_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Whether a text is meant as a DNS name: it has a dot, and its last label can't be a part of an address.
pub(super) fn looks_like_name(text: &str) -> bool {
    let letters = |letter: char| letter.is_alphanumeric() || "_.-*".contains(letter);
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, last)) = text.rsplit_once('.') else {
        return false;
    };
    text.chars().all(letters) && last.chars().any(|letter| !letter.is_ascii_digit())
}

/// Parses a DNS name.
pub(super) fn parse_name(text: &str) -> Result<DomainName, Mistake> {
    DomainName::parse(text).map_err(|why| {
        let refuse = |message: String| Mistake::new(0..text.len(), message);
        match why {
            DomainError::NotAscii(ascii) => {
                let help = ascii.map(|ascii| format!("write `{ascii}`, as it is asked for"));
                refuse(format!("`{text}` is not ASCII")).with_hint(help)
            }
            DomainError::SingleLabel => refuse(format!("`{text}` has one label alone"))
                .with_help("write the whole name, like `deb.vendor.example`"),
            DomainError::BadLabel(label) if label.is_empty() => {
                refuse(format!("a label of `{text}` is empty")).with_help("remove the second dot")
            }
            DomainError::BadLabel(label) => refuse(format!("`{label}` can't be a label of a name"))
                .with_help("a label has 1 to 63 letters, digits, `-` and `_`"),
            DomainError::TooLong => refuse("a name has at most 253 characters".to_owned()),
            DomainError::BadWildcard => refuse(format!("the `*` of `{text}` stands at the wrong place"))
                .with_help("write `*.` and a domain: it has all names below that domain"),
            DomainError::PublicSuffix => {
                let domain = text.trim_start_matches("*.");
                refuse(format!("anybody can have a name below `{domain}`"))
                    .with_help("name the domain of the one whom you trust")
            }
        }
    })
}

/// Parses an element of `resolvers`, and returns it in canonical form.
pub(super) fn parse_resolver(text: &str, names: &PeerNames<'_>) -> Result<String, Mistake> {
    let whole = 0..text.len();
    if let Some(set) = text.strip_prefix('@') {
        let Some(found) = names.sets.get(set) else {
            return Err(Mistake::new(whole, format!("no set is called `{set}`")));
        };
        let is_prefix = |prefix: IpNet| prefix.prefix_len() != prefix.max_prefix_len();
        if !found.names.is_empty() || found.prefixes().any(is_prefix) {
            return Err(Mistake::new(whole, format!("set `{set}` has other members than addresses"))
                .with_help("list the addresses of the resolvers"));
        }
        return Ok(text.to_owned());
    }
    let prefix = parse_prefix(text)?;
    if prefix.prefix_len() != prefix.max_prefix_len() {
        return Err(Mistake::new(whole, format!("a resolver has an address, and `{text}` is a prefix")));
    }
    let address: IpAddr = prefix.addr();
    Ok(address.to_string())
}

/// Parses the name of an interface.
pub(super) fn parse_interface(text: &str) -> Result<String, Mistake> {
    let is_name = |letter: char| letter.is_ascii_graphic() && !"/:".contains(letter);
    if text.is_empty() || text.len() > LONGEST_INTERFACE || !text.chars().all(is_name) {
        return Err(Mistake::new(0..text.len(), format!("`{text}` can't be the name of an interface")));
    }
    Ok(text.to_owned())
}

/// Reads a list of addresses and prefixes. `objection`: why one is refused.
pub(super) fn read_prefixes(
    section: &Section<'_, '_>,
    key: &str,
    objection: impl Fn(&IpNet) -> Option<&'static str>,
) -> Option<Prefixes> {
    let mut prefixes = Prefixes::default();
    for text in section.list(key)? {
        match parse_prefix(text.value) {
            Ok(prefix) => match objection(&prefix) {
                Some(objection) => {
                    let message = format!("`{}` {objection}", show_prefix(&prefix));
                    section.refuse(&text, Mistake::new(0..text.value.len(), message));
                }
                None => prefixes.0.push((prefix, section.place(&text.span))),
            },
            Err(mistake) => section.refuse(&text, mistake),
        }
    }
    Some(prefixes)
}

/// Why a prefix can't be one of NAT64.
pub(super) fn find_nat64_objection(prefix: &IpNet) -> Option<&'static str> {
    let fits = matches!(prefix, IpNet::V6(_)) && NAT64_LENGTHS.contains(&prefix.prefix_len());
    (!fits).then_some("is no prefix of NAT64: these are IPv6, with 32, 40, 48, 56, 64 or 96 bits")
}

/// Refuses names that nobody's answers could open.
pub(super) fn check_names(
    settings: &Settings,
    names: &NameSettings,
    roles: &[Role],
    sets: &BTreeMap<String, Set>,
    findings: &Findings<'_>,
) {
    let is_strict = |role: &Role| role.dns.filter(|(questions, _)| *questions == Questions::Named);
    if let Some((_, place)) = roles.iter().find_map(is_strict)
        && names.resolvers.0.is_empty()
    {
        let message = "`dns` is about resolvers, and this policy has none";
        findings.add(
            Finding::new(place.start..place.end, message)
                .with_help("name them in [names], as resolvers = [\"192.0.2.1\"]"),
        );
    }
    let has_names = |need: &&Need| !need.resolve_names(sets).is_empty();
    let mut needs = roles.iter().flat_map(|role| role.needs_of(Direction::Out)).filter(has_names);
    if let Some(need) = needs.clone().find(|need| need.sport.is_some()) {
        let message = "a need with a name can't have a `sport`";
        findings.add(
            Finding::new(need.place.start..need.place.end, message)
                .with_help("write addresses, or leave `sport` out"),
        );
    }
    let Some(need) = needs.next() else {
        return;
    };
    let refuse = |message: &str, help: &str| {
        findings.add(Finding::new(need.place.start..need.place.end, message).with_help(help));
    };
    if names.resolvers.0.is_empty() {
        refuse(
            "this need has a name, and there are no resolvers whose answers say its addresses",
            "name them in [names], as resolvers = [\"192.0.2.1\"]",
        );
    }
    if settings.tracking.value == Tracking::Service {
        refuse(
            "this need has a name, and with tracking = \"service\" no answer is seen",
            "write addresses, or tracking = \"strict\"",
        );
    }
}
