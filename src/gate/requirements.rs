//! Requirements of the gate: capabilities of the process, features of the kernel. They are checked
//! first, so that the message names the missing one and not the EPERM of a system call.

use std::fs;

use super::error::GateError;

/// Numbers of linux/capability.h, and what they are called.
const CAPABILITIES: [(u32, &str); 2] = [
    (12, "the capability CAP_NET_ADMIN"),
    // CAP_BPF and CAP_PERFMON are not enough: maps are opened by id
    (21, "the capability CAP_SYS_ADMIN"),
];

/// Refuses a process without the privileges that the gate needs, and a kernel that is too old.
///
/// # Errors
/// Names what is missing.
pub fn check_requirements() -> Result<(), GateError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    for (bit, missing) in CAPABILITIES {
        if effective & (1 << bit) == 0 {
            let missing = if nix::unistd::geteuid().is_root() { missing } else { "root" };
            return Err(GateError::Privilege { missing });
        }
    }
    check_kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// Linux 6.1 is the oldest that has `bpf_loop`, multi-buffer XDP and all helpers in use.
fn check_kernel(release: &str) -> Result<(), GateError> {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 1) => {
            Err(GateError::Kernel { release: release.trim().to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_1_are_refused() {
        assert!(check_kernel("5.15.0-91-generic\n").is_err());
        assert!(check_kernel("6.0.12").is_err());
        assert!(check_kernel("6.1.0-18-amd64").is_ok());
        assert!(check_kernel("6.18.44").is_ok());
        assert!(check_kernel("7.0").is_ok());
        assert!(check_kernel("unreadable").is_ok());
    }
}
