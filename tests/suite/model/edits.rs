//! Edits: what somebody has added to a server, or taken away, until a time.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::policy::{Direction, Policy};

use super::Model;
use super::needs::{Subject, has_port};
use super::state::Edit;

/// What the edits say of one flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edited {
    /// Until when it is allowed, by the edit that does so for longest.
    pub allowed_until: Option<u64>,
    pub denied: bool,
}

impl Edited {
    /// Whether it is permitted where the policy does so, or does not.
    pub fn permits(self, by_policy: bool) -> bool {
        !self.denied && (by_policy || self.allowed_until.is_some())
    }

    /// .. until when; none: for good, by the policy.
    pub fn until(self, by_policy: bool) -> Option<u64> {
        if by_policy { None } else { self.allowed_until }
    }
}

impl Model {
    /// Makes these edits take effect. decided: each change drops the rest of datagrams under way, as a policy does.
    pub fn set_edits(&mut self, edits: Vec<Edit>) {
        self.edits = edits;
        self.edit_changes += 1;
    }

    /// What the edits say of a flow of a server at a time.
    pub(super) fn find_edits(
        &self,
        server: &str,
        direction: Direction,
        subject: Subject,
        now_ns: u64,
    ) -> Edited {
        // an edit has no `sport`
        let holds = |edit: &&Edit| {
            edit.server == server
                && edit.need.direction == direction
                && now_ns < edit.until_ns
                && has_port(&edit.need, subject)
                && has_peer(&edit.peers, subject.peer)
        };
        let mut edited = Edited::default();
        for edit in self.edits.iter().filter(holds) {
            match edit.allows {
                true => edited.allowed_until = edited.allowed_until.max(Some(edit.until_ns)),
                false => edited.denied = true,
            }
        }
        edited
    }

    /// The edits of servers that a policy lacks end with it.
    pub(super) fn end_homeless_edits(&mut self, policy: &Policy) {
        let before = self.edits.len();
        self.edits.retain(|edit| policy.find_server(&edit.server).is_some());
        if self.edits.len() != before {
            self.edit_changes += 1;
        }
    }
}

fn has_peer(peers: &[IpNet], peer: IpAddr) -> bool {
    peers.is_empty() || peers.iter().any(|prefix| prefix.contains(&peer))
}
