//! The processes above this one, as `/proc` has them.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// More than any session has.
const MOST_ANCESTORS: usize = 32;
/// More than an environment has before the variable that counts.
const MOST_ENVIRONMENT: u64 = 64 << 10;

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
}

/// The parent first.
pub(super) fn list_ancestors() -> Vec<Process> {
    let mut ancestors = Vec::new();
    let mut next = read_parent("self");
    while let Some(pid) = next.filter(|pid| *pid > 1 && ancestors.len() < MOST_ANCESTORS) {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        ancestors.push(Process { pid, name });
        next = read_parent(&pid.to_string());
    }
    ancestors
}

fn read_parent(process: &str) -> Option<u32> {
    let status = fs::read(format!("/proc/{process}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The client that `sshd` has given a process in its environment.
pub(super) fn read_ssh_client(pid: u32) -> Option<IpAddr> {
    let mut environment = Vec::new();
    File::open(format!("/proc/{pid}/environ"))
        .ok()?
        .take(MOST_ENVIRONMENT)
        .read_to_end(&mut environment)
        .ok()?;
    find_ssh_client(&environment)
}

pub(super) fn find_ssh_client(environment: &[u8]) -> Option<IpAddr> {
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))?;
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}
