//! The name of this machine. Every event has it, because many gates may report to one place.

/// The host's name, as it was when the process first asked.
#[cfg(not(test))]
pub fn host_name() -> &'static str {
    use std::sync::OnceLock;

    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match text.trim() {
            "" => "localhost".to_owned(),
            name => name.to_owned(),
        }
    })
}

/// The host's name in the tests of every part that reports.
#[cfg(test)]
pub fn host_name() -> &'static str {
    "gate.example"
}
