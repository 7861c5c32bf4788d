//! How the rows of the drop ledger are divided, so that a server which calls every port leaves the
//! others their room.

use std::collections::HashSet;

use crate::abi::{quota_key, row_quota};

/// One server gets at most one in so many of the shared rows.
const SHARED_PART: u64 = 8;

/// Numbers of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowQuotas {
    /// Rows of each server, whatever the others do. Half of the ledger goes to these.
    pub guaranteed: u64,
    /// Rows that are left for all of them.
    pub shared: u64,
    /// The most rows of one server, its guaranteed rows included.
    pub max: u64,
}

impl RowQuotas {
    /// Divides a ledger of this many rows.
    pub fn of(rows: u32, servers: usize) -> RowQuotas {
        let rows = u64::from(rows);
        // sources that belong to no server are one owner more
        let owners = servers as u64 + 1;
        let guaranteed = rows / 2 / owners;
        let shared = rows - guaranteed * owners;
        RowQuotas { guaranteed, shared, max: guaranteed + (shared / SHARED_PART).max(1) }
    }

    /// How far the count of shared rows may go, given what `ledger_quotas` has counted for each owner.
    /// Rows outlive policies: some belong to servers that had more guaranteed rows when they took them,
    /// or that are gone. Such rows are missing from the shared ones.
    pub fn limit_shared(&self, counted: &[(u32, row_quota)], server_ids: &[u32]) -> u64 {
        let servers: HashSet<u32> = server_ids.iter().copied().chain([quota_key::QUOTA_UNKNOWN.0]).collect();
        let (mut shared, mut missing) = (0, 0);
        for (owner, quota) in counted {
            match *owner {
                owner if owner == quota_key::QUOTA_SHARED.0 => shared = quota.rows,
                owner if owner == quota_key::QUOTA_ROWS_ISSUED.0 => {}
                owner if servers.contains(&owner) => missing += quota.rows.saturating_sub(self.guaranteed),
                _ => missing += quota.rows,
            }
        }
        (self.shared + shared).saturating_sub(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_own_of_the_ledger_and_what_they_share_is_all_of_it() {
        let quotas = RowQuotas { guaranteed: 1638, shared: 32_776, max: 1638 + 4097 };
        assert_eq!(RowQuotas::of(65_536, 19), quotas);
        for rows in [1, 2, 7, 512, 65_536, 1 << 24] {
            for servers in [0, 1, 3, 100, 65_536] {
                let RowQuotas { guaranteed, shared, max } = RowQuotas::of(rows, servers);
                assert_eq!(guaranteed * (servers as u64 + 1) + shared, u64::from(rows));
                assert!(max > guaranteed && max <= u64::from(rows), "{servers} servers, {rows} rows: {max}");
            }
        }
    }

    #[test]
    fn rows_beyond_the_guaranteed_ones_and_rows_of_servers_that_are_gone_are_missing_from_the_shared_ones() {
        let quotas = RowQuotas { guaranteed: 10, shared: 100, max: 30 };
        let row = |owner: u32, rows: u64| (owner, row_quota { rows });
        let counted = [
            row(quota_key::QUOTA_ROWS_ISSUED.0, 60),
            row(quota_key::QUOTA_SHARED.0, 20),
            row(quota_key::QUOTA_UNKNOWN.0, 12),
            row(1, 25),
            row(2, 7),
            row(3, 8),
        ];
        // 2 of unknown sources and 15 of server 1 beyond the guaranteed ones, and all 8 of server 3,
        // which is gone
        assert_eq!(quotas.limit_shared(&counted, &[1, 2]), 100 + 20 - 2 - 15 - 8);
        assert_eq!(quotas.limit_shared(&[], &[1, 2]), 100);
    }
}
