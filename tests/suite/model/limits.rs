//! The token buckets of limited needs: GCRA, as ITU-T I.371 has it.

use std::collections::{BTreeMap, BTreeSet};

use portcullis::policy::{Limit, Need};

use super::needs::Rule;

/// Whose bucket: the server's name, the role's, and the need as it is written canonically. It outlives
/// a policy as long as these stay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketKey {
    server: String,
    role: String,
    need: String,
}

impl BucketKey {
    pub fn new(server: &str, rule: &Rule<'_>) -> Self {
        let need: &Need = rule.need;
        Self {
            server: server.to_owned(),
            role: rule.role.unwrap_or_default().to_owned(),
            need: need.to_string(),
        }
    }
}

/// When, at the permitted rate, the next flow of each bucket would be due.
#[derive(Default)]
pub struct TokenBuckets {
    due_ns: BTreeMap<BucketKey, u64>,
}

fn interval_ns(limit: Limit) -> u64 {
    u64::from(limit.per_seconds) * 1_000_000_000 / u64::from(limit.count)
}

impl TokenBuckets {
    /// Whether one more flow is within the limit.
    pub fn allows(&self, key: &BucketKey, limit: Limit, now_ns: u64) -> bool {
        let ahead_ns = self.due_ns.get(key).copied().unwrap_or(0).saturating_sub(now_ns);
        // N flows may come at once: the first is due now, the last runs N - 1 intervals ahead.
        ahead_ns <= (u64::from(limit.count) - 1) * interval_ns(limit)
    }

    pub fn spend(&mut self, key: BucketKey, limit: Limit, now_ns: u64) {
        let due_ns = self.due_ns.entry(key).or_insert(0);
        *due_ns = (*due_ns).max(now_ns) + interval_ns(limit);
    }
}

/// Needs with limits, from the most generous one: that of the highest rate. decided: of equal rates the
/// larger burst (60/m before 1/s), then the first written. Of more than eight, the others never count.
pub fn by_generosity<'p>(rules: &[Rule<'p>]) -> Vec<(Rule<'p>, Limit)> {
    let mut limited: Vec<(Rule<'p>, Limit)> =
        rules.iter().filter_map(|rule| Some((*rule, rule.need.limit?))).collect();
    limited.sort_by_key(|(_, limit)| std::cmp::Reverse((limit.per_minute(), limit.count)));
    // decided: the same need in two roles, or twice in one, counts once
    let mut texts = BTreeSet::new();
    limited.retain(|(rule, _)| texts.insert(rule.need.to_string()));
    limited.truncate(8);
    limited
}
