//! Flags of the TCP header, as in its 14th byte.

use thiserror::Error;

/// The sender sends no more.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Ends a connection at once.
pub const RST: u8 = 0x04;
/// The receiver is to have the data at once.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

/// The letters of the flags, in the order of their bits.
const LETTERS: [(char, u8); 6] = [('F', FIN), ('S', SYN), ('R', RST), ('P', PSH), ('A', ACK), ('U', URG)];

/// A letter that stands for no flag.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no TCP flag\nhelp: write letters of FSRPAU, as in SA")]
pub struct UnknownFlag(pub char);

/// Flags from their letters, in any order and case: F S R P A U.
///
/// # Errors
/// The first letter that is none of these.
pub fn parse_flags(text: &str) -> Result<u8, UnknownFlag> {
    text.chars().try_fold(0, |flags, letter| {
        let known = LETTERS.iter().find(|(known, _)| *known == letter.to_ascii_uppercase());
        known.map(|(_, flag)| flags | flag).ok_or(UnknownFlag(letter))
    })
}

/// The letters that [`parse_flags`] takes; flags that have none are left out.
pub fn show_flags(flags: u8) -> String {
    LETTERS.iter().filter(|(_, flag)| flags & flag != 0).map(|(letter, _)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_letters() {
        assert_eq!(parse_flags("SA"), Ok(SYN | ACK));
        assert_eq!(parse_flags("sa"), Ok(0x12));
        assert_eq!(parse_flags(""), Ok(0));
        assert_eq!(parse_flags("sx"), Err(UnknownFlag('x')));
        assert_eq!(show_flags(0x12), "SA");
        assert_eq!(show_flags(0xc2), "S", "the two bits of ECN have no letters");
        assert_eq!(show_flags(0), "");
    }

    #[test]
    fn each_flag_has_one_letter_that_leads_back_to_it() {
        for bit in 0..6 {
            let letter = show_flags(1 << bit);
            assert_eq!((letter.len(), parse_flags(&letter)), (1, Ok(1 << bit)));
        }
    }
}
