//! What several servers do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::evidence::Service;
use super::hosts::Host;
use super::seen::Seen;
use crate::alarm::Kind;

/// What a server had a part in.
pub(super) fn list_kinds(host: &Host) -> String {
    let mut kinds: BTreeSet<&str> =
        host.troubles.by_service.values().flatten().map(|(kind, _)| kind.name()).collect();
    if host.troubles.is_scan {
        kinds.insert(Kind::Scan.name());
    }
    kinds.into_iter().collect::<Vec<_>>().join(", ")
}

/// Who has what in common.
pub(super) struct Shared {
    /// Servers by service and destination.
    pub(super) peers: BTreeMap<(Service, IpAddr), BTreeSet<usize>>,
    /// Servers by service.
    pub(super) services: BTreeMap<Service, BTreeSet<usize>>,
}

impl Shared {
    /// Of all servers.
    pub(super) fn of(hosts: &[Host]) -> Shared {
        let mut shared = Shared { peers: BTreeMap::new(), services: BTreeMap::new() };
        for (number, host) in hosts.iter().enumerate() {
            for (service, row) in &host.rows {
                let is_one_way = Seen::needs_no_answer(service);
                if row.answered == 0 && !is_one_way {
                    continue;
                }
                shared.services.entry(*service).or_default().insert(number);
                for (peer, evidence) in row.peers.iter() {
                    if evidence.answered > 0 || is_one_way {
                        shared.peers.entry((*service, peer)).or_default().insert(number);
                    }
                }
            }
        }
        shared
    }
}
