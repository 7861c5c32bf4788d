//! What the tests of every tier stand on.

pub mod authority;
pub mod capture;
pub mod chance;
pub mod conntrack_table;
pub mod cpu;
pub mod dmz;
pub mod dns;
pub mod frame;
pub mod layers;
pub mod own_openings;
pub mod patience;
pub mod snapshot;
pub mod test_gate;
