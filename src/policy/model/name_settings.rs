//! `[names]`: names as destinations.

use super::keys::keys;
use super::location::Located;
use super::names::{Prefixes, Resolvers, TimeToLive};
use super::values::Texts;

keys! {
    /// `[names]`: names as destinations.
    NameSettings {
        /// Addresses and sets of the resolvers whose answers count.
        "resolvers" resolvers: Resolvers = Resolvers::default(), resolvers();
        /// Interfaces by which their answers may come. Empty: those that the routing table has.
        "from" from: Texts = Texts::default(), interfaces();
        /// What names may point to although others like it are not to be granted.
        "private" private: Prefixes = Prefixes::default(), prefixes();
        /// Seconds for which an answer opens its addresses, at least and at most.
        "ttl" ttl: TimeToLive = TimeToLive::default(), time_to_live();
        /// Prefixes of NAT64, whose embedded addresses decide.
        "nat64" nat64: Prefixes = Prefixes::default(), nat64_prefixes();
        /// Whether a resolver may be used whose answers can be forged from outside.
        "forgeable" forgeable: Located<bool> = Located::default(), boolean();
        /// Whether this machine asks for the exact names as well.
        "resolve" resolve: bool = false, flag();
    }
}
