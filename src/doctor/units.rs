//! What attaches the gate at boot, where systemd does.

use std::path::Path;

use super::{Finding, FindingId};

/// Folders of units that an administrator or a package has enabled.
const ENABLED: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitFacts {
    has_gate: bool,
    has_guard: bool,
}

/// Looks which units are enabled.
///
/// # Errors
/// A sentence, where systemd does not run this machine.
pub(super) fn gather(root: &Path, interface: &str) -> Result<UnitFacts, &'static str> {
    if !root.join("run/systemd/system").is_dir() {
        return Err("systemd does not run this machine, so no unit attaches the gate at boot");
    }
    let is_enabled = |unit: &str| {
        let name = format!("{unit}@{}.service", escape_unit(interface));
        let wants = ENABLED.iter().filter_map(|folder| std::fs::read_dir(root.join(folder)).ok());
        let wants = wants.flatten().flatten().map(|entry| entry.path());
        wants
            .filter(|path| path.extension().is_some_and(|end| end == "wants" || end == "requires"))
            .any(|path| path.join(&name).symlink_metadata().is_ok())
    };
    // the daemon attaches it too, only later
    let has_gate = is_enabled("portcullis-gate") || is_enabled("portcullis");
    Ok(UnitFacts { has_gate, has_guard: is_enabled("portcullis-guard") })
}

/// As systemd-escape(1) does, for names of interfaces.
fn escape_unit(interface: &str) -> String {
    let escape = |(at, byte): (usize, u8)| match byte {
        b'.' if at == 0 => format!("\\x{byte:02x}"),
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    interface.bytes().enumerate().map(escape).collect()
}

pub(super) fn judge(units: &UnitFacts, interface: &str) -> Vec<Finding> {
    let finding = |id, text, unit: &str| Finding {
        id,
        about: format!("{unit}@{interface}.service"),
        text,
        remedy: format!("systemctl enable {unit}@{interface}.service"),
    };
    match units {
        UnitFacts { has_gate: false, .. } => vec![finding(
            FindingId::NotAtBoot,
            format!("no unit is enabled that attaches the gate to {interface} at boot"),
            "portcullis-gate",
        )],
        UnitFacts { has_gate: true, has_guard: false } => vec![finding(
            FindingId::NoGuard,
            format!("no unit is enabled that guards {interface} until its gate is attached"),
            "portcullis-guard",
        )],
        UnitFacts { has_gate: true, has_guard: true } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn enable(root: &Path, target: &str, unit: &str) {
        let folder = root.join("etc/systemd/system").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(unit), "").unwrap();
    }

    #[test]
    fn a_gate_without_unit_or_without_guard_is_found_and_one_with_both_is_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(gather(root, "dmz-0").is_err(), "no systemd");
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
        let ids = || {
            let found = judge(&gather(root, "dmz-0").unwrap(), "dmz-0");
            found.iter().map(|finding| finding.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(), [FindingId::NotAtBoot]);
        enable(root, "multi-user.target.wants", "portcullis-gate@other.service");
        assert_eq!(ids(), [FindingId::NotAtBoot], "of another interface");
        enable(root, "dmz.device.wants", "portcullis-gate@dmz\\x2d0.service");
        assert_eq!(ids(), [FindingId::NoGuard]);
        enable(root, "multi-user.target.wants", "portcullis-guard@dmz\\x2d0.service");
        assert_eq!(ids(), []);
    }
}
