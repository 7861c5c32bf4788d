//! From a policy to the rows of the kernel's tables. Nothing here touches the kernel.
//!
//! Servers with the same roles share a *profile*. For each profile and protocol the port space is
//! cut into disjoint ranges, so that one lookup tells what holds for a port in every direction.
//! What depends on the peer is a *set* of prefixes. The longest prefix that contains the peer
//! decides.
//!
//! Data goes one way: `rules` numbers and ranks the needs, `flatten` cuts them into rows of ports, with
//! the sets of `peers` and the `chains` of limits, and `room` says whether the rows fit. `encode` makes keys
//! and values of maps of them.

mod chains;
mod edits;
mod encode;
mod encode_names;
mod flatten;
mod identity;
mod lookup;
mod name_index;
mod name_tables;
mod names;
mod nearest;
mod peers;
mod ports;
mod quota;
mod room;
mod rows;
mod rules;
mod services;
mod settings;
mod sports;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::policy::{Diagnostics, Mode, Policy, Questions, Source};
pub use edits::{EditRule, TooManyEdits, compile_edits};
pub use encode::{EncodedPolicy, SourceChunk, cut_text, encode, encode_settings, list_token_buckets};
pub use encode_names::{DomainIds, EncodedNames};
use flatten::{Flattened, flatten_profiles};
pub use identity::{NeedIdentity, identify_needs};
pub use name_tables::{NamePeerRow, NameTables};
pub use names::is_special;
pub use nearest::{Unpermitted, find_nearest};
pub use quota::{ClassQuota, RowQuotas};
use room::Room;
use rows::Profile;
pub use rows::{NeedRow, PeerMatch, PeerRow, RuleRow, ServerRow, SportRow, Tables};
use rules::Rulebook;
pub use services::ServiceIndex;
pub use settings::{CompiledSettings, describe_flags};
use sports::split_sports;

/// Compiles a policy.
///
/// # Errors
/// When its rows don't fit into the tables, whose sizes are settings of the policy.
pub fn compile(policy: &Policy) -> Result<Tables, Diagnostics> {
    let book = Rulebook::new(policy);
    let mut room = Room::new(policy);
    let (mut profiles, profile_of) = number_profiles(policy, &book);
    let mut servers = Vec::new();
    for (index, server) in policy.servers.iter().enumerate() {
        for (prefix, place) in &server.addresses {
            room.take_server(place);
            servers.push(ServerRow {
                prefix: *prefix,
                server: index,
                profile: profile_of.get(index).copied().unwrap_or_default(),
                observe: policy.mode_of(server) == Mode::Observe,
                macs: server.macs.iter().map(|(mac, _)| *mac).collect(),
                vlan: server.vlan.map(|(vlan, _)| vlan),
                forwards: server.forwards,
                named: policy.questions_of(server) == Questions::Named,
            });
        }
    }
    let mut destinations = names::find_names(policy, &profiles, &book);
    let sports = split_sports(&mut profiles, &book, &mut room);
    let Flattened { needs, peers, name_peers, rules } = flatten_profiles(&profiles, &book, &mut room);
    destinations.peers = name_peers;
    let findings = room.finish();
    if !findings.is_empty() {
        return Err(Diagnostics::gather(findings, &Source::new(&policy.file, &policy.text)));
    }
    Ok(Tables {
        settings: CompiledSettings::of(policy),
        names: policy.servers.iter().map(|server| server.name.clone()).collect(),
        servers,
        routers: list_routers(policy),
        needs,
        sports,
        peers,
        rules,
        destinations,
    })
}

fn list_routers(policy: &Policy) -> Vec<(IpAddr, Vec<[u8; 6]>)> {
    let rows = policy.routers.iter().flat_map(|router| {
        let macs: Vec<[u8; 6]> = router.macs.iter().map(|(mac, _)| *mac).collect();
        router.addresses.iter().map(move |(address, _)| (*address, macs.clone()))
    });
    rows.collect()
}

/// Numbers the distinct sets of roles in the order of the servers, and returns each server's number.
/// Profile 0 is for sources of no server: drops that are quiet for any role are quiet for them.
fn number_profiles(policy: &Policy, book: &Rulebook<'_>) -> (Vec<Profile>, Vec<u32>) {
    let role_numbers: HashMap<&str, usize> =
        policy.roles.iter().enumerate().map(|(index, role)| (role.name.as_str(), index)).collect();
    let nobodys = book.rules_of_nobody();
    let first = nobodys.first().and_then(|rule| book.need(*rule)).map(|need| need.place).unwrap_or_default();
    let mut profiles = vec![Profile { rules: nobodys, place: first.start..first.end }];
    let mut known: HashMap<Vec<usize>, u32> = HashMap::new();
    let mut profile_of = Vec::with_capacity(policy.servers.len());
    for server in &policy.servers {
        let mut roles: Vec<usize> =
            server.roles.iter().filter_map(|(name, _)| role_numbers.get(name.as_str()).copied()).collect();
        roles.sort_unstable();
        roles.dedup();
        let number = *known.entry(roles).or_insert_with_key(|roles| {
            let place = server.roles_place.start..server.roles_place.end;
            profiles.push(Profile { rules: book.rules_of(roles), place });
            u32::try_from(profiles.len() - 1).unwrap_or(u32::MAX)
        });
        profile_of.push(number);
    }
    (profiles, profile_of)
}
