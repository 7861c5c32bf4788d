//! One word for users: does a policy drop packets, or only observe them?

use super::model::{Mode, Policy};

/// Whether packets that a policy does not allow are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// They are dropped, for every server.
    Enforcing,
    /// They are dropped, but for some servers that are in observe.
    PartlyObserving,
    /// They pass, counted and reported: every server is in observe.
    Observing,
}

impl Enforcement {
    /// By how many servers are in observe, of how many.
    pub fn by_servers(observing: usize, servers: usize) -> Enforcement {
        match observing {
            0 => Enforcement::Enforcing,
            some if some < servers => Enforcement::PartlyObserving,
            _ => Enforcement::Observing,
        }
    }

    /// Of a policy.
    pub fn of(policy: &Policy) -> Enforcement {
        let is_observing = |server: &&super::Server| policy.mode_of(server) == Mode::Observe;
        let observing = policy.servers.iter().filter(is_observing).count();
        Enforcement::by_servers(observing, policy.servers.len())
    }

    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Enforcement::Enforcing => "enforcing",
            Enforcement::PartlyObserving => "partly observing",
            Enforcement::Observing => "observing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn name(policy: &str) -> &'static str {
        let policy = parse(policy, "p.toml").unwrap_or_else(|errors| panic!("{errors}"));
        Enforcement::of(&policy).name()
    }

    #[test]
    fn a_policy_observes_wholly_only_when_every_server_does() {
        let servers = "[servers.a]\naddresses = [\"192.0.2.1\"]\n[servers.b]\naddresses = [\"192.0.2.2\"]\n";
        assert_eq!(name(servers), "enforcing");
        assert_eq!(name(&format!("{servers}mode = \"observe\"\n")), "partly observing");
        assert_eq!(name(&format!("[policy]\nmode = \"observe\"\n{servers}")), "observing");
        assert_eq!(
            name(&format!("[policy]\nmode = \"observe\"\n{servers}mode = \"enforce\"\n")),
            "partly observing"
        );
    }
}
