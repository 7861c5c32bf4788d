//! Sizes of maps that are no setting of their own, but follow from `[tables]` and from the machine.

use std::fs;
use std::sync::LazyLock;

use super::error::GateError;
use crate::abi::layout;
use crate::policy::TableSizes;

/// Entries of `ledger_overflow`: at most, and one for so many rows of the ledger.
const OVERFLOW_ROWS_MAX: u32 = 16_384;
const OVERFLOW_ROWS_MIN: u32 = 1024;
const ROWS_FOR_OVERFLOW_ROW: u32 = 4;
/// CPUs that the filter adds up at most.
const CPUS_MAX: u32 = 1024;
/// Rows of a page of `ledger_counts`.
const ROWS_PER_PAGE: u32 = 64;
/// Bits of `ledger_bloom` for each row of the ledger: when the ledger is full, the filter looks in vain
/// for one in 60 kinds that have no row.
const BLOOM_BITS_PER_ROW: u32 = 16;
/// Entries of `verdict_cache`, 128 bytes each: at most for all CPUs, and at least for one of them.
const VERDICT_CACHE_MAX: u32 = 1 << 17;
const VERDICT_CACHE_MIN_PER_CPU: u32 = 256;

/// How many parts a map needs that has one for each CPU: the highest number of a CPU that the kernel may
/// ever have, and one more. (Their count is not enough, because numbers may be left out.)
pub(super) fn possible_cpus() -> u32 {
    static CPUS: LazyLock<u32> = LazyLock::new(|| {
        let list = fs::read_to_string("/sys/devices/system/cpu/possible").ok();
        let last = list.as_deref().and_then(read_last_cpu);
        let counted = || libbpf_rs::num_possible_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok());
        last.map(|last| last + 1).or_else(counted).unwrap_or(1).max(1)
    });
    *CPUS
}

