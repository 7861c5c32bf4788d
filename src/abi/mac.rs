//! MACs as the maps have them: one number, the first byte in bits 40 to 47.

/// The number of a MAC.
pub fn to_mac_number(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The MAC of a number. `None` for 0, which is no MAC.
pub fn from_mac_number(number: u64) -> Option<[u8; 6]> {
    let [_, _, mac @ ..] = number.to_be_bytes();
    (number != 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_a_number_with_its_first_byte_in_front() {
        let mac = [2, 0, 0, 0, 0, 0xfe];
        assert_eq!(to_mac_number(mac), 0x0200_0000_00fe);
        assert_eq!(from_mac_number(0x0200_0000_00fe), Some(mac));
        assert_eq!(from_mac_number(0), None);
    }
}
