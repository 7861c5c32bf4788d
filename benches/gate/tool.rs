//! The program itself, as an administrator runs it.

use std::path::Path;

use anyhow::Result;

use crate::network::{Namespace, run};

/// Its path.
pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");

/// Attaches a gate to a NIC of a namespace.
pub fn attach(space: &Namespace, nic: &str, policy: &Path) -> Result<()> {
    run(space.command(PORTCULLIS).args(["attach", "-i", nic, "-p"]).arg(policy)).map(drop)
}

/// Detaches the gate, if there is one.
pub fn detach(space: &Namespace, nic: &str) {
    let _ = run(space.command(PORTCULLIS).args(["detach", "-i", nic]));
}
