//! ICMP: errors whose quotes are forged, and answers to nothing.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, passes, web};
use crate::support::dmz::{Family, V4, V6, ip};
use crate::support::frame::{
    ACK, ICMPV6, Ipv6, SYN, TCP, UDP, echo_reply, echo_request, icmp, icmp_message, packet, raw_ip,
    tcp_header, udp_datagram, unreachable,
};

classes! {
    an_error_is_believed_only_by_the_packet_that_it_quotes: "ICMP errors with forged quotes", list_quotes;
    a_message_that_carries_a_message_is_a_channel: "ICMP tunnels", list_messages;
    what_only_the_link_needs_stays_on_the_link: "Neighbour discovery as a way out", list_neighbours;
}

/// The peer's segment, as an error would quote it.
fn quoted(family: Family, protocol: u8) -> Vec<u8> {
    let (server, peer) = web(family);
    let content = match protocol {
        TCP => tcp_header(peer, server, ACK, (1, 1)),
        _ => udp_datagram(peer, server, b""),
    };
    packet(peer.0, server.0, protocol, &content)
}

fn open(family: Family) -> Script {
    let (server, peer) = web(family);
    Script::default().handshake(server, peer)
}

fn error(family: Family, quote: &[u8]) -> Vec<u8> {
    unreachable(family.web, family.peer, quote)
}

fn list_quotes() -> Vec<Row> {
    vec![
        Row::both("about a segment of an open connection", |family| {
            open(family).passes(error(family, &quoted(family, TCP)), Reason::FlowError)
        }),
        Row::both("about a connection that there is not", |family| {
            drops(error(family, &quoted(family, TCP)), Reason::Backscatter)
        }),
        Row::both("to somebody else than the sender of the quote", |family| {
            open(family)
                .drops(unreachable(family.web, family.other, &quoted(family, TCP)), Reason::Backscatter)
        }),
        Row::both("from another server than the quote was for", |family| {
            open(family).drops(unreachable(family.ns, family.peer, &quoted(family, TCP)), Reason::Backscatter)
        }),
        Row::both("quoting another protocol", |family| {
            open(family).drops(error(family, &quoted(family, UDP)), Reason::Backscatter)
        }),
        Row::both("quoting the server's own packet", |family| {
            let (server, peer) = web(family);
            let own = packet(server.0, peer.0, TCP, &tcp_header(server, peer, SYN, (1, 1)));
            open(family).drops(error(family, &own), Reason::Backscatter)
        }),
        Row::both_many("a quote cut off before its ports", |family| {
            let quote = quoted(family, TCP);
            let ip = quote.len() - 20;
            (0..ip + 8)
                .map(|length| open(family).drops(error(family, &quote[..length]), Reason::Backscatter))
                .collect()
        }),
        Row::both("a quote of the other family", |family| {
            let other = if family.web.is_ipv4() { V6 } else { V4 };
            open(family).drops(error(family, &quoted(other, TCP)), Reason::Backscatter)
        }),
        Row::both("an error about an error", |family| {
            let inner = error(family, &quoted(family, TCP));
            open(family).drops(error(family, &inner[14..]), Reason::Backscatter)
        }),
    ]
}

fn list_messages() -> Vec<Row> {
    let known = |family: Family, kind: u8| match family.ns.is_ipv4() {
        true => [0, 3, 4, 5, 9, 11, 12, 14, 16, 18, 43].contains(&kind),
        false => [1, 2, 3, 4, 129, 131, 132, 133, 134, 135, 136, 137, 140, 143, 161].contains(&kind),
    };
    vec![
        Row::both("an echo reply to who asked", |family| {
            Script::default()
                .comes(echo_request(family.peer, family.web, 7))
                .passes(echo_reply(family.web, family.peer, 7), Reason::Reply)
        }),
        Row::both("an echo reply to who did not ask", |family| {
            drops(echo_reply(family.web, family.peer, 7), Reason::NewFlow)
        }),
        Row::both("an echo reply with another identifier", |family| {
            Script::default()
                .comes(echo_request(family.peer, family.web, 7))
                .drops(echo_reply(family.web, family.peer, 8), Reason::NoFlow)
        }),
        Row::both("an echo reply from a server that must not answer pings", |family| {
            drops(echo_reply(family.ns, family.peer, 7), Reason::Backscatter)
        }),
        Row::both("an echo request that carries a megabyte a day", |family| {
            drops(echo_request(family.web, family.peer, 7), Reason::NewFlow)
        }),
        Row::both_many("every type that is neither an error, an answer nor the link's", |family| {
            (0..=255)
                .filter(|kind| !known(family, *kind))
                .map(|kind| drops(icmp(family.ns, family.peer, (kind, 0), [0; 4], &[0; 32]), Reason::NewFlow))
                .collect()
        }),
        Row::both("the ICMP of the other family", |family| {
            let other = if family.ns.is_ipv4() { ICMPV6 } else { 1 };
            let message = [128, 0, 0, 0, 0, 7, 0, 1];
            drops(raw_ip(family.ns, family.peer, other, &message), Reason::Protocol)
        }),
        Row::both("a redirect or router advertisement", |family| {
            let kinds = if family.ns.is_ipv4() { [5, 9] } else { [137, 134] };
            kinds.iter().fold(Script::default(), |script, kind| {
                script.drops(icmp(family.ns, family.peer, (*kind, 0), [0; 4], &[0; 32]), Reason::RogueRouter)
            })
        }),
    ]
}

fn list_neighbours() -> Vec<Row> {
    let message = |from: &str, to: &str, kind: u8, hops: u8| {
        let (from, to) = (ip(from), ip(to));
        let content = icmp_message(from, to, (kind, 0), [0; 4], &[0; 24]);
        Ipv6::new(from, to, ICMPV6, &content).hop_limit(hops)
    };
    let (near, group) = ("fe80::10", "ff02::1:ff00:1");
    vec![
        Row::v6("a solicitation on the link", {
            passes(message(near, group, 135, 255).frame(), Reason::Neighbour)
        }),
        Row::many("with any other hop limit", "6", {
            (0..255)
                .map(|hops| drops(message(near, group, 135, hops).frame(), Reason::UnknownSource))
                .collect()
        }),
        Row::v6("from a server to a host of the internet", {
            drops(message("2001:db8:1::10", "2001:db8:50::50", 135, 255).frame(), Reason::NewFlow)
        }),
        Row::v6("to a group of wider scope", {
            drops(message("2001:db8:1::10", "ff0e::1", 136, 255).frame(), Reason::NewFlow)
        }),
        Row::v6("in fragments", {
            drops(message(near, group, 135, 255).fragment(7, 0, true).frame(), Reason::UnknownSource)
        }),
        Row::many("a listener report with any hop limit but 1", "6", {
            (2..=255)
                .map(|hops| drops(message(near, "ff02::16", 143, hops).frame(), Reason::UnknownSource))
                .collect()
        }),
        Row::v6("a router advertisement behind options (RA guard evasion)", {
            let packet = message(near, "ff02::1", 134, 255).options(60, 3);
            drops(packet.frame(), Reason::RogueRouter)
        }),
    ]
}
