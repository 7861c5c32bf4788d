//! Row 4, where the form of an address does not tell whether a packet stays on the link: the routing
//! table does. A namespace of its own holds a router's two NICs; nothing is attached.

use std::net::IpAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use portcullis::abi::Reason;
use portcullis::gate::Verdict;

use crate::support::dmz::{V6, ip};
use crate::support::frame::{ICMPV6, Ipv6, icmp_message};
use crate::support::test_gate::TestGate;

fn solicitation(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let message = icmp_message(from, to, (135, 0), [0; 4], &[0xfe; 16]);
    Ipv6::new(from, to, ICMPV6, &message).hop_limit(255).frame()
}

/// Runs `ip` with these words, in the namespace of the thread.
fn run_ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().expect("ip, of iproute2");
    assert!(status.success(), "ip {words}");
}

/// In the namespace of the thread, whose own /proc/sys/net shows.
fn set_forwarding(value: &str) {
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", value).expect("forwarding");
}

/// A router in a namespace that is gone with the thread: the number of its NIC in front of the servers.
fn build_router() -> u32 {
    unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
    run_ip("link add dmz0 type veth peer name dmz1");
    run_ip("link add wan0 type veth peer name wan1");
    for nic in ["lo", "dmz0", "dmz1", "wan0", "wan1"] {
        run_ip(&format!("link set {nic} up"));
    }
    run_ip("address add 2001:db8:1::1/64 dev dmz0 nodad");
    run_ip("address add 2001:db8:ffff::1/64 dev wan0 nodad");
    run_ip("-6 neighbour add 2001:db8:1::77 lladdr 02:00:00:00:00:77 dev dmz0 nud permanent");
    run_ip("-6 neighbour add 2001:db8:ffff::2 lladdr 02:00:00:00:00:02 dev wan0 nud permanent");
    run_ip("-6 route add default via 2001:db8:ffff::2");
    // more specific than the link's own prefix: these leave by the other NIC, or not at all
    run_ip("-6 route add 2001:db8:1:0:a::/80 via 2001:db8:ffff::2");
    run_ip("-6 route add blackhole 2001:db8:1:0:b::/80");
    run_ip("-6 route add unreachable 2001:db8:1:0:c::/80");
    run_ip("-6 route add prohibit 2001:db8:1:0:d::/80");
    // what one of the servers sends there goes another way
    run_ip("-6 route add 2001:db8:1:0:e::/80 via 2001:db8:ffff::2 table 100");
    run_ip(&format!("-6 rule add from {} lookup 100", V6.ns));
    set_forwarding("1");
    nix::net::if_::if_nametoindex("dmz0").expect("a number")
}

#[test]
fn a_solicitation_passes_where_the_routing_table_keeps_it_and_nowhere_else() {
    let gate = TestGate::dmz();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let nic = build_router();
            let ask = |from: IpAddr, to: &str| {
                let answer = gate.explain(&solicitation(from, ip(to)), false, Some(nic)).unwrap();
                (answer.verdict, answer.reason)
            };
            let stays = (Verdict::Pass, Some(Reason::Neighbour));
            let leaves = (Verdict::Drop, Some(Reason::NewFlow));
            let known = "2001:db8:1::77";
            let (unknown, own) = ("2001:db8:1::78", "2001:db8:1::1");
            let [away, blackhole, unreachable, prohibited, elsewhere] =
                ["a", "b", "c", "d", "e"].map(|part| format!("2001:db8:1:0:{part}::1"));

            for to in [known, unknown, own, &blackhole, &unreachable, &prohibited] {
                assert_eq!(ask(V6.web, to), stays, "{to}");
            }
            assert_eq!(ask(V6.web, &away), leaves);
            // the source decides as well
            assert_eq!(ask(V6.web, &elsewhere), stays);
            assert_eq!(ask(V6.ns, &elsewhere), leaves);
            // another network, whatever the table says
            assert_eq!(ask(V6.web, "2001:db8:2::1"), leaves);
            // a host that forwards nothing
            set_forwarding("0");
            assert_eq!(ask(V6.web, &away), stays);
        });
    });
}
