//! The room that is left in the tables. Anybody outside can fill them, so all of it is low.

use super::{Finding, FindingId};
use crate::gate::TableUsage;

/// Where drops are counted that found the ledger, or a server's quota of it, full.
const OVERFLOW: &str = "ledger_overflow";
/// Tables that peers fill, with the key of `[tables]`.
const OF_PEERS: [(&str, &str); 4] = [
    ("established", "established"),
    ("half_open", "half_open"),
    ("datagrams", "datagrams"),
    ("icmp_queries", "icmp"),
];
/// So full is nearly full, in tenths.
const FULL_TENTHS: usize = 9;

pub(super) fn judge(tables: &[TableUsage], interface: &str) -> Vec<Finding> {
    tables.iter().filter_map(|table| judge_one(table, interface)).collect()
}

fn judge_one(usage: &TableUsage, interface: &str) -> Option<Finding> {
    let (entries, size) = (usage.entries?, usage.size as usize);
    if usage.table == OVERFLOW {
        return (entries > 0).then(|| Finding {
            id: FindingId::LedgerFull,
            about: "ledger".to_owned(),
            text: "the ledger, or a server's quota of it, was full: some drops are counted by server and reason only".to_owned(),
            remedy: format!(
                "portcullis show -i {interface} drops says whose; raise [tables] ledger, detach and attach again"
            ),
        });
    }
    let (table, key) = OF_PEERS.iter().find(|(table, _)| *table == usage.table)?;
    (size > 0 && entries.saturating_mul(10) >= size.saturating_mul(FULL_TENTHS)).then(|| Finding {
        id: FindingId::FlowsFull,
        about: (*table).to_owned(),
        text: format!("the table {table} is nearly full: {entries} of {size} entries"),
        remedy: format!("raise [tables] {key}, detach and attach again"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_full_from_nine_tenths_on_and_the_overflow_from_its_first_row() {
        let judge = |table, entries, size| {
            let usage = TableUsage { table, entries: Some(entries), size, bytes: 0 };
            judge_one(&usage, "dmz0").map(|finding| finding.id)
        };
        assert_eq!(judge("half_open", 89, 100), None);
        assert_eq!(judge("half_open", 90, 100), Some(FindingId::FlowsFull));
        assert_eq!(judge("ledger_overflow", 0, 100), None);
        assert_eq!(judge("ledger_overflow", 1, 100), Some(FindingId::LedgerFull));
        assert_eq!(judge("servers", 100, 100), None, "a policy that does not fit is refused");
    }
}