/// The last number in a list such as `0-3,8-11`.
fn read_last_cpu(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// Three entries for each server and for unknown sources, and those of `enum quota_key`.
pub(super) fn ledger_quotas(sizes: &TableSizes) -> u32 {
    sizes.servers.value.saturating_add(1).saturating_mul(3).saturating_add(16)
}

/// Rows of drops without a row of their own, by server, reason and flags.
pub(super) fn ledger_overflow(sizes: &TableSizes) -> u32 {
    (sizes.ledger.value / ROWS_FOR_OVERFLOW_ROW).clamp(OVERFLOW_ROWS_MIN, OVERFLOW_ROWS_MAX)
}

/// One row for each kind of drop, and some to spare for kinds that two CPUs make at once.
pub(super) fn ledger_rows(sizes: &TableSizes) -> u32 {
    let ledger = sizes.ledger.value;
    let rows = ledger.saturating_add(ledger_overflow(sizes)).saturating_add(ledger / 8 + 64);
    // no page is part of two CPUs' counts
    rows.checked_next_multiple_of(ROWS_PER_PAGE).unwrap_or(rows)
}

/// Refuses a machine with more CPUs than the ledger can count by, and a ledger that is too large for them.
pub(super) fn check_ledger(sizes: &TableSizes, cpus: u32) -> Result<(), GateError> {
    let refused = |why: String| Err(GateError::Other { what: "the gate can't be attached".to_owned(), why });
    if cpus > CPUS_MAX {
        return refused(format!(
            "this machine may have {cpus} CPUs, and the ledger counts by {CPUS_MAX} at most\n\
             help: boot with possible_cpus={CPUS_MAX} or fewer"
        ));
    }
    if ledger_rows(sizes).checked_mul(cpus).is_none() {
        return refused(format!(
            "a ledger of {} rows is too large for {cpus} CPUs, for each counts by itself\n\
             help: in [tables], write: ledger = {}",
            sizes.ledger.value,
            u32::MAX / cpus / 2
        ));
    }
    Ok(())
}

/// One entry for each server, and one for what all have.
pub(super) fn name_shares(sizes: &TableSizes) -> u32 {
    sizes.servers.value.saturating_add(2)
}

/// A quarter of the grants: a connection to a resolver serves many questions.
pub(super) fn streams(sizes: &TableSizes) -> u32 {
    (sizes.grants.value / 4).max(1)
}

/// The parts of all CPUs.
pub(super) fn ledger_counts(sizes: &TableSizes) -> u32 {
    ledger_rows(sizes).saturating_mul(possible_cpus())
}

/// The parts of all CPUs.
pub(super) fn frequent(_: &TableSizes) -> u32 {
    layout::FREQUENT_PER_CPU.0.saturating_mul(possible_cpus())
}

/// The parts of all CPUs.
pub(super) fn hot_kinds(_: &TableSizes) -> u32 {
    layout::HOT_KINDS_PER_CPU.0.saturating_mul(possible_cpus())
}

/// Words of 64 bits, in two halves. The number of each is a power of two, for a mask cuts the hash.
pub(super) fn ledger_bloom(sizes: &TableSizes) -> u32 {
    let bits = u64::from(sizes.ledger.value) * u64::from(BLOOM_BITS_PER_ROW);
    u32::try_from(bits.next_power_of_two() / 64).unwrap_or(1 << 30).max(1).saturating_mul(2)
}

/// Peers for each word of `heard` at which half of its bits are set: 48 bits, four for each peer.
const HEARD_PEERS_PER_WORD: u32 = 8;

/// Words of one region in one half of `heard`, a power of two.
pub(super) fn heard_region(sizes: &TableSizes) -> u32 {
    let words = sizes.heard.value / HEARD_PEERS_PER_WORD / layout::HEARD_REGIONS.0;
    words.max(1).next_power_of_two()
}

/// Words of both halves of `heard`.
pub(super) fn heard(sizes: &TableSizes) -> u32 {
    2 * layout::HEARD_REGIONS.0 * heard_region(sizes)
}

/// The parts of all CPUs.
pub(super) fn quota_cache(_: &TableSizes) -> u32 {
    layout::QUOTA_CACHE_PER_CPU.0.saturating_mul(possible_cpus())
}

/// The parts of all CPUs, each a power of two: as many entries as there may be addresses. Each entry has
/// room for four verdicts, so a worm on every address nearly always finds some free. All parts together
/// take at most 16 MiB, unless there are so many CPUs that 256 entries each are more.
pub(super) fn verdict_cache(sizes: &TableSizes) -> u32 {
    let max = (VERDICT_CACHE_MAX / possible_cpus()).max(VERDICT_CACHE_MIN_PER_CPU);
    let wanted = sizes.servers.value.clamp(VERDICT_CACHE_MIN_PER_CPU, max);
    (1_u32 << wanted.ilog2()).saturating_mul(possible_cpus())
}

/// How many of the `part` entries of a CPU a policy uses that has this many single `addresses`, and
/// perhaps `prefixes`: a power of two, as `part` is. The fewer, the nearer to the CPU they stay. Four for
/// an address, so that most openings stand first in their entry, where the filter looks first.
pub(super) fn verdict_cache_in_use(part: u32, addresses: usize, prefixes: bool) -> u32 {
    let wanted =
        u32::try_from(addresses).unwrap_or(u32::MAX).saturating_mul(4).max(VERDICT_CACHE_MIN_PER_CPU);
    match wanted.checked_next_power_of_two() {
        Some(wanted) if !prefixes => wanted.min(part),
        _ => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_uses_of_the_verdict_cache_is_a_power_of_two_and_no_more_than_there_is() {
        for part in [256, 1024, 65_536] {
            for addresses in [0, 1, 63, 64, 65, 4096, 65_536, usize::MAX] {
                let used = verdict_cache_in_use(part, addresses, false);
                assert!(used.is_power_of_two() && used <= part, "{addresses} of {part}: {used}");
                assert!(used == part || used as usize >= 4 * addresses.max(64), "{addresses}: {used}");
            }
            assert_eq!(verdict_cache_in_use(part, 1, true), part, "a prefix may have any number");
        }
        assert_eq!(verdict_cache_in_use(65_536, 64, false), 256);
        assert_eq!(verdict_cache_in_use(65_536, 65, false), 512);
    }

    #[test]
    fn a_ledger_that_is_too_large_for_all_cpus_and_too_many_cpus_are_refused() {
        let mut sizes = TableSizes::default();
        assert!(check_ledger(&sizes, 1024).is_ok());
        let text = check_ledger(&sizes, 1025).unwrap_err().to_string();
        assert!(text.contains("1025 CPUs") && text.contains("help:"), "{text}");
        sizes.ledger.value = 1 << 24;
        assert!(check_ledger(&sizes, 128).is_ok());
        let text = check_ledger(&sizes, 256).unwrap_err().to_string();
        assert!(text.contains("ledger = 8388607"), "{text}");
        sizes.ledger.value = 8_388_607;
        assert!(check_ledger(&sizes, 256).is_ok());
    }

    #[test]
    fn the_last_cpu_of_a_list_is_found() {
        for (list, last) in [("0", 0), ("0-3\n", 3), ("0-3,8-11\n", 11), ("0,2", 2)] {
            assert_eq!(read_last_cpu(list), Some(last), "{list}");
        }
        assert_eq!(read_last_cpu("\n"), None);
    }

    #[test]
    fn tables_that_follow_from_others_have_sizes_that_a_mask_can_cut() {
        let mut sizes = TableSizes::default();
        for ledger in [1, 2, 64, 65_536, 16_777_216] {
            sizes.ledger.value = ledger;
            let words = ledger_bloom(&sizes) / 2;
            assert!(words.is_power_of_two() && u64::from(words) * 64 >= u64::from(ledger) * 16, "{ledger}");
            assert!(ledger_rows(&sizes) > ledger + ledger_overflow(&sizes));
            assert!(ledger_counts(&sizes).is_multiple_of(ledger_rows(&sizes)));
        }
        for servers in [1, 64, 65_536, 16_777_216] {
            sizes.servers.value = servers;
            let all = verdict_cache(&sizes);
            let part = all / possible_cpus();
            assert_eq!(all % possible_cpus(), 0);
            assert!(part.is_power_of_two() && part >= VERDICT_CACHE_MIN_PER_CPU, "{servers}");
            assert!(all <= VERDICT_CACHE_MAX.max(VERDICT_CACHE_MIN_PER_CPU * possible_cpus()));
        }
    }
}
