//! Addresses in the manner of other tools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

/// The most prefixes that a help line lists for a range.
const MAX_LISTED: usize = 8;

/// Words that stand for every address.
const EVERYBODY: &[&str] =
    &["any", "all", "*", "anywhere", "everywhere", "everyone", "internet", "world", "any4", "any6", "0/0"];

/// What a word in the manner of another tool stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Every address.
    Everybody,
    /// These prefixes, as a policy has them.
    Prefixes(Vec<String>),
    /// An address together with a port.
    WithPort(String, String),
    /// All but something.
    Negation,
    /// A variable or table of another tool.
    Variable(String),
    /// A range that takes more prefixes than anybody would want to read.
    WideRange,
}

/// What a word stands for; `None` if it is no notation that we know.
pub(super) fn read_address(word: &str) -> Option<Meaning> {
    let lower = word.to_lowercase();
    if EVERYBODY.contains(&lower.as_str()) {
        return Some(Meaning::Everybody);
    }
    if word.starts_with(['!', '^', '~']) {
        return Some(Meaning::Negation);
    }
    if let Some(name) = word.strip_prefix('$') {
        return Some(Meaning::Variable(name.trim_matches(['{', '}']).to_owned()));
    }
    if let Some(name) = word.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        return Some(Meaning::Variable(name.to_owned()));
    }
    read_brackets(word)
        .or_else(|| read_port(word))
        .or_else(|| read_range(word))
        .or_else(|| read_mask(word))
        .or_else(|| read_wildcard(word))
}

