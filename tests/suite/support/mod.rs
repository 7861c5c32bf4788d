//! What the tests of every tier stand on.

pub mod bench;
pub mod dmz;
pub mod frame;
pub mod layers;
