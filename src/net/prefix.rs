//! Addresses and prefixes as they are printed.

use ipnet::IpNet;

/// A prefix as people write it: without `/32` or `/128`.
pub fn show_prefix(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_without_its_length() {
        let show = |text: &str| show_prefix(&text.parse().unwrap());
        assert_eq!(show("192.0.2.1/32"), "192.0.2.1");
        assert_eq!(show("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(show("2001:DB8:0::1/128"), "2001:db8::1");
        assert_eq!(show("2001:DB8:0::/64"), "2001:db8::/64");
    }
}
