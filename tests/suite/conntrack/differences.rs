//! Where both judges differ, and rightly so: each with the row of docs/verdicts.md that says why, and with the
//! story that shows it.

use super::case::{Case, Who};
use super::examples as example;
use super::story::{Side, Source, Story};

/// A difference that the documentation explains.
pub struct Known {
    pub name: &'static str,
    /// Who lets the packet through, while the other one holds it.
    pub passes: Who,
    /// Words of docs/verdicts.md.
    pub row: &'static str,
    pub explains: fn(&Case<'_>) -> bool,
    pub example: fn() -> Story,
}

pub const KNOWN_DIFFERENCES: &[Known] = &[
    // ---- fragments -------------------------------------------------------------
    Known {
        name: "fragments towards a server go on one by one",
        passes: Who::Gate,
        row: "It never judges packets towards your servers.",
        explains: |case| case.event().from == Side::Peer && case.is_ragged(),
        example: example::half_a_datagram_arrives,
    },
    Known {
        name: "fragments of a server follow their first one, whether a receiver gets the whole or not",
        passes: Who::Gate,
        row: "A later fragment. Its first fragment, with the same addresses, protocol and id, passed within 30 s",
        explains: |case| case.event().from == Side::Server && case.is_ragged() && case.follows_first(),
        example: example::half_a_datagram_leaves,
    },
    Known {
        name: "a fragment before its first one",
        passes: Who::Conntrack,
        row: "Any other later fragment.",
        explains: |case| case.event().from == Side::Server && case.is_early_fragment(),
        example: example::fragments_are_reversed,
    },
    Known {
        name: "a first fragment without all headers",
        passes: Who::Conntrack,
        row: "A first fragment without its whole header chain. A TCP fragment that begins at byte 8.",
        explains: |case| case.event().from == Side::Server && case.is_tiny_fragment(),
        example: example::the_first_fragment_is_tiny,
    },
    Known {
        name: "a fragment whose bytes don't fill eights",
        passes: Who::Conntrack,
        row: "A fragment before the last one whose data is no multiple of 8 bytes.",
        explains: |case| case.event().from == Side::Server && case.is_odd_fragment(),
        example: example::a_fragment_is_odd,
    },
    Known {
        name: "a first fragment before the question, and the last one after it",
        passes: Who::Conntrack,
        row: "A later fragment whose first fragment was dropped.",
        explains: |case| case.event().from == Side::Server && case.is_fragment_before_opening(),
        example: example::a_fragment_comes_before_the_question,
    },
    // ---- what needs permit -----------------------------------------------------
    Known {
        name: "a SYN+ACK after SYNs that have crossed",
        passes: Who::Gate,
        row: "They pass after a SYN of the server's own",
        explains: |case| case.is_syn_ack() && case.is_needed() && case.has_sent_syn(),
        example: example::two_syns_cross,
    },
    Known {
        name: "a SYN+ACK with URG, to a port that a need permits",
        passes: Who::Gate,
        row: "Another TCP segment, to the port and destination of an `out` need or of an edit.",
        explains: |case| case.is_syn_ack() && case.is_needed() && case.has_flags_that_conntrack_refuses(),
        example: example::a_syn_ack_is_urgent,
    },
    Known {
        name: "a SYN+ACK to a port that a need permits, after an opening that only the tracker takes for one",
        passes: Who::Conntrack,
        row: "one in a flow that a peer opened, and one to a peer that sent packets with unreadable ports.",
        // the packet with unreadable ports may have been one of an earlier talk of this peer
        explains: |case| case.is_syn_ack() && case.is_needed() && !case.was_opened_properly(),
        example: example::a_ragged_opening_is_answered,
    },
    // ---- errors ----------------------------------------------------------------
    Known {
        name: "an error about a need's connection, without its flow",
        passes: Who::Gate,
        row: "An ICMP error that quotes a packet of a flow of 9 or 10",
        explains: |case| case.is_error_about_need(),
        example: example::an_error_about_nothing,
    },
    Known {
        name: "an error with too little of a quote",
        passes: Who::Conntrack,
        row: "with at least 8 bytes of its payload.",
        explains: |case| case.quotes_little(),
        example: example::an_error_quotes_too_little,
    },
    Known {
        name: "an error from another than the quoted packet went to",
        passes: Who::Conntrack,
        row: "The sender of the error is the address that the quoted packet went to.",
        explains: |case| {
            let foreign = matches!(case.event().manner.source, Source::Server(_));
            case.quote().is_some_and(|quote| foreign || !quote.theirs)
        },
        example: example::an_error_of_another_server,
    },
    // ---- answers ---------------------------------------------------------------
    Known {
        name: "flags that conntrack refuses in a flow",
        passes: Who::Gate,
        row: "TCP without SYN, ACK, RST or FIN. TCP with SYN+FIN, with SYN+RST, or with FIN but without ACK.",
        explains: |case| case.is_answer() && case.has_flags_that_conntrack_refuses(),
        example: example::odd_flags,
    },
    Known {
        name: "an opening that only the tracker takes for one",
        passes: Who::Gate,
        row: "The tracker reads leniently, because a host may accept a packet that the filter would call malformed.",
        explains: |case| (case.is_answer() || case.is_error_about_answer()) && !case.was_opened_properly(),
        example: example::a_crooked_opening,
    },
    Known {
        name: "answers in a flow that was reset before the server had answered",
        passes: Who::Gate,
        row: "Resets end no half-open flow.",
        explains: |case| (case.is_answer() || case.is_error_about_answer()) && case.was_reset_early(),
        example: example::a_reset_before_an_answer,
    },
    Known {
        name: "answers after a peer's new SYN that the router has dropped",
        passes: Who::Gate,
        row: "sees the packets towards your servers at the egress of the same NIC",
        explains: |case| case.is_answer() && case.is_after_lost_syn(Side::Peer),
        example: example::a_new_syn_is_lost,
    },
    Known {
        name: "answers after a server's SYN in a flow that was closed",
        passes: Who::Gate,
        row: "A bare SYN is never an answer.",
        explains: |case| case.is_answer() && case.is_after_lost_syn(Side::Server),
        example: example::a_server_turns_a_connection_round,
    },
    Known {
        name: "a flow that ends sooner in conntrack",
        passes: Who::Gate,
        row: "Idle flows end much as in nf_conntrack",
        explains: |case| case.is_answer() && case.was_opened_properly() && case.lives_at_gate_alone(),
        example: example::a_peer_resets,
    },
    Known {
        name: "a flow that ends sooner at the gate",
        passes: Who::Conntrack,
        row: "Idle flows end much as in nf_conntrack",
        explains: |case| case.is_answer() && case.was_opened_properly() && case.lives_at_conntrack_alone(),
        example: example::a_server_resets_wrongly,
    },
    Known {
        name: "a FIN instead of a SYN+ACK",
        passes: Who::Gate,
        row: "Any other segment passes in a flow, whatever its flags and sequence numbers.",
        explains: |case| case.is_answer() && case.is_early_fin(),
        example: example::a_fin_before_the_handshake,
    },
    Known {
        name: "a reset with an old sequence number",
        passes: Who::Gate,
        row: "Any other segment passes in a flow, whatever its flags and sequence numbers.",
        explains: |case| case.is_answer() && case.is_old_reset(),
        example: example::an_old_reset,
    },
    Known {
        name: "an answer to a ping with another code",
        passes: Who::Gate,
        row: "The gate does not compare ICMP codes.",
        explains: |case| (case.is_answer() || case.is_error_about_answer()) && case.has_new_code(),
        example: example::a_reply_with_another_code,
    },
    // ---- headers ---------------------------------------------------------------
    Known {
        name: "chains of extension headers that the gate does not read",
        passes: Who::Conntrack,
        row: "An IPv6 extension chain of more than 8 headers, out of bounds, with hop-by-hop options elsewhere than \
              first, or with two fragment headers.",
        explains: |case| case.has_bad_chain(),
        example: example::options_in_the_wrong_place,
    },
    Known {
        name: "source routes that have come to their end, which nft does not see",
        passes: Who::Conntrack,
        row: "An IPv4 loose or strict source route.",
        explains: |case| case.has_finished_source_route(),
        example: example::a_finished_source_route,
    },
];