fn one(prefix: impl ToString) -> Option<Meaning> {
    Some(Meaning::Prefixes(vec![prefix.to_string()]))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `[2001:db8::1]`, `[2001:db8::1]:443`, `[2001:db8::]/64`.
fn read_brackets(word: &str) -> Option<Meaning> {
    let (inside, after) = word.strip_prefix('[')?.split_once(']')?;
    let address: Ipv6Addr = inside.parse().ok()?;
    if after.is_empty() {
        return one(address);
    }
    if after.starts_with('/') {
        return one(format!("{address}{after}"));
    }
    let port = after.strip_prefix(':').filter(|port| is_port(port))?;
    Some(Meaning::WithPort(address.to_string(), port.to_owned()))
}

/// `192.0.2.1:443`.
fn read_port(word: &str) -> Option<Meaning> {
    let (address, port) = word.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    is_port(port).then(|| Meaning::WithPort(address.to_string(), port.to_owned()))
}

/// `192.0.2.1-192.0.2.9`, `192.0.2.1-9`, `2001:db8::1-2001:db8::9`.
fn read_range(word: &str) -> Option<Meaning> {
    let (first, last) = ["-", "..", "–"].into_iter().find_map(|mark| word.split_once(mark))?;
    let prefixes: Vec<String> = match first.trim().parse().ok()? {
        IpAddr::V4(first) => {
            let last = last.trim().parse().ok().or_else(|| {
                let [a, b, c, _] = first.octets();
                Some(Ipv4Addr::new(a, b, c, last.trim().parse().ok()?))
            })?;
            let prefixes = (first <= last).then(|| Ipv4Subnets::new(first, last, 0))?;
            prefixes.take(MAX_LISTED + 1).map(|prefix| show(prefix.into())).collect()
        }
        IpAddr::V6(first) => {
            let last: Ipv6Addr = last.trim().parse().ok()?;
            let prefixes = (first <= last).then(|| Ipv6Subnets::new(first, last, 0))?;
            prefixes.take(MAX_LISTED + 1).map(|prefix| show(prefix.into())).collect()
        }
    };
    Some(if prefixes.len() > MAX_LISTED { Meaning::WideRange } else { Meaning::Prefixes(prefixes) })
}

fn show(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// `192.0.2.0/255.255.255.0`, and `192.0.2.0/0.0.0.255` as access lists of routers have it.
fn read_mask(word: &str) -> Option<Meaning> {
    let (address, mask) = word.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let mask: Ipv4Addr = mask.parse().ok()?;
    let inverted = Ipv4Addr::from(!u32::from(mask));
    let net =
        Ipv4Net::with_netmask(address, mask).or_else(|_| Ipv4Net::with_netmask(address, inverted)).ok()?;
    one(net.trunc())
}

/// `192.0.2.*`, `192.0.2.x`, `192.0.2.`, `192.0.2`.
fn read_wildcard(word: &str) -> Option<Meaning> {
    let mut octets = Vec::new();
    let mut parts = word.trim_end_matches('.').split('.');
    let mut rest_is_wild = true;
    for part in parts.by_ref() {
        match part.parse::<u8>() {
            Ok(octet) if part.len() == octet.to_string().len() => octets.push(octet),
            _ => {
                rest_is_wild = matches!(part, "*" | "x" | "X");
                break;
            }
        }
    }
    let known = octets.len();
    let is_wild = rest_is_wild && parts.all(|part| matches!(part, "*" | "x" | "X"));
    if !is_wild || !(1..=3).contains(&known) || !word.contains('.') {
        return None;
    }
    octets.resize(4, 0);
    let [a, b, c, d] = octets.try_into().ok()?;
    let bits = u8::try_from(known * 8).ok()?;
    one(Ipv4Net::new(Ipv4Addr::new(a, b, c, d), bits).ok()?)
}

/// The help for a word that is no address. It fits wherever addresses are listed.
pub(crate) fn advise_on_address(word: &str) -> Option<String> {
    if word.contains("://") {
        return Some("write the address alone: a list of addresses has no URLs".to_owned());
    }
    if word.split([',', ' ']).filter(|part| !part.is_empty()).count() > 1 {
        return Some("write each address in its own quotes, with a comma between them".to_owned());
    }
    if crate::net::parse_mac(word).is_some() {
        return Some("write an IP address: a server's MAC stands under `mac`".to_owned());
    }
    match read_address(word)? {
        Meaning::Everybody => None,
        Meaning::Prefixes(prefixes) => Some(match prefixes.as_slice() {
            [prefix] => format!("write `{prefix}`"),
            prefixes => format!("a range is written as prefixes: `{}`", prefixes.join("`, `")),
        }),
        Meaning::WithPort(address, _) => Some(format!("write `{address}`: ports stand in needs")),
        Meaning::Negation => Some("list the addresses that are meant: a list can't exclude any".to_owned()),
        Meaning::Variable(name) => {
            Some(format!("define the addresses under [sets] as `{name}`, and name them `@{name}` in a need"))
        }
        Meaning::WideRange => Some("write the prefixes that cover this range".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help_for(word: &str) -> String {
        advise_on_address(word).unwrap_or_default()
    }

    #[test]
    fn ranges_masks_and_wildcards_become_prefixes() {
        for (word, help) in [
            ("192.0.2.8-192.0.2.11", "write `192.0.2.8/30`"),
            ("192.0.2.8-11", "write `192.0.2.8/30`"),
            ("192.0.2.8..192.0.2.11", "write `192.0.2.8/30`"),
            ("192.0.2.1-192.0.2.3", "a range is written as prefixes: `192.0.2.1`, `192.0.2.2/31`"),
            ("2001:db8::-2001:db8::3", "write `2001:db8::/126`"),
            ("192.0.2.1-198.51.100.7", "write the prefixes that cover this range"),
            ("192.0.2.0/255.255.255.0", "write `192.0.2.0/24`"),
            ("192.0.2.0/0.0.0.255", "write `192.0.2.0/24`"),
            ("192.0.2.*", "write `192.0.2.0/24`"),
            ("192.0.x.x", "write `192.0.0.0/16`"),
            ("192.0.2.", "write `192.0.2.0/24`"),
            ("192.0.2", "write `192.0.2.0/24`"),
        ] {
            assert_eq!(help_for(word), help, "{word}");
        }
    }

    #[test]
    fn brackets_and_ports_are_taken_away() {
        assert_eq!(help_for("[2001:db8::1]"), "write `2001:db8::1`");
        assert_eq!(help_for("[2001:db8::]/64"), "write `2001:db8::/64`");
        assert_eq!(help_for("[2001:db8::1]:443"), "write `2001:db8::1`: ports stand in needs");
        assert_eq!(help_for("192.0.2.1:443"), "write `192.0.2.1`: ports stand in needs");
    }

    #[test]
    fn what_a_list_can_not_say_gets_its_reason() {
        assert!(help_for("!192.0.2.0/24").contains("can't exclude"));
        assert!(help_for("$DMZ").contains("`@DMZ`"));
        assert!(help_for("<dmz>").contains("`@dmz`"));
        assert!(help_for("https://192.0.2.1/").contains("no URLs"));
        assert!(help_for("192.0.2.1, 192.0.2.2").contains("its own quotes"));
        assert!(help_for("02:00:00:00:00:10").contains("`mac`"));
    }

    #[test]
    fn other_words_get_no_help_for() {
        for word in ["", "web1", "192.0.2.1", "2001:db8::1", "192.0.2.300", "1", "192.0.2.9-192.0.2.1", "a-b"]
        {
            assert_eq!(advise_on_address(word), None, "{word}");
        }
    }
}
