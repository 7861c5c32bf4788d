//! `[alarms]`: where alarms go.

use std::fmt;

use super::address::Mistake;
use super::document::{Table, Text};
use super::response::{self, Response, read_response};

/// The sinks of a policy; each is optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarms {
    /// File of drops and alarms as EVE JSON lines.
    pub eve: Option<String>,
    /// File of drops and alarms as ECS JSON lines.
    pub ecs: Option<String>,
    /// File of drops and alarms as CEF lines.
    pub cef: Option<String>,
    /// File of sampled packets.
    pub pcapng: Option<String>,
    /// Size at which a file is put aside, MiB; 0: never.
    pub rotate_mib: u32,
    /// Files put aside that are kept.
    pub rotate_keep: u32,
    /// The journal, with fields.
    pub journald: bool,
    /// A syslog server.
    pub syslog: Option<Syslog>,
    /// Where an Alertmanager listens: `http://` or `https://`, host, port and the prefix of its
    /// paths.
    pub alertmanager: Option<String>,
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// How long it may run, seconds.
    pub command_timeout_s: u32,
    /// File of the certificates (PEM) that a TLS server's must lead back to; none: the system's.
    pub tls_ca: Option<String>,
    /// What the daemon does by itself.
    pub response: Response,
}

impl Default for Alarms {
    fn default() -> Alarms {
        Alarms {
            eve: None,
            ecs: None,
            cef: None,
            pcapng: None,
            rotate_mib: 100,
            rotate_keep: 5,
            journald: false,
            syslog: None,
            alertmanager: None,
            command: Vec::new(),
            command_timeout_s: 30,
            tls_ca: None,
            response: Response::default(),
        }
    }
}

impl Alarms {
    /// Every key with its value in words, in the order of the documentation.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let syslog = self.syslog.as_ref().map(Syslog::to_string);
        let command = (!self.command.is_empty()).then(|| self.command.join(" "));
        vec![
            ("eve", text(&self.eve)),
            ("ecs", text(&self.ecs)),
            ("cef", text(&self.cef)),
            ("pcapng", text(&self.pcapng)),
            ("rotate_mib", self.rotate_mib.to_string()),
            ("rotate_keep", self.rotate_keep.to_string()),
            ("journald", self.journald.to_string()),
            ("syslog", text(&syslog)),
            ("alertmanager", text(&self.alertmanager)),
            ("command", text(&command)),
            ("command_timeout", self.command_timeout_s.to_string()),
            ("tls_ca", text(&self.tls_ca)),
        ]
    }
}

/// Where syslog messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// A local socket, such as `/dev/log`.
    Unix(String),
    /// A datagram a message.
    Udp(Endpoint),
    /// A stream, messages with their length before them.
    Tcp(Endpoint),
    /// Likewise, encrypted, and the server's certificate is checked.
    Tls(Endpoint),
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IPv6 address without its brackets.
    pub host: String,
    /// Number.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Syslog::Unix(path) => write!(f, "unix:{path}"),
            Syslog::Udp(endpoint) => write!(f, "udp://{endpoint}"),
            Syslog::Tcp(endpoint) => write!(f, "tcp://{endpoint}"),
            Syslog::Tls(endpoint) => write!(f, "tls://{endpoint}"),
        }
    }
}

const FILES: [&str; 4] = ["eve", "ecs", "cef", "pcapng"];
const KEYS: &[&str] = &[
    "eve",
    "ecs",
    "cef",
    "pcapng",
    "rotate_mib",
    "rotate_keep",
    "journald",
    "syslog",
    "alertmanager",
    "command",
    "command_timeout",
    "tls_ca",
];

/// Reads `[alarms]`. A new sink takes a field above, its key in `KEYS`, and a line here.
pub(super) fn read_alarms(table: &Table<'_, '_>) -> Alarms {
    table.check_keys(&[KEYS, response::KEYS].concat());
    refuse_shared_files(table);
    let default = Alarms::default();
    let path = |key: &str| table.path(key).map(|(path, _)| path);
    let [eve, ecs, cef, pcapng] = FILES.map(path);
    Alarms {
        eve,
        ecs,
        cef,
        pcapng,
        rotate_mib: table.integer("rotate_mib", 0..=1_048_576, default.rotate_mib).value,
        rotate_keep: table.integer("rotate_keep", 1..=999, default.rotate_keep).value,
        journald: table.boolean("journald").value,
        syslog: read_text(table, "syslog", parse_syslog),
        alertmanager: read_text(table, "alertmanager", parse_alertmanager),
        command: read_command(table),
        command_timeout_s: table.integer("command_timeout", 1..=3600, default.command_timeout_s).value,
        tls_ca: path("tls_ca"),
        response: read_response(table),
    }
}

