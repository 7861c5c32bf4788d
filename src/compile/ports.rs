//! Ranges of ports as prefixes, for a trie.

/// Bits of a port.
const PORT_BITS: u32 = 16;

/// Aligned blocks that make up a range of ports: first port and bits that count.
pub(super) fn cut_into_blocks(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let end = u32::from(last) + 1;
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        // the largest block that begins here and does not reach beyond the end
        let aligned = if next == 0 { PORT_BITS } else { next.trailing_zeros() };
        let bits = aligned.min((end - next).ilog2());
        let block = (next as u16, PORT_BITS - bits);
        next += 1 << bits;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(first: u16, last: u16) {
        let mut next = u32::from(first);
        for (port, bits) in cut_into_blocks(first, last) {
            assert_eq!(u32::from(port), next, "{first}-{last}");
            let size = 1_u32 << (PORT_BITS - bits);
            assert_eq!(next % size, 0, "{first}-{last}: {port}/{bits} is not aligned");
            next += size;
        }
        assert_eq!(next, u32::from(last) + 1, "{first}-{last}");
    }

    #[test]
    fn blocks_of_a_port_range_cover_it_exactly() {
        for (first, last) in [
            (0, 65535),
            (0, 0),
            (65535, 65535),
            (1, 65535),
            (0, 65534),
            (1024, 65535),
            (137, 138),
            (1, 2),
            (32767, 32768),
        ] {
            covers(first, last);
        }
    }

    #[test]
    fn every_port_is_one_block() {
        assert_eq!(cut_into_blocks(0, 65535).collect::<Vec<_>>(), [(0, 0)]);
    }
}
