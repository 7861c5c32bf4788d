//! Needs that the same servers have become roles: equal needs alone, so that no server gets what it was not seen to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::everyday;
use super::evidence::Service;
use super::hosts::Host;
use super::named::Proposal;
use crate::net::{TCP, UDP};
use crate::policy::Direction;

/// Servers whose evidence a comment has one by one.
const MAX_SHOWN: usize = 4;

/// A need, with what a person should know of it.
#[derive(Clone, Debug)]
pub(super) struct NeedDraft {
    pub(super) service: Service,
    pub(super) peers: Vec<IpNet>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) comments: Vec<String>,
}

/// A role, and who has it.
#[derive(Clone, Debug)]
pub(super) struct RoleDraft {
    pub(super) name: String,
    pub(super) hosts: BTreeSet<usize>,
    pub(super) needs: Vec<NeedDraft>,
}

/// Groups needs by who has them, and names the groups.
pub(super) fn draft_roles(
    proposals: &[Proposal],
    hosts: &[Host],
    taken: &BTreeSet<String>,
) -> Vec<RoleDraft> {
    let mut by_need: BTreeMap<(Service, &[IpNet], Vec<Arc<str>>), Vec<&Proposal>> = BTreeMap::new();
    for proposal in proposals {
        by_need.entry((proposal.service, &proposal.peers, proposal.names())).or_default().push(proposal);
    }
    let mut by_hosts: BTreeMap<BTreeSet<usize>, Vec<NeedDraft>> = BTreeMap::new();
    for ((service, peers, names), proposals) in by_need {
        let needed_by = proposals.iter().map(|proposal| proposal.host).collect();
        let comments = comment(&proposals, hosts);
        let need = NeedDraft { service, peers: peers.to_vec(), names, comments };
        by_hosts.entry(needed_by).or_default().push(need);
    }
    let mut names = taken.clone();
    let mut roles = Vec::new();
    for (needed_by, needs) in by_hosts {
        let word = name_role(&needs, &needed_by, hosts);
        let mut name = word.clone();
        for number in 2.. {
            if names.insert(name.clone()) {
                break;
            }
            name = format!("{word}-{number}");
        }
        roles.push(RoleDraft { name, hosts: needed_by, needs });
    }
    roles
}

fn comment(proposals: &[&Proposal], hosts: &[Host]) -> Vec<String> {
    let mut lines = Vec::new();
    let is_alone = proposals.len() == 1;
    for proposal in proposals.iter().take(MAX_SHOWN) {
        let name = hosts.get(proposal.host).map(|host| host.name.as_str()).unwrap_or_default();
        lines.push(match is_alone {
            true => proposal.evidence.clone(),
            false => format!("{name}: {}", proposal.evidence),
        });
    }
    if proposals.len() > MAX_SHOWN {
        lines.push(format!("and {} more servers", proposals.len() - MAX_SHOWN));
    }
    let remarks: BTreeSet<&String> =
        proposals.iter().filter_map(|proposal| proposal.remark.as_ref()).collect();
    lines.extend(remarks.into_iter().cloned());
    lines
}

/// Names a role by what its servers offer, otherwise by who has it.
fn name_role(needs: &[NeedDraft], needed_by: &BTreeSet<usize>, hosts: &[Host]) -> String {
    let offered = needs.iter().filter(|need| need.service.direction == Direction::In);
    let words: BTreeSet<(usize, &str)> = offered
        .filter(|need| matches!(need.service.protocol, TCP | UDP))
        .filter_map(|need| everyday::find_role(need.service.protocol, need.service.port))
        .map(|word| (everyday::rank_role(word), word))
        .collect();
    if let Some((_, word)) = words.first() {
        return (*word).to_owned();
    }
    match needed_by.first().and_then(|host| hosts.get(*host)) {
        Some(host) if needed_by.len() == 1 => format!("{}-own", host.name),
        Some(_) | None => "managed".to_owned(),
    }
}
