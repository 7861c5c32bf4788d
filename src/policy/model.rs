//! What a policy file says, with the place of everything that a verdict may have to name.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use super::alarms::Alarms;
use super::diagnostic::{Located, Location};
use super::need::Need;
use super::tables::TableSizes;

/// A policy: the whole of one file, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The file as the user named it.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// `[policy]`.
    pub settings: Settings,
    /// `[sets]` by name.
    pub sets: BTreeMap<String, Set>,
    /// `[roles.*]` in the order of the file.
    pub roles: Vec<Role>,
    /// `[servers.*]` in the order of the file; never empty.
    pub servers: Vec<Server>,
    /// `[alarms]`.
    pub alarms: Alarms,
    /// `[tables]`.
    pub tables: TableSizes,
}

impl Policy {
    /// A place of this policy as `FILE:LINE`.
    pub fn locate(&self, place: &Location) -> String {
        format!("{}:{}", self.file, place.line)
    }

    /// The role of this name.
    pub fn find_role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The server of this name.
    pub fn find_server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// The mode that holds for a server: its own, otherwise the policy's.
    pub fn mode_of(&self, server: &Server) -> Mode {
        server.mode.map_or(self.settings.mode.value, |mode| mode.0)
    }
}

/// `[policy]`: what holds for every server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether what is not allowed is dropped.
    pub mode: Located<Mode>,
    /// How the direction of a flow is known.
    pub tracking: Located<Tracking>,
    /// What becomes of a source address that no server has.
    pub unknown_sources: Located<UnknownSources>,
    /// `in` needs of every server; they stay open in quarantine.
    pub management: Vec<Need>,
    /// Seconds, 0 to 86400, in which flows already open are taken over when the gate comes down.
    pub pickup_s: Located<u32>,
    /// Whether DHCP clients of the DMZ may talk to the link.
    pub dhcp: Located<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Located::default(),
            tracking: Located::default(),
            unknown_sources: Located::default(),
            management: Vec::new(),
            pickup_s: Located { value: 120, place: None },
            dhcp: Located::default(),
        }
    }
}

/// A word of the policy language that stands for one of few values.
pub trait Keyword: Copy + PartialEq + 'static {
    /// All values with their words.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// Whether what is not allowed is dropped, or only counted and reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Drop it.
    #[default]
    Enforce,
    /// Count it, raise alarms, let it pass.
    Observe,
}

impl Keyword for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

/// How the direction of a flow is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracking {
    /// A second program records the flows that peers open.
    #[default]
    Strict,
    /// From the port alone; for asymmetric routes.
    Service,
}

impl Keyword for Tracking {
    const WORDS: &'static [(&'static str, Self)] = &[("strict", Self::Strict), ("service", Self::Service)];
}

/// What becomes of a packet whose source address no server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownSources {
    /// Drop it, raise an alarm.
    #[default]
    Deny,
    /// Drop it, raise none.
    Quiet,
    /// Let it pass.
    Allow,
}

impl Keyword for UnknownSources {
    const WORDS: &'static [(&'static str, Self)] =
        &[("deny", Self::Deny), ("quiet", Self::Quiet), ("allow", Self::Allow)];
}

macro_rules! display_as_word {
    ($($keyword:ty),*) => {
        $(impl fmt::Display for $keyword {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.word())
            }
        })*
    };
}

display_as_word!(Mode, Tracking, UnknownSources);

/// A named list of peers.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name, without `@`.
    pub name: String,
    /// Addresses (prefixes of full length) and prefixes, in the order of the file.
    pub members: Vec<(IpNet, Location)>,
    /// Where its name is.
    pub place: Location,
    /// Whether all its members could be read: a set that lost some is not reported as empty as
    /// well.
    pub(super) sound: bool,
}

impl Set {
    /// The members without their places.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.members.iter().map(|(prefix, _)| *prefix)
    }
}

/// A named list of needs.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub place: Location,
    /// Services that peers may open.
    pub inbound: Vec<Need>,
    /// What a server may open.
    pub outbound: Vec<Need>,
    /// What is denied without an alarm.
    pub quiet: Vec<Need>,
}

impl Role {
    /// All needs: `in`, `out`, `quiet`.
    pub fn needs(&self) -> impl Iterator<Item = &Need> {
        self.inbound.iter().chain(&self.outbound).chain(&self.quiet)
    }
}

/// A named host, or a group of hosts alike.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub place: Location,
    /// Addresses (prefixes of full length) and prefixes, in the order of the file; never empty.
    pub addresses: Vec<(IpNet, Location)>,
    /// The only MAC that may use these addresses.
    pub mac: Option<([u8; 6], Location)>,
    /// The only VLAN (1 to 4094) in which these addresses may be used.
    pub vlan: Option<(u16, Location)>,
    /// Names of roles, in the order of the file.
    pub roles: Vec<(String, Location)>,
    /// Where `roles` is: the line that decides when no need does. Without the key, the server's
    /// name.
    pub roles_place: Location,
    /// Overrides the policy's mode.
    pub mode: Option<(Mode, Location)>,
}
