//! The content of a policy file, as data. Everything that a verdict may have to name keeps its place in the file.

mod alarms;
pub(super) mod keys;
mod location;
mod name_settings;
mod names;
mod need;
mod set;
mod settings;
mod tables;
mod test;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::alarm::Ratings;
use crate::net::DomainName;

pub use alarms::{Alarms, Response};
pub use keys::Value;
pub use location::{Located, Location};
pub use name_settings::NameSettings;
pub use names::{NameSources, Prefixes, Resolvers, TimeToLive};
pub use need::{Direction, Limit, LinkServices, Need, Peer};
pub use set::Set;
pub use settings::Settings;
pub use tables::{MAX_ENTRIES, TableSizes};
pub use test::{Families, PolicyTest};
pub use values::{
    Endpoint, EtherTypes, Handover, Keyword, MailSecurity, MailServer, Mode, QuarantineTime, Questions,
    SyslogTarget, Texts, Tracking, UnknownSources,
};

/// A policy: the whole of one file, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The file as the user named it.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// `[policy]`.
    pub settings: Settings,
    /// `[names]`.
    pub names: NameSettings,
    /// `[sets]` by name.
    pub sets: BTreeMap<String, Set>,
    /// `[routers.*]` in the order of the file.
    pub routers: Vec<Router>,
    /// `[roles.*]` in the order of the file.
    pub roles: Vec<Role>,
    /// `[servers.*]` in the order of the file; never empty.
    pub servers: Vec<Server>,
    /// `[[tests]]` in the order of the file.
    pub tests: Vec<PolicyTest>,
    /// `[alarms]`: where alarms go.
    pub alarms: Alarms,
    /// `[alarms]`: what the daemon does about them.
    pub response: Response,
    /// `[alarms.severity]`.
    pub ratings: Ratings,
    /// `[tables]`.
    pub tables: TableSizes,
}

impl Policy {
    /// The tables that a file may have.
    pub const TABLES: &[&str] =
        &["policy", "sets", "names", "routers", "roles", "servers", "tests", "alarms", "tables"];

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

    /// The addresses of the resolvers, each once.
    pub fn resolvers(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> =
            self.placed_resolvers().into_iter().map(|(address, _)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The same as the file has them, each with the place that names it.
    pub fn placed_resolvers(&self) -> Vec<(IpAddr, Location)> {
        let mut addresses = Vec::new();
        for (text, place) in &self.names.resolvers.0 {
            match text.strip_prefix('@') {
                Some(set) => {
                    let members = self.sets.get(set).into_iter().flat_map(|set| set.prefixes());
                    addresses.extend(members.map(|prefix| (prefix.addr(), *place)));
                }
                None => addresses.extend(text.parse::<IpAddr>().ok().map(|address| (address, *place))),
            }
        }
        addresses
    }

    /// The names that needs have, each once.
    pub fn needed_names(&self) -> Vec<DomainName> {
        let needs = self.roles.iter().flat_map(Role::needs);
        let mut names: Vec<DomainName> = needs.flat_map(|need| need.resolve_names(&self.sets)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Where the addresses of its names come from.
    pub fn name_sources(&self) -> NameSources {
        NameSources {
            names: self.needed_names(),
            resolvers: self.resolvers(),
            interfaces: self.names.from.0.clone(),
            forgeable: self.names.forgeable.value,
            resolve: self.names.resolve,
        }
    }

    /// Whether flows are handed over, by conntrack. Without tracking there is nothing that could be.
    pub fn has_handover(&self) -> bool {
        let settings = &self.settings;
        settings.handover.value == Handover::Conntrack && settings.tracking.value == Tracking::Strict
    }

    /// The names of the servers that are prefixes, with several machines each.
    pub fn prefix_servers(&self) -> impl Iterator<Item = Arc<str>> {
        let is_prefix = |(net, _): &(IpNet, Location)| net.prefix_len() < net.max_prefix_len();
        let servers = self.servers.iter().filter(move |server| server.addresses.iter().any(is_prefix));
        servers.map(|server| server.name.as_str().into())
    }

    /// What a server may ask resolvers: the strictest of its roles says so.
    pub fn questions_of(&self, server: &Server) -> Questions {
        let mut roles = server.roles.iter().filter_map(|(name, _)| self.find_role(name));
        let is_strict =
            roles.any(|role| role.dns.is_some_and(|(questions, _)| questions == Questions::Named));
        if is_strict { Questions::Named } else { Questions::Any }
    }

    /// The mode that holds for a server: its own, otherwise the policy's.
    pub fn mode_of(&self, server: &Server) -> Mode {
        server.mode.map_or(self.settings.mode.value, |mode| mode.0)
    }
}

/// A neighbour on the DMZ's link that routes too.
#[derive(Clone, Debug)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub place: Location,
    /// Addresses, in the order of the file; never empty.
    pub addresses: Vec<(IpAddr, Location)>,
    /// MACs that its frames may have; never empty.
    pub macs: Vec<([u8; 6], Location)>,
}

impl Router {
    /// The keys that a router may have in a file.
    pub const KEYS: &[&str] = &["addresses", "mac"];
}

/// A named list of needs.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub place: Location,
    /// `in`: services that peers may open.
    pub inbound: Vec<Need>,
    /// `out`: services that the server may open.
    pub outbound: Vec<Need>,
    /// `quiet`: denied without an alarm.
    pub quiet: Vec<Need>,
    /// What its servers may ask resolvers. Without it, any.
    pub dns: Option<(Questions, Location)>,
}

impl Role {
    /// The keys that a role may have in a file.
    pub const KEYS: &[&str] = &["in", "out", "quiet", "dns"];

    /// All needs: `in`, `out`, `quiet`.
    pub fn needs(&self) -> impl Iterator<Item = &Need> {
        self.inbound.iter().chain(&self.outbound).chain(&self.quiet)
    }

    /// The needs of one direction.
    pub fn needs_of(&self, direction: Direction) -> &[Need] {
        match direction {
            Direction::In => &self.inbound,
            Direction::Out => &self.outbound,
            Direction::Quiet => &self.quiet,
        }
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
    /// The only MACs that may use these addresses, each once; empty: any.
    pub macs: Vec<([u8; 6], Location)>,
    /// The only VLAN (1 to 4094) in which these addresses may be used.
    pub vlan: Option<(u16, Location)>,
    /// Names of roles, in the order of the file.
    pub roles: Vec<(String, Location)>,
    /// Where `roles` is: the line that decides if no need does. Without that key, where the server's name is.
    pub roles_place: Location,
    /// Overrides the policy's mode.
    pub mode: Option<(Mode, Location)>,
    /// Whether it forwards all questions to the resolvers: then all servers may use what it is answered.
    pub forwards: bool,
}

impl Server {
    /// The keys that a server may have in a file.
    pub const KEYS: &[&str] = &["addresses", "mac", "vlan", "roles", "mode", "forwards"];
}
