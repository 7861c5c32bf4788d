//! How the rows of the drop ledger are divided, so that a server which calls every port leaves the
//! others their room, and outsiders leave the servers theirs.

use std::collections::HashSet;

use crate::abi::{quota_key, row_quota};

/// One server gets at most one in so many of the shared rows.
const SHARED_PART: u64 = 8;
/// One in so many rows is for kinds that outsiders can cause.
const OUTSIDE_PART: u64 = 4;
/// One in so many rows is a reserve, for kinds that are hot when a server's quota is used up.
const RESERVE_PART: u64 = 8;
/// Reserve rows that one server may have.
const RESERVE_MAX: u64 = 24;

/// Rows for one class of kinds. Half of them are divided evenly, half are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassQuota {
    /// Rows of each server, whatever the others do.
    pub guaranteed: u64,
    /// Rows that are left for all of them.
    pub shared: u64,
    /// The most rows of one server, its guaranteed rows included.
    pub max: u64,
}

/// Numbers of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowQuotas {
    /// For what servers start by themselves.
    pub own: ClassQuota,
    /// For what outsiders can cause.
    pub outside: ClassQuota,
    /// For kinds that are hot when a server's own quota is used up.
    pub reserve: ClassQuota,
}

impl ClassQuota {
    fn of(rows: u64, owners: u64) -> ClassQuota {
        let guaranteed = rows / 2 / owners.max(1);
        let shared = rows - guaranteed * owners;
        ClassQuota { guaranteed, shared, max: guaranteed + (shared / SHARED_PART).max(1) }
    }

    /// How far the count of shared rows may go, given what `ledger_quotas` has counted for each owner of
    /// this class. Rows outlive policies: some belong to servers that had more guaranteed rows when they
    /// took them, or that are gone. Such rows are missing from the shared ones.
    fn limit_shared(&self, class: quota_key, counted: &[(u32, row_quota)], servers: &HashSet<u32>) -> u64 {
        let (mut shared, mut missing) = (0, 0);
        for (key, quota) in counted {
            let owner = key & (quota_key::QUOTA_OUTSIDE.0 - 1);
            match key - owner {
                bits if bits == quota_key::QUOTA_SHARED.0 => {
                    let is_of_class = owner * quota_key::QUOTA_OUTSIDE.0 == class.0;
                    shared += if is_of_class { quota.rows } else { 0 };
                }
                bits if bits != class.0 => {}
                _ if servers.contains(&owner) => missing += quota.rows.saturating_sub(self.guaranteed),
                _ => missing += quota.rows,
            }
        }
        (self.shared + shared).saturating_sub(missing)
    }
}

impl RowQuotas {
    /// Divides a ledger of this many rows.
    pub fn of(rows: u32, servers: usize) -> RowQuotas {
        let rows = u64::from(rows);
        let servers = servers as u64;
        let (outside, reserve) = (rows / OUTSIDE_PART, rows / RESERVE_PART);
        // sources that belong to no server are one owner more
        let owners = servers + 1;
        RowQuotas {
            own: ClassQuota::of(rows - outside - reserve, owners),
            outside: ClassQuota::of(outside, servers),
            reserve: ClassQuota {
                guaranteed: 0,
                shared: reserve,
                max: (reserve / owners).clamp(reserve.min(1), RESERVE_MAX),
            },
        }
    }

    /// The quotas with the limits of their shared rows, given what is counted. See
    /// [`ClassQuota::limit_shared`].
    pub fn limit_shared(mut self, counted: &[(u32, row_quota)], server_ids: &[u32]) -> RowQuotas {
        let servers: HashSet<u32> = server_ids.iter().copied().chain([quota_key::QUOTA_UNKNOWN.0]).collect();
        for (class, quota) in
            [(quota_key::QUOTA_UNKNOWN, &mut self.own), (quota_key::QUOTA_OUTSIDE, &mut self.outside)]
        {
            quota.shared = quota.limit_shared(class, counted, &servers);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_ledger_are_all_of_it() {
        let quotas = RowQuotas::of(65_536, 19);
        assert_eq!(quotas.own, ClassQuota { guaranteed: 1024, shared: 20_480, max: 1024 + 2560 });
        assert_eq!(quotas.outside, ClassQuota { guaranteed: 431, shared: 8195, max: 431 + 1024 });
        assert_eq!(quotas.reserve, ClassQuota { guaranteed: 0, shared: 8192, max: 24 });
        for rows in [1, 2, 7, 512, 65_536, 1 << 24] {
            for servers in [0, 1, 3, 100, 65_536] {
                let RowQuotas { own, outside, reserve } = RowQuotas::of(rows, servers);
                let of = |class: ClassQuota, owners: u64| class.guaranteed * owners + class.shared;
                let servers = servers as u64;
                let all = of(own, servers + 1) + of(outside, servers) + reserve.shared;
                assert_eq!(all, u64::from(rows), "{servers} servers");
                assert!(own.max > own.guaranteed && own.max <= u64::from(rows), "{servers}: {own:?}");
                assert!(reserve.max <= reserve.shared.min(24), "{servers} servers: {reserve:?}");
            }
        }
    }

    #[test]
    fn each_server_gets_its_part_of_the_reserve() {
        let reserve = |rows, servers| RowQuotas::of(rows, servers).reserve.max;
        assert_eq!(reserve(32_768, 100), 24);
        assert_eq!(reserve(32_768, 255), 16);
        // some each, as long as there are any
        assert_eq!((reserve(32_768, 65_536), reserve(8, 3), reserve(7, 3)), (1, 1, 0));
    }

    #[test]
    fn rows_beyond_the_guaranteed_ones_and_rows_of_servers_that_are_gone_are_missing_from_the_shared_ones() {
        let class = |guaranteed, shared, max| ClassQuota { guaranteed, shared, max };
        let quotas =
            RowQuotas { own: class(10, 100, 30), outside: class(5, 50, 10), reserve: class(0, 7, 3) };
        let row = |owner: u32, rows: u64| (owner, row_quota { rows });
        let (outside, reserve) = (quota_key::QUOTA_OUTSIDE.0, quota_key::QUOTA_RESERVE.0);
        let counted = [
            row(quota_key::QUOTA_ROWS_ISSUED.0, 60),
            row(quota_key::QUOTA_OVERFLOW.0, 9),
            row(quota_key::QUOTA_SHARED.0, 20),
            row(quota_key::QUOTA_UNKNOWN.0, 12),
            row(1, 25),
            row(2, 7),
            row(3, 8),
            row(quota_key::QUOTA_SHARED.0 + 1, 4),
            row(outside + 1, 9),
            row(outside + 2, 5),
            row(outside + 3, 2),
            row(quota_key::QUOTA_SHARED.0 + 2, 3),
            row(reserve + 1, 3),
        ];
        let limited = quotas.limit_shared(&counted, &[1, 2]);
        // 2 of unknown sources and 15 of server 1 beyond the guaranteed ones, and all 8 of server 3,
        // which is gone
        assert_eq!(limited.own.shared, 100 + 20 - 2 - 15 - 8);
        assert_eq!(limited.outside.shared, 50 + 4 - 4 - 2);
        assert_eq!(limited.reserve, quotas.reserve);
        assert_eq!(quotas.limit_shared(&[], &[1, 2]), quotas);
    }
}
