//! MAC addresses as they are written and printed.

/// A MAC as it is printed everywhere: six pairs of lower-case hexadecimal digits with `:` between them.
pub fn show_mac(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A MAC in the notation of IEEE 802, which the Elastic Common Schema wants: upper case and hyphens.
pub fn show_mac_ieee(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02X}")).join("-")
}

/// Parses a MAC: six pairs of hexadecimal digits, separated by `:` or `-`, but not by both.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut parts = text.split(separator);
    let mut mac = [0; 6];
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        // `from_str_radix` would take a sign as well.
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Whether a NIC may have this MAC as its own: neither a group's nor all zeros.
pub fn is_host_mac(mac: &[u8; 6]) -> bool {
    mac[0] & 1 == 0 && *mac != [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_may_use_colons_or_hyphens_but_no_mixture() {
        assert_eq!(parse_mac("02:00:5e:00:00:1F"), Some([2, 0, 0x5e, 0, 0, 0x1f]));
        assert_eq!(
            parse_mac("02-00-5E-00-00-1f").map(|mac| show_mac(&mac)).as_deref(),
            Some("02:00:5e:00:00:1f")
        );
        assert_eq!(show_mac_ieee(&[2, 0, 0x5e, 0, 0, 0x1f]), "02-00-5E-00-00-1F");
        for text in [
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "02:00-00:00:00:00",
            "0200.0000.0010",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "+2:00:00:00:00:00",
            "é:00:00:00:00:00",
            "",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }

    #[test]
    fn groups_and_zeros_are_no_hosts() {
        assert!(is_host_mac(&[2, 0, 0, 0, 0, 1]));
        for mac in [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0; 6]] {
            assert!(!is_host_mac(&mac), "{mac:?}");
        }
    }
}
