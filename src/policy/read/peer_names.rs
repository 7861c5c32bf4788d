//! The names that stand for peers: those of sets and servers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::suggestion::suggest;
use crate::net::subtract;
use crate::policy::model::{Server, Set};

/// The most names of servers that are suggested. Each suggestion compares a name with all servers.
const SUGGESTIONS: usize = 200;

/// The names that a need may use for its peers.
pub(super) struct PeerNames<'p> {
    pub(super) sets: &'p BTreeMap<String, Set>,
    pub(super) servers: BTreeMap<&'p str, Arc<[IpNet]>>,
    suggestions: Cell<usize>,
}

impl<'p> PeerNames<'p> {
    pub(super) fn new(sets: &'p BTreeMap<String, Set>, servers: &'p [Server]) -> Self {
        let all: BTreeMap<IpNet, &str> = servers
            .iter()
            .flat_map(|server| server.addresses.iter().map(|(prefix, _)| (*prefix, server.name.as_str())))
            .collect();
        // The longest prefix wins, so what others have within a server's prefix is theirs.
        let own = |server: &Server, prefix: IpNet| -> Vec<IpNet> {
            let inside = all.range(prefix..).take_while(|(other, _)| prefix.contains(*other));
            let others: Vec<IpNet> =
                inside.filter(|(_, owner)| **owner != server.name).map(|(other, _)| *other).collect();
            subtract(prefix, &others)
        };
        let addresses = |server: &Server| -> Arc<[IpNet]> {
            server.addresses.iter().flat_map(|(prefix, _)| own(server, *prefix)).collect()
        };
        let servers = servers.iter().map(|server| (server.name.as_str(), addresses(server))).collect();
        Self { sets, servers, suggestions: Cell::new(SUGGESTIONS) }
    }

    /// The help that offers the server whose name is closest.
    pub(super) fn suggest_server(&self, name: &str) -> Option<String> {
        self.suggestions.set(self.suggestions.get().checked_sub(1)?);
        suggest(name, self.servers.keys().copied())
    }
}
