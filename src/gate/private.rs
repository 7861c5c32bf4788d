//! A gate that no NIC uses: the same object with maps of its own, one policy in them, and frames by test run. It
//! has no pins and needs no lock, and it is gone with the value.

use std::net::IpAddr;
use std::sync::Arc;

use super::Gate;
use super::error::GateError;
use super::explain::Answer;
use super::program::OBJECT;
use crate::compile::Tables;
use crate::net::DomainName;
use crate::policy::{Policy, TableSizes};

/// What XDP returns for a packet that passes.
const XDP_PASS: u32 = 2;

/// Entries of the tables that fill with traffic. Not fewer, because each CPU takes up to 128 entries of an LRU for
/// itself.
const FLOWS: u32 = 2048;
const LEDGER_ROWS: u32 = 1024;
const HEARD_PEERS: u32 = 8192;

/// A gate for frames that nobody sent.
pub struct PrivateGate {
    gate: Arc<Gate>,
}

/// Which sizes the tables of a [`PrivateGate`] have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateSizes {
    /// Those of `[tables]`, as on a NIC: for the traffic of a day.
    OfPolicy,
    /// As few as a handful of flows needs. What the policy itself fills has its own size.
    Small,
}

impl PrivateGate {
    /// Loads the programs with maps of their own, and makes `policy` their live one.
    ///
    /// # Errors
    /// When the process lacks the privilege, the kernel refuses a program or a map, or the policy does not fit.
    pub fn load(policy: &Policy, tables: &Tables, sizes: PrivateSizes) -> Result<PrivateGate, GateError> {
        PrivateGate::load_object(OBJECT, policy, tables, sizes)
    }

    /// As [`PrivateGate::load`], from an object file of another compiler.
    ///
    /// # Errors
    /// As [`PrivateGate::load`], and when the object is of another version.
    pub fn load_object(
        object: &[u8],
        policy: &Policy,
        tables: &Tables,
        sizes: PrivateSizes,
    ) -> Result<PrivateGate, GateError> {
        // what it says depends on the policy alone, and not on what conntrack has
        let gate = match sizes {
            PrivateSizes::OfPolicy => Gate::load_as(object, policy, tables, false)?,
            PrivateSizes::Small => {
                let small = Policy { tables: shrink(&policy.tables), ..policy.clone() };
                Gate::load_as(object, &small, tables, false)?
            }
        };
        Ok(PrivateGate { gate: Arc::new(gate) })
    }

    /// A gate that was loaded elsewhere. No NIC may use it.
    pub fn of(gate: Arc<Gate>) -> PrivateGate {
        PrivateGate { gate }
    }

    /// Its maps and programs.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Makes another policy the live one. Flows stay, as on a NIC.
    ///
    /// # Errors
    /// As [`Gate::install`].
    pub fn install(&self, policy: &Policy, tables: &Tables) -> Result<(), GateError> {
        self.gate.install(policy, tables).map(drop)
    }

    /// Runs the filter on a frame that a server sends, with all its consequences, and says whether it passes.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn filter(&self, frame: &[u8]) -> Result<bool, GateError> {
        let run = self.gate.programs.run_filter(frame, 1);
        let run =
            run.map_err(|errno| GateError::Kernelside { what: "could not run the filter".into(), errno })?;
        Ok(run.action == XDP_PASS)
    }

    /// Runs the tracker on a frame to a server, with all its consequences.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn track(&self, frame: &[u8]) -> Result<(), GateError> {
        let run = self.gate.programs.run_track(frame, 1);
        run.map(drop)
            .map_err(|errno| GateError::Kernelside { what: "could not run the tracker".into(), errno })
    }

    /// Opens an address to a server, as an answer for a name of the live policy does.
    ///
    /// # Errors
    /// When the kernel refuses to write, or the policy has no such server or name.
    pub fn plant_grant(&self, server: &str, name: &DomainName, address: IpAddr) -> Result<(), GateError> {
        self.gate.plant_grant(server, name, address)
    }

    /// Asks what the filter would do with a frame that a server sends. Nothing is counted or recorded.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn explain(&self, frame: &[u8]) -> Result<Answer, GateError> {
        self.gate.explain(frame, false, None)
    }
}

/// The sizes with those that fill with traffic made small.
fn shrink(sizes: &TableSizes) -> TableSizes {
    let mut small = sizes.clone();
    for size in [
        &mut small.established,
        &mut small.half_open,
        &mut small.datagrams,
        &mut small.icmp,
        &mut small.unlisted,
        &mut small.fragments,
    ] {
        size.value = size.value.min(FLOWS);
    }
    small.ledger.value = small.ledger.value.min(LEDGER_ROWS);
    small.heard.value = small.heard.value.min(HEARD_PEERS);
    small
}
