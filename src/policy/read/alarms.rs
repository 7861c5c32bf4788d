//! `[alarms]`: texts that name sinks, kinds of alarms and times.

use super::mistake::Mistake;
use super::suggestion::suggest;
use crate::alarm::{KINDS, Kind};
use crate::clock::parse_duration;
use crate::policy::model::{Endpoint, MailSecurity, MailServer, QuarantineTime, SyslogTarget};

const MAIL_FORMS: &str = "write smtps://HOST[:PORT] for TLS, starttls://HOST[:PORT] for STARTTLS, or \
    smtp://HOST[:PORT] without encryption";
const SYSLOG_FORMS: &str = "write unix:/dev/log, udp://HOST[:PORT], tcp://HOST[:PORT] or tls://HOST[:PORT]";

pub(super) fn parse_syslog(text: &str) -> Result<SyslogTarget, Mistake> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') || path.contains('\0') || path.len() > 107 {
            let message = "the path of a local socket must start with `/` and have at most 107 bytes";
            return Err(Mistake::new(5..text.len(), message));
        }
        return Ok(SyslogTarget::Unix(path.to_owned()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Mistake::new(0..text.len(), "this is not a syslog server").with_help(SYSLOG_FORMS));
    };
    let start = scheme.len() + 3;
    let endpoint = |port: u16| parse_endpoint(rest, port).map_err(|mistake| mistake.shifted(start));
    match scheme {
        "udp" => Ok(SyslogTarget::Udp(endpoint(514)?)),
        "tcp" => Ok(SyslogTarget::Tcp(endpoint(514)?)),
        "tls" => Ok(SyslogTarget::Tls(endpoint(6514)?)),
        _ => {
            let message = format!("syslog can't use `{scheme}`");
            Err(Mistake::new(0..scheme.len(), message).with_help(SYSLOG_FORMS))
        }
    }
}

pub(super) fn parse_alertmanager(text: &str) -> Result<String, Mistake> {
    let help = "write http://HOST:9093 or https://HOST:9093";
    let split = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let Some((scheme, rest)) = split else {
        return Err(Mistake::new(0..text.len(), "this is not the URL of an Alertmanager").with_help(help));
    };
    let start = scheme.len() + 3;
    let authority = rest.split('/').next().unwrap_or_default();
    refuse_credentials(authority, "alertmanager").map_err(|mistake| mistake.shifted(start))?;
    if let Some(at) = text.find("/api/v") {
        return Err(Mistake::new(at..text.len(), "the path of the API does not belong here")
            .with_help(format!("write {}: portcullis adds the path", text.get(..at).unwrap_or_default())));
    }
    parse_endpoint(authority, 80).map_err(|mistake| mistake.shifted(start))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~%".contains(c);
    let path = rest.get(authority.len()..).unwrap_or_default();
    if let Some((at, wrong)) = path.char_indices().find(|(_, c)| !plain(*c)) {
        let at = start + authority.len() + at;
        let message = format!("this path can't have a `{}`", wrong.escape_default());
        return Err(Mistake::new(at..at + wrong.len_utf8(), message).with_help(help));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

pub(super) fn parse_mail_server(text: &str) -> Result<MailServer, Mistake> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Mistake::new(0..text.len(), "this is not a mail server").with_help(MAIL_FORMS));
    };
    let start = scheme.len() + 3;
    let (security, port) = match scheme {
        "smtps" => (MailSecurity::Tls, 465),
        "starttls" => (MailSecurity::StartTls, 587),
        "smtp" => (MailSecurity::None, 25),
        _ => {
            let message = format!("mails can't use `{scheme}`");
            return Err(Mistake::new(0..scheme.len(), message).with_help(MAIL_FORMS));
        }
    };
    refuse_credentials(rest, "mail").map_err(|mistake| mistake.shifted(start))?;
    let endpoint = parse_endpoint(rest, port).map_err(|mistake| mistake.shifted(start))?;
    Ok(MailServer { security, endpoint })
}

