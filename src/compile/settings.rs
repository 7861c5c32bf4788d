//! The keys of `[policy]` that a program reads. A key with few values is a row of [`KEYS`], from
//! which the word `settings.flags` and the lines of `show status` follow.

use crate::abi::settings_flag;
use crate::policy::{Handover, Mode, Policy, Tracking, UnknownSources};

/// A value of a key, as one bit of `settings.flags`.
struct FlagKey {
    /// As in the policy.
    name: &'static str,
    flag: settings_flag,
    is_set: fn(&Policy) -> bool,
    /// The words of `show status` while the bit is clear and while it is set. `None`: not shown.
    words: Option<[&'static str; 2]>,
}

const KEYS: &[FlagKey] = &[
    FlagKey {
        name: "mode",
        flag: settings_flag::SETTINGS_OBSERVE,
        is_set: |policy| policy.settings.mode.value == Mode::Observe,
        words: Some(["enforce", "observe"]),
    },
    FlagKey {
        name: "tracking",
        flag: settings_flag::SETTINGS_STRICT,
        is_set: |policy| policy.settings.tracking.value == Tracking::Strict,
        words: Some(["service", "strict"]),
    },
    FlagKey {
        name: "handover",
        flag: settings_flag::SETTINGS_HANDOVER,
        is_set: |policy| policy.settings.handover.value == Handover::Conntrack,
        words: Some(["none", "conntrack"]),
    },
    FlagKey {
        name: "unknown_sources",
        flag: settings_flag::SETTINGS_UNKNOWN_ALLOW,
        is_set: |policy| policy.settings.unknown_sources.value == UnknownSources::Allow,
        words: None,
    },
    FlagKey {
        name: "unknown_sources",
        flag: settings_flag::SETTINGS_UNKNOWN_QUIET,
        is_set: |policy| policy.settings.unknown_sources.value == UnknownSources::Quiet,
        words: None,
    },
    FlagKey {
        name: "dhcp",
        flag: settings_flag::SETTINGS_DHCP,
        is_set: |policy| policy.settings.dhcp.value,
        words: None,
    },
];

/// Settings that hold for all packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledSettings {
    /// `enum settings_flag`: the bits that stand for keys of the policy.
    pub flags: u32,
    /// Seconds in which flows already open are taken over.
    pub pickup_s: u32,
}

impl CompiledSettings {
    pub(super) fn of(policy: &Policy) -> CompiledSettings {
        let flags = KEYS.iter().filter(|key| (key.is_set)(policy)).fold(0, |flags, key| flags | key.flag.0);
        CompiledSettings { flags, pickup_s: policy.settings.pickup_s.value }
    }

    /// Whether conntrack is asked for flows that no table has. Service tracking has no use for it.
    pub fn has_handover(&self) -> bool {
        self.is_strict() && self.flags & settings_flag::SETTINGS_HANDOVER.0 != 0
    }

    /// Whether a second program tracks what peers open.
    pub fn is_strict(&self) -> bool {
        self.flags & settings_flag::SETTINGS_STRICT.0 != 0
    }
}

/// The meaning of `settings.flags` in the words of the policy, for `show status`: keys and values.
pub fn describe_flags(flags: u32) -> Vec<(&'static str, &'static str)> {
    KEYS.iter()
        .filter_map(|key| {
            let [clear, set] = key.words?;
            Some((key.name, if flags & key.flag.0 == 0 { clear } else { set }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;
    use libbpf_rs::btf::types::Enum;

    use super::*;

    /// Bits that follow from the rows of a policy and stand for no key.
    const DERIVED: [settings_flag; 10] = [
        settings_flag::SETTINGS_TRACKED,
        settings_flag::SETTINGS_PREFIXES,
        settings_flag::SETTINGS_RANGES,
        settings_flag::SETTINGS_BOUND,
        settings_flag::SETTINGS_ROUTERS,
        settings_flag::SETTINGS_LINK_SERVICES,
        settings_flag::SETTINGS_NAMES,
        settings_flag::SETTINGS_COMMON_GRANTS,
        settings_flag::SETTINGS_RESOLVERS,
        settings_flag::SETTINGS_NAMED,
    ];

    #[test]
    fn every_flag_of_the_contract_is_a_key_or_follows_from_the_rows() {
        let btf = Btf::from_path(concat!(env!("OUT_DIR"), "/portcullis.bpf.o")).unwrap();
        let list = btf.type_by_name::<Enum<'_>>("settings_flag").unwrap();
        let mut expected: Vec<i64> = list.iter().map(|value| value.value).collect();
        let known = KEYS.iter().map(|key| key.flag).chain(DERIVED);
        let mut known: Vec<i64> = known.map(|flag| flag.0.into()).collect();
        known.sort_unstable();
        expected.sort_unstable();
        assert_eq!(known, expected, "a flag needs one row of KEYS, or a place in DERIVED");
    }

    #[test]
    fn flags_are_described_by_the_words_of_the_policy() {
        assert_eq!(describe_flags(0), [("mode", "enforce"), ("tracking", "service"), ("handover", "none")]);
        let all = settings_flag::SETTINGS_OBSERVE.0
            | settings_flag::SETTINGS_STRICT.0
            | settings_flag::SETTINGS_HANDOVER.0;
        assert_eq!(
            describe_flags(all),
            [("mode", "observe"), ("tracking", "strict"), ("handover", "conntrack")]
        );
    }
}
