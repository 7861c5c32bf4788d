//! What a need is, whatever its place in the file: the programs' counts of it outlive a change of policy.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::rows::RuleRow;

/// As the kernel keeps it: a SHA-256, cut off.
pub type NeedIdentity = [u8; 24];

/// The identity of each rule's need, in the order of the rules; `None` for the placeholder. Copies of a rule are
/// the same need, and needs of one role that say the same are reported apart by their order.
pub fn identify_needs(rules: &[RuleRow]) -> Vec<Option<NeedIdentity>> {
    let mut seen: HashMap<NeedIdentity, u32> = HashMap::new();
    let mut by_place: HashMap<(u32, u32), NeedIdentity> = HashMap::with_capacity(rules.len());
    let mut identities = Vec::with_capacity(rules.len());
    for row in rules {
        if row.line == 0 {
            identities.push(None);
            continue;
        }
        let identity = *by_place.entry((row.line, row.column)).or_insert_with(|| {
            let said = hash(row, 0);
            let earlier = seen.entry(said).or_default();
            *earlier += 1;
            if *earlier == 1 { said } else { hash(row, *earlier) }
        });
        identities.push(Some(identity));
    }
    identities
}

fn hash(row: &RuleRow, repetition: u32) -> NeedIdentity {
    let mut hasher = Sha256::new();
    for part in [row.role.as_deref().unwrap_or_default(), row.direction.key(), &row.need] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.update(repetition.to_le_bytes());
    let digest = hasher.finalize();
    let mut identity = NeedIdentity::default();
    identity.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    identity
}
