//! Reads the beginning of Ethernet frames that may end anywhere.

use super::ethertype;

/// As many as the programs look through.
const MAX_VLAN_TAGS: usize = 2;
/// Behind two MACs.
pub(crate) const FIRST_ETHERTYPE_AT: usize = 12;

/// Two bytes in network order. `None`: they end before.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Where the EtherType behind the VLAN tags of a frame stands. Tags beyond the second are not looked through.
pub(crate) fn find_ethertype(frame: &[u8]) -> Option<usize> {
    let mut at = FIRST_ETHERTYPE_AT;
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(read_u16(frame, at)?, ethertype::VLAN | ethertype::QINQ) {
            break;
        }
        at += 4;
    }
    Some(at)
}
