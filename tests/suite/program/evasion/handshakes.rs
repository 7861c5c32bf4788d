//! TCP from the wrong end.

use portcullis::abi::Reason;

use super::table::{Row, Script, classes, drops, forbidden, passes, question, web};
use crate::support::frame::{ACK, FIN, PSH, RST, SYN, tcp, tcp_numbered, udp};

classes! {
    a_handshake_turned_round_does_not_leave: "Split handshake, simultaneous open", list_handshakes;
    flags_that_no_stack_sends_do_not_leave: "TCP flags", list_flags;
    an_answer_to_nobodys_question_does_not_leave: "Replies to hosts that never asked", list_unasked;
    a_flow_is_all_of_its_ends: "Neighbours of an open flow", list_neighbours;
}

fn list_handshakes() -> Vec<Row> {
    vec![
        Row::both("the peer's SYN, answered by SYN+ACK", |family| {
            let (server, peer) = web(family);
            Script::default()
                .comes(tcp(peer, server, SYN))
                .passes(tcp(server, peer, SYN | ACK), Reason::Reply)
        }),
        Row::both("split: the peer's SYN, answered by ACK, then by a SYN", |family| {
            let (server, peer) = web(family);
            Script::default()
                .comes(tcp(peer, server, SYN))
                .passes(tcp(server, peer, ACK), Reason::Reply)
                .drops(tcp(server, peer, SYN), Reason::NewFlow)
        }),
        Row::both("simultaneous open: a SYN from each side", |family| {
            let (server, peer) = web(family);
            Script::default().comes(tcp(peer, server, SYN)).drops(tcp(server, peer, SYN), Reason::NewFlow)
        }),
        Row::both("simultaneous open: the server's SYN first", |family| {
            let (server, peer) = web(family);
            drops(tcp(server, peer, SYN), Reason::NewFlow)
                .comes(tcp(peer, server, SYN | ACK))
                .drops(tcp(server, peer, ACK), Reason::NoFlow)
        }),
        Row::both("a SYN within an open connection, with or without data", |family| {
            let (server, peer) = web(family);
            Script::default()
                .handshake(server, peer)
                .drops(tcp(server, peer, SYN | PSH), Reason::NewFlow)
                .drops(tcp(server, peer, SYN), Reason::NewFlow)
        }),
        Row::both("the peer's SYN+ACK, FIN or RST opens nothing", |family| {
            let (server, peer) = web(family);
            [SYN | ACK, FIN | ACK, RST, ACK]
                .iter()
                .fold(Script::default(), |script, flags| script.comes(tcp(peer, server, *flags)))
                .drops(tcp(server, peer, ACK), Reason::NoFlow)
        }),
        Row::both("a SYN+ACK from a port that is no service, to a peer that asked", |family| {
            let (server, peer) = ((family.web, 4444), (family.peer, 51_000));
            Script::default()
                .comes(tcp(peer, server, SYN))
                .drops(tcp(server, peer, SYN | ACK), Reason::UnlistedService)
        }),
        Row::both("a datagram from a port that is no service, to a peer that asked", |family| {
            let (server, peer) = ((family.web, 31_337), (family.peer, 51_000));
            Script::default().comes(udp(peer, server)).drops(udp(server, peer), Reason::UnlistedService)
        }),
    ]
}

fn list_flags() -> Vec<Row> {
    let low = |flags: u8| flags & (SYN | RST | FIN | ACK);
    let bogus = move |flags: &u8| {
        let flags = low(*flags);
        flags == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) || flags & (FIN | ACK) == FIN
    };
    vec![
        Row::both_many("each of the 256, of those that no stack sends, in an open connection", |family| {
            let (server, peer) = web(family);
            let open = Script::default().handshake(server, peer);
            (0..=255)
                .filter(bogus)
                .map(|flags| open.clone().drops(tcp(server, peer, flags), Reason::Malformed))
                .collect()
        }),
        Row::both_many("the others but bare SYN, in an open connection", |family| {
            let (server, peer) = web(family);
            let open = Script::default().handshake(server, peer);
            (0..=255)
                .filter(|flags| !bogus(flags) && flags & (SYN | ACK) != SYN)
                .map(|flags| open.clone().passes(tcp(server, peer, flags), Reason::Reply))
                .collect()
        }),
        Row::both_many("the others but resets and bare SYN, in none", |family| {
            let (server, peer) = web(family);
            (0..=255)
                .filter(|flags| !bogus(flags) && flags & (SYN | ACK) != SYN && flags & RST == 0)
                .map(|flags| drops(tcp(server, peer, flags), Reason::NoFlow))
                .collect()
        }),
        Row::both_many("bare SYN with ECN, URG, PSH: still a SYN", |family| {
            let (server, peer) = web(family);
            (0..=255)
                .filter(|flags| low(*flags) == SYN)
                .map(|flags| drops(tcp(server, peer, flags), Reason::NewFlow))
                .collect()
        }),
    ]
}

