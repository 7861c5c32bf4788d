//! Whatever breaks around the gate, and whenever: it holds, or says plainly that it doesn't.
//!
//! Needs root. `PORTCULLIS_CHAOS_STEP=1` tries every fault point of the commands that load the
//! programs; the default tries some of them, for each costs the verifier's time.

mod audit;
mod clocks;
mod descriptors;
mod fault_points;
mod kills;
mod lacks;
mod mounts;
mod names;
mod nics;
mod orphans;
mod sweeps;
mod trials;
mod unread;
