//! Quarantine: a server that may send nothing but what its management asks for.

use libbpf_rs::MapFlags;
use nix::errno::Errno;

use super::Gate;
use super::error::GateError;
use crate::abi::{quarantine, state};
use crate::clock::now_ns;

const NS_PER_S: u64 = 1_000_000_000;

impl Gate {
    /// Servers in quarantine, with the seconds left. `None`: until released.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn quarantined(&self) -> Result<Vec<(String, Option<u64>)>, GateError> {
        let names = self.names_by_id()?;
        let now = now_ns();
        let mut rows: Vec<_> = self
            .maps
            .quarantines
            .entries()?
            .into_iter()
            .filter(|(_, row)| row.until_ns == 0 || row.until_ns > now)
            .map(|(id, row)| {
                let name = names.get(&id).map_or_else(|| format!("#{id}"), |name| name.to_string());
                let left = (row.until_ns != 0).then(|| (row.until_ns - now).div_ceil(NS_PER_S));
                (name, left)
            })
            .collect();
        rows.sort();
        Ok(rows)
    }

    /// Puts a server into quarantine, for some seconds or until it is released. The caller holds the lock.
    ///
    /// # Errors
    /// When the live policy has no such server, or the table is full.
    pub fn quarantine(&self, name: &str, seconds: Option<u64>) -> Result<(), GateError> {
        let policy = self.live_policy()?;
        let live: Vec<&str> =
            policy.iter().flat_map(|policy| &policy.servers).map(|server| server.name.as_str()).collect();
        // the name of an earlier policy's server has an id, and no addresses
        if !live.contains(&name) {
            return Err(GateError::no_server(name, live.into_iter()));
        }
        let id = self.find_server_id(name)?;
        let since_ns = now_ns();
        let until_ns = seconds.map_or(0, |seconds| since_ns + seconds * NS_PER_S);
        let row = quarantine { until_ns, since_ns, ..quarantine::default() };
        // The hint first: without it the filter does not look.
        self.write_state(state::STATE_QUARANTINES, 1)?;
        // before and after, so that cached verdicts are outdated even if this is cut short in between
        self.outdate_verdict_cache()?;
        self.maps.quarantines.put(&id, &row, MapFlags::ANY).map_err(|error| match error {
            // as large as the table of servers
            GateError::Kernelside { errno: Errno::E2BIG | Errno::ENOSPC, .. } => GateError::TableFull {
                table: "servers",
                size: self.maps.quarantines.capacity(),
                wanted: self.maps.quarantines.capacity() as usize + 1,
            },
            error => error,
        })?;
        self.outdate_verdict_cache()
    }

    /// Ends a quarantine, and returns whether there was one. The caller holds the lock.
    ///
    /// # Errors
    /// When no policy has had such a server, or the kernel refuses to write.
    pub fn release(&self, name: &str) -> Result<bool, GateError> {
        let id = self.find_server_id(name)?;
        self.outdate_verdict_cache()?;
        let removed = self.maps.quarantines.remove(&id)?;
        let now = now_ns();
        for (id, row) in self.maps.quarantines.entries()? {
            if row.until_ns != 0 && row.until_ns <= now {
                self.maps.quarantines.remove(&id)?;
            }
        }
        if self.maps.quarantines.entries()?.is_empty() {
            self.write_state(state::STATE_QUARANTINES, 0)?;
        }
        // also when there was none: a release that was cut short may have ended it
        self.outdate_verdict_cache()?;
        Ok(removed)
    }
}
