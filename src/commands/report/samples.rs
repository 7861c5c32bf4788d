//! Raw samples, as hex and as characters.

use std::fmt::Write as _;
use std::net::IpAddr;

use maud::{Markup, html};

use super::text::ForeignText;
use super::totals::NO_SERVER;
use crate::history::SampleRow;

/// Bytes of a line.
const LINE_BYTES: usize = 16;

/// One sample, folded until a reader opens it.
pub(super) fn render(sample: &SampleRow) -> Markup {
    let address = |ip: Option<IpAddr>| ip.map_or("?".to_owned(), |ip| ip.to_string());
    html! {
        details.sample {
            summary {
                time { (sample.time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()) }
                " " b { (ForeignText(sample.server.as_deref().unwrap_or(NO_SERVER))) }
                " " (address(sample.source)) " → " (address(sample.destination))
                " " code { (ForeignText(&sample.service)) }
                " " (ForeignText(&sample.reason))
                " " i { @if sample.verdict == "would_drop" { "would drop" } }
            }
            p.note {
                @if sample.frame.len() >= 256 { "The first 128 bytes of the frame" } @else { "The whole frame" }
                @if let Some(length) = sample.length { ", " (length) " bytes" }
            }
            pre { (dump(&decode(&sample.frame))) }
        }
    }
}

/// The bytes of hex digits, up to the first character that is none.
fn decode(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map_while(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(LINE_BYTES).enumerate() {
        let mut hex = String::new();
        for (index, byte) in chunk.iter().enumerate() {
            let gap = if index == LINE_BYTES / 2 { "  " } else { " " };
            let _ = write!(hex, "{gap}{byte:02x}");
        }
        let plain: String = chunk
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        let width = 3 * LINE_BYTES + 1;
        let _ = writeln!(text, "{:04x} {hex:<width$}  {plain}", line * LINE_BYTES);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_offsets_bytes_and_harmless_characters() {
        let bytes = decode("3c7363726970743e00ff1b5b324a2641420d0a");
        let text = html! { (dump(&bytes)) }.into_string();
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