fn list_unasked() -> Vec<Row> {
    vec![
        Row::both("UDP from port 53 of a name server to who asked", |family| {
            let (server, peer) = ((family.ns, 53), (family.peer, 40_000));
            Script::default().comes(udp(peer, server)).passes(udp(server, peer), Reason::Reply)
        }),
        Row::both("UDP from port 53 of a name server to who did not (`nmap -g 53`)", |family| {
            drops(udp((family.ns, 53), (family.peer, 40_000)), Reason::NewFlow)
        }),
        Row::both("SYN+ACK, ACK, FIN+ACK from ports 80, 443 and 53", |family| {
            let mut script = Script::default();
            for (host, port) in [(family.web, 80), (family.web, 443), (family.ns, 53)] {
                for flags in [SYN | ACK, ACK, FIN | ACK, PSH | ACK] {
                    script = script.drops(tcp((host, port), (family.peer, 40_000), flags), Reason::NoFlow);
                }
            }
            script
        }),
        Row::both("SYN from ports 20, 53, 80 and 443", |family| {
            [20, 53, 80, 443].iter().fold(Script::default(), |script, port| {
                script.drops(tcp((family.web, *port), (family.peer, 40_000), SYN), Reason::NewFlow)
            })
        }),
        Row::both("a reset from anywhere", |family| {
            drops(tcp((family.web, 80), (family.peer, 40_000), RST), Reason::Backscatter)
                .drops(tcp((family.web, 81), (family.peer, 40_000), RST | ACK), Reason::Backscatter)
        }),
        Row::both("from the management's port to who may not log in", |family| {
            let (server, peer) = ((family.web, 22), (family.peer, 40_000));
            Script::default()
                .comes(tcp(peer, server, SYN))
                .drops(tcp(server, peer, SYN | ACK), Reason::Stranger)
        }),
        Row::both("an ACK towards a port that the server may call, from any port", |family| {
            let (from, to) = question(family);
            passes(tcp(from, to, ACK), Reason::OwnConnection)
        }),
        Row::both("an ACK towards any other port", |family| {
            let (from, to) = forbidden(family);
            drops(tcp(from, to, ACK), Reason::NoFlow)
        }),
    ]
}

fn list_neighbours() -> Vec<Row> {
    let wrong = |what: &'static str, change: fn(crate::support::dmz::Family) -> Vec<u8>, reason| {
        Row::both(what, move |family| {
            let (server, peer) = web(family);
            Script::default().handshake(server, peer).drops(change(family), reason)
        })
    };
    vec![
        Row::both("the flow itself", |family| {
            let (server, peer) = web(family);
            Script::default().handshake(server, peer).passes(tcp(server, peer, PSH | ACK), Reason::Reply)
        }),
        wrong("to another port of the peer", |f| tcp((f.web, 80), (f.peer, 51_001), ACK), Reason::NoFlow),
        wrong("to another peer", |f| tcp((f.web, 80), (f.other, 51_000), ACK), Reason::NoFlow),
        wrong(
            "from another service of the server",
            |f| tcp((f.web, 443), (f.peer, 51_000), ACK),
            Reason::NoFlow,
        ),
        wrong("from another server", |f| tcp((f.ns, 80), (f.peer, 51_000), ACK), Reason::NoFlow),
        wrong("ports exchanged", |f| tcp((f.web, 51_000), (f.peer, 80), ACK), Reason::NoFlow),
        wrong("of UDP", |f| udp((f.web, 80), (f.peer, 51_000)), Reason::NewFlow),
        Row::both(
            "an acknowledgment of a number that the server never sent makes nothing established",
            |family| {
                let (server, peer) = web(family);
                Script::default()
                    .comes(tcp_numbered(peer, server, SYN, (1000, 0)))
                    .passes(tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply)
                    .comes(tcp_numbered(peer, server, ACK, (1001, 9999)))
                    .drops(tcp(server, peer, SYN), Reason::NewFlow)
            },
        ),
    ]
}
