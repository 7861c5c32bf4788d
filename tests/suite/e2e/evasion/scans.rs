//! nmap.

use super::attack::{Attack, play};
use crate::e2e::testbed::share_machine;

pub const TEST: &str = "e2e::evasion::scans::no_scan_of_nmap_gets_out";

macro_rules! scan {
    ($args:literal, $shows:literal) => {
        Attack {
            line: concat!("nmap -n -Pn --max-retries 0 --min-rate 200 --host-timeout 3s -e eth0 ", $args),
            shows: $shows,
        }
    };
}

pub const LIST: &[Attack] = &[
    scan!("-sS -p 22,80,445 PEER", "SYN scan"),
    scan!("-sA -p 22,80,445 PEER", "ACK scan"),
    scan!("-sW -p 22,80,445 PEER", "window scan"),
    scan!("-sF -p 22,80,445 PEER", "FIN scan"),
    scan!("-sN -p 22,80,445 PEER", "null scan"),
    scan!("-sX -p 22,80,445 PEER", "Xmas scan"),
    scan!("-sM -p 22,80,445 PEER", "Maimon scan"),
    scan!("-sU -p 53,123,161 PEER", "UDP scan"),
    scan!("-sY -p 80,443 PEER", "SCTP INIT scan"),
    scan!("-sZ -p 80,443 PEER", "SCTP COOKIE-ECHO scan"),
    scan!("-sO -p 0-255 PEER", "every IP protocol"),
    scan!("-sS -f -p 22,80 PEER", "8-byte fragments"),
    scan!("-sS -f -f -p 22,80 PEER", "16-byte fragments"),
    scan!("-sS --mtu 24 -p 22,80 PEER", "24-byte fragments"),
    scan!("-sS -g 53 -S DNS -p 22,80 PEER", "from the name server's service port"),
    scan!("-sU -g 53 -S DNS -p 161,33434 PEER", "from the name server's service port"),
    scan!("-sA -g 80 -S WEB -p 40000 PEER", "like a reply of the web server"),
    scan!("-sS -p 80 --ip-options L_OTHER PEER", "loose source route"),
    scan!("-sS -p 80 --ip-options R PEER", "record route"),
    scan!("-sS -p 80 --ip-options \\x01*36 PEER", "behind NOPs"),
    scan!("-sS -p 80 -D 192.0.2.200,203.0.113.9,ME PEER", "decoys with others' addresses"),
    scan!("-sS -p 80 --badsum PEER", "wrong checksums"),
    scan!("-sS -p 80 --data-length 1200 PEER", "SYN with data"),
    scan!("--scanflags SYNFIN -sS -p 80 PEER", "SYN and FIN"),
    scan!("-6 -S WEB6 -sS -p 22,80 PEER6", "SYN scan, IPv6"),
    scan!("-6 -S WEB6 -sU -p 123,161 PEER6", "UDP scan, IPv6"),
    scan!("-6 -S WEB6 -sO -p 0-255 PEER6", "every next header, IPv6"),
];

#[test]
fn no_scan_of_nmap_gets_out() {
    let _machine = share_machine();
    play(LIST);
}
