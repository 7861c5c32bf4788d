//! All that the model knows between two frames. `decide`, `steps` and `track` read and change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis::policy::{Need, Policy};

use super::coverage::Coverage;
use super::flows::{FlowKey, Flows};
use super::fragments::Fragments;
use super::heard::Heard;
use super::ledger::Books;
use super::limits::TokenBuckets;
use super::macs::Macs;
use super::name_tables::Names;
use super::uses::Uses;

/// One edit, with the peers that its need had when it was made.
#[derive(Clone, Debug)]
pub struct Edit {
    pub server: String,
    pub allows: bool,
    pub need: Need,
    pub peers: Vec<IpNet>,
    pub until_ns: u64,
}

/// The gate as its documentation has it.
pub struct Model {
    pub(super) policy: Option<Policy>,
    pub(super) generation: u32,
    /// Generations only rise, also when a trial ends.
    pub(super) last_generation: u32,
    /// The tracker records flows for the live policy, or for the one before while it is on trial.
    pub(super) tracks: bool,
    /// The policy before a trial, its generation, and whether the tracker recorded for it.
    pub(super) before_trial: Option<(Policy, u32, bool)>,
    pub(super) pickup_until_ns: u64,
    pub(super) takeover_until_ns: u64,
    /// When the last takeover began.
    pub(super) takeover_ns: Option<u64>,
    /// What conntrack has, by the flow as our tables would have it: whether it is one of a peer that is answered.
    pub(super) conntrack: BTreeMap<FlowKey, bool>,
    pub(super) link_routes: fn(IpAddr) -> bool,
    /// By server's name; none: until released.
    pub(super) quarantines: BTreeMap<String, Option<u64>>,
    pub(super) quarantined_addresses: BTreeMap<IpNet, Option<u64>>,
    /// By the server's name and the MAC of one of its machines.
    pub(super) quarantined_machines: BTreeMap<(String, [u8; 6]), Option<u64>>,
    pub(super) edits: Vec<Edit>,
    pub(super) edit_changes: u32,
    pub(super) flows: Flows,
    pub(super) fragments: Fragments,
    pub(super) heard: Heard,
    /// By server's name: DHCP servers that have answered it; none: those that have answered the link.
    pub(super) lessors: BTreeMap<Option<String>, BTreeSet<IpAddr>>,
    pub(super) macs: Macs,
    pub(super) names: Names,
    pub(super) buckets: TokenBuckets,
    pub(super) books: Books,
    /// Under the live policy.
    pub(super) uses: Uses,
    pub(super) coverage: Coverage,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A gate without a policy: every server is unknown.
    pub fn new() -> Self {
        Self {
            policy: None,
            generation: 0,
            last_generation: 0,
            tracks: false,
            before_trial: None,
            pickup_until_ns: 0,
            takeover_until_ns: 0,
            takeover_ns: None,
            conntrack: BTreeMap::new(),
            link_routes: |_| false,
            quarantines: BTreeMap::new(),
            quarantined_addresses: BTreeMap::new(),
            quarantined_machines: BTreeMap::new(),
            edits: Vec::new(),
            edit_changes: 0,
            flows: Flows::default(),
            fragments: Fragments::default(),
            heard: Heard::default(),
            lessors: BTreeMap::new(),
            macs: Macs::default(),
            names: Names::default(),
            buckets: TokenBuckets::default(),
            books: Books::default(),
            uses: Uses::default(),
            coverage: Coverage::default(),
        }
    }
}
