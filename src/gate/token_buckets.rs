//! The token buckets of limits. The tool makes them and the filter only finds them: a bucket that the
//! filter made itself would be full.

use std::collections::HashSet;

use libbpf_rs::MapFlags;

use super::Gate;
use super::error::GateError;
use crate::abi::{limit, limit_key};
use crate::compile::{compile, list_token_buckets};

impl Gate {
    /// Makes a token bucket for each of these limits, and leaves existing ones as full as they are.
    ///
    /// # Errors
    /// When there is no room for all of them.
    pub(super) fn make_token_buckets(&self, keys: &[limit_key]) -> Result<(), GateError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut existing = HashSet::new();
        self.maps.limits.visit(|key, _| existing.extend([to_pair(key)]))?;
        let wanted: HashSet<(u32, u32)> = keys.iter().map(to_pair).collect();
        let mut total = existing.union(&wanted).count();
        if total > self.maps.limits.capacity() as usize {
            let live = self.live_token_buckets()?;
            for key in existing.iter().filter(|key| !wanted.contains(*key) && !live.contains(*key)) {
                self.maps.limits.remove(&limit_key { server: key.0, limit_key: key.1 })?;
                total -= 1;
            }
        }
        if total > self.maps.limits.capacity() as usize {
            return Err(GateError::TableFull {
                table: "limits",
                size: self.maps.limits.capacity(),
                wanted: total,
            });
        }
        for key in keys {
            if !existing.contains(&to_pair(key)) {
                self.maps.limits.put(key, &limit::default(), MapFlags::NO_EXIST)?;
            }
        }
        Ok(())
    }

    fn live_token_buckets(&self) -> Result<HashSet<(u32, u32)>, GateError> {
        let Some(policy) = self.live_policy()? else {
            return Ok(HashSet::new());
        };
        let Ok(tables) = compile(&policy) else {
            return Ok(HashSet::new());
        };
        let ids = self.ids_by_name()?;
        let ids: Vec<u32> = tables.names.iter().map(|name| ids.get(name).copied().unwrap_or(0)).collect();
        Ok(list_token_buckets(&tables, &ids).iter().map(to_pair).collect())
    }
}

/// As a key of a set, which the contract's type can't be.
fn to_pair(key: &limit_key) -> (u32, u32) {
    (key.server, key.limit_key)
}
