//! Sets: named lists of peers.

use ipnet::IpNet;

use super::location::Location;

/// A named list of peers.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name, without `@`.
    pub name: String,
    /// Addresses (prefixes of full length) and prefixes, in the order of the file.
    pub members: Vec<(IpNet, Location)>,
    /// Where its name is.
    pub place: Location,
    /// Whether all its members could be read. A set that lost some is not reported as empty as well.
    pub(in crate::policy) sound: bool,
}

impl Set {
    /// The members without their places.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.members.iter().map(|(prefix, _)| *prefix)
    }
}
