//! Values that keys of a policy have: words, and what stands in a text.

use std::fmt;

use serde::Serialize;

/// A word of the policy language that stands for one of few values.
pub trait Keyword: Copy + PartialEq + 'static {
    /// All values with their words.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// Declares a keyword: an enum whose first value is the default, with the word for each value.
macro_rules! keyword {
    (
        $(#[$outer:meta])*
        $name:ident {
            $(#[$first_doc:meta])*
            $first:ident = $first_word:literal,
            $($(#[$doc:meta])* $value:ident = $word:literal,)+
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $(#[$first_doc])*
            #[default]
            $first,
            $($(#[$doc])* $value,)+
        }

        impl Keyword for $name {
            const WORDS: &'static [(&'static str, Self)] =
                &[($first_word, Self::$first), $(($word, Self::$value),)+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.word())
            }
        }
    };
}

keyword! {
    /// Whether what the policy does not allow is dropped.
    Mode {
        /// Drop it, count it, and raise an alarm.
        Enforce = "enforce",
        /// Count it, raise an alarm, and let it pass.
        Observe = "observe",
    }
}

keyword! {
    /// How the direction of a flow is known.
    Tracking {
        /// A second program records the flows that peers open.
        Strict = "strict",
        /// From the port alone; for asymmetric routes.
        Service = "service",
    }
}

keyword! {
    /// Where flows are looked up that the gate has not seen opened.
    Handover {
        /// Nowhere.
        None = "none",
        /// In the kernel's own table, which conntrackd carries from router to router.
        Conntrack = "conntrack",
    }
}

keyword! {
    /// The treatment of packets whose source address no server has.
    UnknownSources {
        /// Drop it and raise an alarm.
        Deny = "deny",
        /// Drop it without an alarm.
        Quiet = "quiet",
        /// Let it pass.
        Allow = "allow",
    }
}

keyword! {
    /// What servers may ask the resolvers of `[names]`.
    Questions {
        /// Whatever their needs let them ask.
        Any = "any",
        /// Names of the policy, and what belongs to these.
        Named = "named",
    }
}

/// How long a server stays in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineTime {
    /// For so many seconds.
    Seconds(u64),
    /// Until somebody releases it.
    UntilReleased,
}

impl QuarantineTime {
    /// Seconds; `None` until somebody releases it.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::UntilReleased => None,
        }
    }
}

impl Default for QuarantineTime {
    /// An hour: long enough for somebody to come, short enough for a false alarm.
    fn default() -> Self {
        Self::Seconds(3_600)
    }
}

impl fmt::Display for QuarantineTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(out, "{seconds}s"),
            Self::UntilReleased => out.write_str("released"),
        }
    }
}

/// EtherTypes, each once, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EtherTypes(pub Vec<u16>);

impl fmt::Display for EtherTypes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(|number| format!("0x{number:04x}")).collect();
        out.write_str(&list.join(", "))
    }
}

/// Where syslog messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// A local socket, such as `/dev/log`.
    Unix(String),
    /// UDP: one datagram a message.
    Udp(Endpoint),
    /// TCP: each message behind its length.
    Tcp(Endpoint),
    /// TLS: as TCP, with the server's certificate checked.
    Tls(Endpoint),
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{path}"),
            Self::Udp(endpoint) => write!(out, "udp://{endpoint}"),
            Self::Tcp(endpoint) => write!(out, "tcp://{endpoint}"),
            Self::Tls(endpoint) => write!(out, "tls://{endpoint}"),
        }
    }
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// How the connection is encrypted.
    pub security: MailSecurity,
    /// Where it listens.
    pub endpoint: Endpoint,
}

/// How a connection to a mail server is encrypted. There is no "if it can": somebody on the way could say that it
/// can't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// Not at all.
    None,
    /// After the greeting, by STARTTLS.
    StartTls,
    /// From the start.
    Tls,
}

impl fmt::Display for MailServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            MailSecurity::None => "smtp",
            MailSecurity::StartTls => "starttls",
            MailSecurity::Tls => "smtps",
        };
        write!(out, "{scheme}://{}", self.endpoint)
    }
}

/// Texts in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Port number.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}