/// Many may read a policy, so no password stands in it.
fn refuse_credentials(authority: &str, prefix: &str) -> Result<(), Mistake> {
    let Some((credentials, _)) = authority.rsplit_once('@') else { return Ok(()) };
    let user = credentials.split(':').next().unwrap_or_default();
    let help = format!(
        "write {prefix}_user = \"{user}\" and {prefix}_password_file = \"/etc/portcullis/{prefix}.password\" as keys \
         of their own"
    );
    let message = "a user and a password do not belong in an address";
    Err(Mistake::new(0..credentials.len() + 1, message).with_help(help))
}

/// The name of a user.
pub(super) fn parse_user(text: &str) -> Result<String, Mistake> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(Mistake::new(0..text.len(), "expected the name of a user"));
    }
    Ok(text.to_owned())
}

/// `NAME@DOMAIN`, as it travels: without a display name.
pub(super) fn parse_mail_address(text: &str) -> Result<String, Mistake> {
    let is_plain = text.chars().all(|c| c.is_ascii_graphic() && !"<>\"(),;:\\[]".contains(c));
    match text.parse::<lettre::Address>() {
        Ok(address) if is_plain => Ok(address.to_string()),
        _ => Err(Mistake::new(0..text.len(), "this is not the address of a mailbox")
            .with_help("write NAME@DOMAIN, such as noc@example.com")),
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`.
fn parse_endpoint(text: &str, default_port: u16) -> Result<Endpoint, Mistake> {
    let whole = 0..text.len();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((host, after)) = rest.split_once(']') else {
                return Err(Mistake::new(whole, "this address has no closing `]`"));
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(Mistake::new(1..1 + host.len(), format!("`{host}` is not an IPv6 address")));
            }
            (host, after)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(Mistake::new(whole, "expected the name or address of a host"));
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        None => return Err(Mistake::new(whole, "expected `:` and a port after the address")),
        Some(digits) if digits.contains(':') => {
            let message = "an IPv6 address must be in brackets";
            return Err(Mistake::new(whole, message).with_help(format!("write [{text}]")));
        }
        Some(digits) => match digits.parse::<u16>() {
            Ok(port @ 1..) => port,
            _ => {
                let at = text.len() - digits.len()..text.len();
                return Err(Mistake::new(at, "a port must be a number from 1 to 65535"));
            }
        },
    };
    Ok(Endpoint { host: host.to_owned(), port })
}

pub(super) fn parse_quarantine_time(text: &str) -> Result<QuarantineTime, Mistake> {
    if text == "released" {
        return Ok(QuarantineTime::UntilReleased);
    }
    parse_duration(text).map(|time| QuarantineTime::Seconds(time.as_secs())).map_err(|why| {
        Mistake::new(0..text.len(), format!("`quarantine_for`: {why}"))
            .with_help("write a time like 10m or 1h, or \"released\" to wait for `portcullis release`")
    })
}

/// Parses a kind of alarm that may lead to a quarantine.
pub(super) fn parse_kind(word: &str) -> Result<Kind, Mistake> {
    let refuse = |message: String| Mistake::new(0..word.len(), message);
    match KINDS.iter().find(|kind| kind.name() == word) {
        Some(kind) => match kind.quarantine_refusal() {
            None => Ok(*kind),
            Some(refusal) => Err(refuse(format!("`{word}` can't lead to a quarantine")).with_help(refusal)),
        },
        None => {
            let usable = KINDS.iter().filter(|kind| kind.quarantine_refusal().is_none());
            let usable: Vec<&str> = usable.map(|kind| kind.name()).collect();
            let help = suggest(word, usable.iter().copied());
            let help = help.unwrap_or_else(|| format!("the kinds are {}", usable.join(", ")));
            Err(refuse(format!("there is no kind of alarm `{word}`")).with_help(help))
        }
    }
}
