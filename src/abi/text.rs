//! Text in fields of a fixed size, as `struct name` and `struct settings` have it.

/// The text before the first NUL. Bytes that are not UTF-8 are replaced.
pub fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The text, filled up with NULs. It is cut where it would leave no room for one.
pub fn write_text<const BYTES: usize>(text: &str) -> [u8; BYTES] {
    let mut field = [0; BYTES];
    for (to, from) in field.iter_mut().zip(text.bytes()).take(BYTES.saturating_sub(1)) {
        *to = from;
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_as_it_went_in_and_a_long_one_is_cut() {
        assert_eq!(write_text::<4>("abc"), *b"abc\0");
        assert_eq!(write_text::<4>("abcd"), *b"abc\0");
        assert_eq!(read_text(&write_text::<8>("web1")), "web1");
        assert_eq!(read_text(b"full"), "full");
        assert_eq!(read_text(b""), "");
    }
}
