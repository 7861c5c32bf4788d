//! What is proposed for one server, and names in it: where each opening would have passed by the name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::dns::Names;
use super::everyday;
use super::evidence::{NameUse, PeerEvidence, Service};
use super::hosts::Host;
use super::seen::Seen;
use crate::net::UDP;
use crate::policy::Direction;

/// A destination that is reached by a name.
pub(super) type Named = (Arc<str>, IpNet);

/// A need that is proposed for one server.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) host: usize,
    pub(super) service: Service,
    /// Empty, and no names: every peer.
    pub(super) peers: Vec<IpNet>,
    /// Peers that are reached by a name, with the name.
    pub(super) named: Vec<Named>,
    pub(super) evidence: String,
    /// What a person should know of it.
    pub(super) remark: Option<String>,
}

/// Destinations with names, and those without.
pub(super) fn split_named(peers: &[(IpAddr, PeerEvidence)], names: &Names) -> (Vec<Named>, Vec<IpAddr>) {
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for (peer, evidence) in peers {
        let name = match evidence.name {
            NameUse::Of(name) => names.text_of(name),
            NameUse::Unused | NameUse::Without => None,
        };
        match name {
            Some(name) => named.push((Arc::clone(name), IpNet::from(*peer))),
            None => others.push(*peer),
        }
    }
    (named, others)
}

impl Proposal {
    /// The names, each once.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let names: BTreeSet<&Arc<str>> = self.named.iter().map(|(name, _)| name).collect();
        names.into_iter().cloned().collect()
    }
}

/// A name whose resolvers the server may not ask would open nothing, and one that a server has would be that server. Then
/// its addresses stand in the need.
pub(super) fn leave_unreachable_names(proposals: &mut [Proposal], hosts: &[Host], seen: &Seen<'_>) {
    let dns = Service { direction: Direction::Out, protocol: UDP, port: everyday::DNS };
    let asks: Vec<(usize, Vec<IpNet>)> = proposals
        .iter()
        .filter(|proposal| proposal.service == dns)
        .map(|proposal| (proposal.host, proposal.peers.clone()))
        .collect();
    for proposal in proposals {
        let may_ask = |resolver: &IpAddr| {
            asks.iter().any(|(host, peers)| {
                *host == proposal.host
                    && (peers.is_empty() || peers.iter().any(|peer| peer.contains(resolver)))
            })
        };
        let (kept, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut proposal.named).into_iter().partition(|(name, _)| {
                let is_server = hosts.iter().any(|host| host.name == **name);
                let resolvers = seen.names.resolvers_of(name);
                !is_server && resolvers.is_some_and(|resolvers| resolvers.iter().all(may_ask))
            });
        proposal.named = kept;
        proposal.peers.extend(left.into_iter().map(|(_, peer)| peer));
        proposal.peers.sort_unstable();
    }
}
