//! Raw samples, as hex and as characters.

use std::fmt::Write as _;

use super::tally::html;
use crate::history::SampleRow;

/// Bytes of a line.
const ACROSS: usize = 16;

/// One sample, folded away until somebody wants to see it.
pub fn render(sample: &SampleRow) -> String {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or("?".to_owned(), |ip| ip.to_string());
    let length = sample.length.map_or(String::new(), |length| format!(", {length} bytes"));
    format!(
        "<details class=\"sample\"><summary><time>{}</time> <b>{}</b> {} → {} <code>{}</code> {} <i>{}</i></summary>\
         <p class=\"note\">{} of the frame{length}</p><pre>{}</pre></details>\n",
        html(&sample.time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()),
        html(sample.server.as_deref().unwrap_or(super::tally::NOBODY)),
        html(&address(sample.source)),
        html(&address(sample.destination)),
        html(&sample.service),
        html(&sample.reason),
        html(if sample.verdict == "would_drop" { "would drop" } else { "" }),
        if sample.frame.len() >= 256 { "The first 128 bytes" } else { "All" },
        html_dump(&decode(&sample.frame))
    )
}

/// Bytes of hex digits; what is none ends it.
fn decode(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map_while(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn html_dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(ACROSS).enumerate() {
        let mut hex = String::new();
        for (index, byte) in chunk.iter().enumerate() {
            let gap = if index == ACROSS / 2 { "  " } else { " " };
            let _ = write!(hex, "{gap}{byte:02x}");
        }
        let plain: String = chunk
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        // a backslash is one here: nothing in this text needs to be spelled out
        let plain = plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(text, "{:04x} {hex:<width$}  {plain}", line * ACROSS, width = 3 * ACROSS + 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_offsets_bytes_and_harmless_characters() {
        let bytes = decode("3c7363726970743e00ff1b5b324a2641420d0a");
        let text = html_dump(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "0000  3c 73 63 72 69 70 74 3e  00 ff 1b 5b 32 4a 26 41  &lt;script&gt;...[2J&amp;A"
        );
        assert!(lines[1].starts_with("0010  42 0d 0a ") && lines[1].ends_with("  B.."));
        assert!(decode("zz").is_empty());
        assert_eq!(decode("abc"), [0xab]);
    }
}