/// Two renderings in one file would make it unreadable for both readers.
fn refuse_shared_files(table: &Table<'_, '_>) {
    for (index, key) in FILES.iter().enumerate() {
        let text_of = |key: &str| table.entry(key).and_then(|entry| table.text_of_entry(&entry));
        let Some(text) = text_of(key) else { continue };
        let mut earlier = FILES.iter().take(index);
        let same = |other: &&&str| text_of(other).is_some_and(|other| other.value == text.value);
        if let Some(other) = earlier.find(same) {
            let message = format!("`{key}` is the same file as `{other}`");
            table.refuse(&text, Mistake::new(0..text.value.len(), message));
        }
    }
}

fn read_text<T>(table: &Table<'_, '_>, key: &str, parse: impl Fn(&str) -> Result<T, Mistake>) -> Option<T> {
    let text = table.text(key)?;
    parse(text.value).map_err(|mistake| table.refuse(&text, mistake)).ok()
}

fn read_command(table: &Table<'_, '_>) -> Vec<String> {
    let Some(words) = table.list("command") else {
        return Vec::new();
    };
    let Some(program) = words.first() else {
        if let Some(entry) = table.entry("command") {
            table.refuse_entry(&entry, "`command` must be a program and its arguments");
        }
        return Vec::new();
    };
    if !program.value.starts_with('/') {
        let mistake = Mistake::new(0..program.value.len(), "the program must be given by its whole path");
        table.refuse(program, mistake.with_help("no shell looks for it: write \"/usr/local/bin/...\""));
    }
    let nul = |text: &&Text<'_>| text.value.contains('\0');
    for text in words.iter().filter(nul) {
        table.refuse(text, Mistake::new(0..text.value.len(), "an argument can't have a NUL"));
    }
    words.iter().map(|text| text.value.to_owned()).collect()
}

const SYSLOG_FORMS: &str =
    "it is one of unix:/dev/log, udp://HOST[:PORT], tcp://HOST[:PORT], tls://HOST[:PORT]";

fn parse_syslog(text: &str) -> Result<Syslog, Mistake> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') || path.contains('\0') || path.len() > 107 {
            let message = "the path of a local socket must be a whole one, of at most 107 bytes";
            return Err(Mistake::new(5..text.len(), message));
        }
        return Ok(Syslog::Unix(path.to_owned()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Mistake::new(0..text.len(), "no syslog server").with_help(SYSLOG_FORMS));
    };
    let start = scheme.len() + 3;
    let endpoint = |port: u16| parse_endpoint(rest, port).map_err(|mistake| mistake.shifted(start));
    match scheme {
        "udp" => Ok(Syslog::Udp(endpoint(514)?)),
        "tcp" => Ok(Syslog::Tcp(endpoint(514)?)),
        "tls" => Ok(Syslog::Tls(endpoint(6514)?)),
        _ => {
            let message = format!("syslog does not go over `{scheme}`");
            Err(Mistake::new(0..scheme.len(), message).with_help(SYSLOG_FORMS))
        }
    }
}

fn parse_alertmanager(text: &str) -> Result<String, Mistake> {
    let help = "write http://HOST:9093, or https://";
    let split = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let Some((scheme, rest)) = split else {
        return Err(Mistake::new(0..text.len(), "no address of an Alertmanager").with_help(help));
    };
    let start = scheme.len() + 3;
    let authority = rest.split('/').next().unwrap_or_default();
    parse_endpoint(authority, 80).map_err(|mistake| mistake.shifted(start))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~%".contains(c);
    let path = rest.get(authority.len()..).unwrap_or_default();
    if let Some((at, wrong)) = path.char_indices().find(|(_, c)| !plain(*c)) {
        let at = start + authority.len() + at;
        let message = format!("`{}` can't stand in this path", wrong.escape_default());
        return Err(Mistake::new(at..at + wrong.len_utf8(), message).with_help(help));
    }
    Ok(text.trim_end_matches('/').to_owned())
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
                return Err(Mistake::new(1..1 + host.len(), format!("`{host}` is no IPv6 address")));
            }
            (host, after)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(Mistake::new(whole, "a host's name or address is missing here"));
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        None => return Err(Mistake::new(whole, "only a port may follow the address")),
        Some(digits) if digits.contains(':') => {
            let message = "an IPv6 address must stand in brackets";
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
