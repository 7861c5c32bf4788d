//! MAC addresses as they are printed.

/// A MAC as it is printed everywhere.
pub fn show_mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
