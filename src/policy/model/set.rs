//! Sets: named lists of peers.

use ipnet::IpNet;

use super::location::Location;
use crate::net::DomainName;

/// A named list of peers.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name, without `@`.
    pub name: String,
    /// Addresses (prefixes of full length) and prefixes, in the order of the file.
    pub members: Vec<(IpNet, Location)>,
    /// Names, in the order of the file.
    pub names: Vec<(DomainName, Location)>,
    /// Where its name is.
    pub place: Location,
    /// Whether all its members could be read. A set that lost some is not reported as empty as well.
    pub(in crate::policy) sound: bool,
}

impl Set {
    /// Whether it has no member at all.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.names.is_empty()
    }

    /// The members without their places.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.members.iter().map(|(prefix, _)| *prefix)
    }
}
