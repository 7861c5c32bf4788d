//! The names of a policy, to be found by others that hold them.

use std::collections::HashMap;

use crate::net::DomainName;

/// Finds the names of a policy that are within others.
pub(super) struct NameIndex {
    /// Sorted.
    names: Vec<DomainName>,
    numbers: HashMap<DomainName, u32>,
}

impl NameIndex {
    pub(super) fn new(names: Vec<DomainName>) -> NameIndex {
        let numbers = names.iter().cloned().zip(0..).collect();
        NameIndex { names, numbers }
    }

    pub(super) fn names(&self) -> &[DomainName] {
        &self.names
    }

    /// The numbers of the names that are within this one.
    pub(super) fn find_within(&self, name: &DomainName) -> Vec<u32> {
        if !name.is_wildcard() {
            return self.numbers.get(name).copied().into_iter().collect();
        }
        let names = self.names.iter().zip(0..);
        names.filter(|(other, _)| other.is_within(name)).map(|(_, number)| number).collect()
    }
}
