//! The processes above this one, as `/proc` has them.

use std::fs;

use serde::{Deserialize, Serialize};

/// More than any session has.
const MOST_ANCESTORS: usize = 32;

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
}

/// The parent first.
pub fn list_ancestors() -> Vec<Process> {
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

/// What `read` makes of the variable `SSH_CONNECTION`: of this process, or else of the nearest of its `ancestors`
/// where it makes anything of it. `sudo` takes the variable from the environment, and the shell before it has it.
pub fn find_ssh_connection<T>(ancestors: &[Process], read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let own = std::env::var("SSH_CONNECTION").ok().and_then(|text| read(&text));
    own.or_else(|| {
        ancestors.iter().find_map(|ancestor| {
            let environment = fs::read(format!("/proc/{}/environ", ancestor.pid)).ok()?;
            find_in_environment(&environment, &read)
        })
    })
}

pub(super) fn find_in_environment<T>(environment: &[u8], read: impl Fn(&str) -> Option<T>) -> Option<T> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|variable| read(std::str::from_utf8(variable.strip_prefix(b"SSH_CONNECTION=")?).ok()?))
}
