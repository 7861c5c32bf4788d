//! What `portcullis export nft` prints for policies by chance, with all that the language has: nft takes it, and of
//! real packets it lets pass what `explain` says, apart from what its head says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use portcullis::abi::Reason;
use portcullis::compile::compile;
use portcullis::gate::Verdict;
use portcullis::nft::export;
use portcullis::policy::parse;
use serde_json::Value;

use crate::e2e::namespace::{NIC, Namespace, feed_ip, remove_namespace};
use crate::e2e::tap::open_raw;
use crate::fuzz::policies::make_policy;
use crate::fuzz::setting::{
    ROUTER_MACS, ROUTERS, SERVER_MACS, VLANS, pick_client_port, pick_odd, pick_peer, pick_port, pick_server,
    pick_service,
};
use crate::support::chance::Chance;
use crate::support::dmz::ip;
use crate::support::frame::{
    ACK, FIN, IP, Ipv4, Ipv6, PSH, RST, SYN, UDP, ethernet, from_mac, icmp, icmp_message, icmp_protocol,
    packet, patched, raw_ip, tagged, tcp, udp, udp_datagram,
};
use crate::support::layers::fix_ipv4_checksum;
use crate::support::patience::eventually;
use crate::support::test_gate::TestGate;

const POLICIES: u64 = 40;
const FRAMES: u16 = 500;

/// Lets each packet pass, and remembers its number before and after the ruleset.
const WITNESS: &str = "
table inet witness {
    set before_4 { typeof ip id; size 65535; flags dynamic; }
    set before_6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
    set after_4 { typeof ip id; size 65535; flags dynamic; }
    set after_6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
    chain before {
        type filter hook prerouting priority -151; policy accept;
        add @before_4 { ip id }
        add @before_6 { ip6 flowlabel }
    }
    chain after {
        type filter hook prerouting priority -149; policy accept;
        add @after_4 { ip id }
        add @after_6 { ip6 flowlabel }
    }
}
";

/// A router that has no gate, with VLANs, and whoever plugs into it.
struct Router {
    router: Namespace,
    ends: Namespace,
    /// Towards the NIC, and towards its VLANs.
    nic: File,
    vlans: [File; 2],
}

impl Router {
    fn new(name: &str) -> Router {
        let stem = format!("pc-{}-{name}", std::process::id());
        let (router, ends) =
            (Namespace::create(&format!("{stem}-r")), Namespace::create(&format!("{stem}-e")));
        ends.set_sysctl("ipv6/conf/all/disable_ipv6", "1");
        ends.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
        for key in ["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"] {
            router.set_sysctl(key, "0");
        }
        // Another NIC stands for each VLAN, by its name: not every kernel has VLANs, and nft sees the name alone.
        let nics = [NIC.to_owned(), format!("{NIC}.{}", VLANS[0]), format!("{NIC}.{}", VLANS[1])];
        let mut lines = String::from("link set lo up\n");
        for (number, nic) in nics.iter().enumerate() {
            feed_ip(&format!(
                "link add {nic} address 02:00:00:00:00:01 netns {} type veth peer name far{number} netns {}\n",
                router.name(),
                ends.name()
            ));
            ends.ip(&format!("link set far{number} up\n"));
            let _ = write!(lines, "link set {nic} addrgenmode none\nlink set {nic} up\n");
        }
        router.ip(&format!(
            "{lines}address add 192.0.2.1/24 dev {NIC}\naddress add 2001:db8:1::1/64 dev {NIC} nodad\n"
        ));
        for nic in &nics {
            eventually("the router's NICs are up", || router.is_up(nic));
        }
        let [nic, first, second] =
            ["far0", "far1", "far2"].map(|far| File::from(ends.enter(|| open_raw(far))));
        Router { router, ends, nic, vlans: [first, second] }
    }

    /// What nft says to a file on its standard input. Empty: nothing, and it took the file.
    fn nft(&self, arguments: &[&str], text: &str) -> String {
        feed_nft(self.router.command("nft").args(arguments).args(["-f", "-"]), text)
    }

    /// The numbers that a set of the witness has.
    fn numbers(&self, set: &str) -> BTreeSet<u16> {
        let mut command = self.router.command("nft");
        let output = command.args(["-j", "list", "set", "inet", "witness", set]).output().expect("nft");
        let value: Value = serde_json::from_slice(&output.stdout).expect("JSON of nft");
        let objects = value["nftables"].as_array().expect("a list");
        let elements = objects.iter().find_map(|object| object["set"]["elem"].as_array());
        elements
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .filter_map(|n| u16::try_from(n).ok())
            .collect()
    }

    fn seen(&self, when: &str) -> BTreeSet<u16> {
        &self.numbers(&format!("{when}_4")) | &self.numbers(&format!("{when}_6"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        remove_namespace(self.router.name());
        remove_namespace(self.ends.name());
    }
}

fn feed_nft(command: &mut Command, text: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nft");
    let mut input = child.stdin.take().expect("a pipe");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
    let output = child.wait_with_output().expect("an end");
    writer.join().expect("a writer");
    if output.status.success() { String::new() } else { String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// A frame of the DMZ. Nobody has opened anything, so each is judged by the policy alone.
fn invent(chance: &mut Chance, is_server: &dyn Fn(IpAddr) -> bool) -> Vec<u8> {
    let v6 = chance.percent(50);
    let from = match chance.below(20) {
        0..17 => pick_server(chance, v6),
        17 => pick_peer(chance, v6),
        18 => ip(if v6 { "fe80::10" } else { "169.254.7.7" }),
        _ => ip(if v6 { "::" } else { "0.0.0.0" }),
    };
    let to = loop {
        // an answer of another server would be a flow, and explain knows none
        let to = if chance.percent(90) { pick_peer(chance, v6) } else { pick_odd(chance, v6) };
        let odd = to.is_loopback() || to.is_unspecified() || to.to_string().starts_with("::ffff");
        if !is_server(to) && !odd {
            break to;
        }
    };
    let ends = ((from, pick_client_port(chance)), (to, pick_service(chance)));
    let turned = ((from, pick_service(chance)), (to, pick_client_port(chance)));
    let frame = match chance.below(24) {
        0..7 => tcp(ends.0, ends.1, SYN),
        7 => tcp(turned.0, turned.1, SYN | ACK),
        8..10 => tcp(ends.0, ends.1, chance.pick(&[ACK, PSH | ACK, FIN | ACK, RST, RST | ACK])),
        10 => tcp(ends.0, ends.1, chance.pick(&[0, FIN, SYN | FIN, SYN | RST, PSH])),
        11..15 => udp(ends.0, ends.1),
        15 => udp(turned.0, turned.1),
        16..18 => {
            let kinds: &[u8] = if v6 { &[128, 129, 139, 160, 200] } else { &[8, 0, 13, 14, 15, 17, 40] };
            icmp(from, to, (chance.pick(kinds), 0), [0, 1, 0, 2], b"ping")
        }
        18..20 => {
            // nft looks through an authentication header of IPv6
            let protocols = [2_u8, 4, 41, 47, 50, 89, 112, 253, 51];
            raw_ip(from, to, chance.pick(&protocols[..if v6 { 8 } else { 9 }]), &[0x45; 24])
        }
        20 => {
            // sctp: ports, a tag, a checksum that nobody looks at, and an INIT
            let mut header = [ends.0.1.to_be_bytes(), ends.1.1.to_be_bytes()].concat();
            header.extend_from_slice(&[0; 8]);
            header.extend_from_slice(&[1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            raw_ip(from, to, 132, &header)
        }
        21 => invent_link_talk(chance, v6),
        22 => invent_routing(chance, from, to),
        _ => udp((from, pick_port(chance)), (to, pick_port(chance))),
    };
    let mac = if chance.percent(85) { chance.pick(&SERVER_MACS) } else { chance.pick(&ROUTER_MACS) };
    from_mac(&frame, mac)
}

/// DHCP, VRRP, neighbour discovery, services of the link.
fn invent_link_talk(chance: &mut Chance, v6: bool) -> Vec<u8> {
    let own = pick_server(chance, v6);
    let source = match chance.below(3) {
        0 => own,
        1 => ip(if v6 { "fe80::10" } else { "0.0.0.0" }),
        _ => ip(chance.pick(&ROUTERS[if v6 { 2..4 } else { 0..2 }])),
    };
    match (chance.below(4), v6) {
        (0, false) => udp((source, 68), (ip(chance.pick(&["255.255.255.255", "198.51.100.20"])), 67)),
        (0, true) => {
            udp((source, 546), (ip(chance.pick(&["ff02::1:2", "ff05::1:3", "2001:db8:2::20"])), 547))
        }
        (1, false) => {
            let frame = raw_ip(source, ip("224.0.0.18"), 112, &[0x31, 1, 100, 1, 0, 1, 0, 0]);
            with_ttl(&frame, chance.pick(&[255, 64]))
        }
        (1, true) => {
            let advertisement = Ipv6::new(source, ip("ff02::12"), 112, &[0x31, 1, 100, 1, 0, 1, 0, 0]);
            advertisement.hop_limit(chance.pick(&[255, 64])).frame()
        }
        (2, true) => {
            let (to, kind) =
                (ip(chance.pick(&["ff02::1", "fe80::1", "ff02::2"])), chance.pick(&[133, 135, 136]));
            let message = icmp_message(source, to, (kind, 0), [0; 4], &[0; 16]);
            Ipv6::new(source, to, icmp_protocol(source), &message).hop_limit(chance.pick(&[255, 64])).frame()
        }
        (3, true) => {
            let (to, port) =
                (ip(chance.pick(&["fe80::1", "ff02::fb", "2001:db8:2::20"])), pick_service(chance));
            ethernet(&packet(source, to, UDP, &udp_datagram((source, 5353), (to, port), b"who?")))
        }
        (_, false) => icmp(source, ip("198.51.100.20"), (chance.pick(&[5, 9]), 0), [0; 4], &[0; 28]),
        (_, true) => icmp(source, ip("ff02::1"), (chance.pick(&[134, 137]), 0), [64, 0, 0, 0], &[0; 36]),
    }
}

/// Source routes and IPv4-mapped addresses.
fn invent_routing(chance: &mut Chance, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let datagram = udp_datagram((from, 40_000), (to, 53), b"where?");
    match from {
        IpAddr::V4(_) => {
            let kind = chance.pick(&[131, 137, 7]);
            Ipv4::new(from, to, UDP, &datagram).options(&[kind, 7, 4, 198, 51, 100, 9, 0]).frame()
        }
        IpAddr::V6(_) => {
            let (kind, left) = chance.pick(&[(0, 0), (0, 1), (4, 1), (4, 0)]);
            let mut rest = vec![2, kind, left, 0, 0, 0, 0];
            rest.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            Ipv6::new(from, to, UDP, &datagram).extension(43, &rest).frame()
        }
    }
}

fn with_ttl(frame: &[u8], ttl: u8) -> Vec<u8> {
    let mut frame = patched(&patched(frame, IP + 8, &[ttl]), IP + 10, &[0; 2]);
    fix_ipv4_checksum(&mut frame[IP..IP + 20]);
    frame
}

/// The frame with a number by which the witness knows it.
fn numbered(frame: &[u8], number: u16) -> Vec<u8> {
    if frame[IP] >> 4 == 6 {
        return patched(frame, IP + 2, &number.to_be_bytes());
    }
    let mut frame = patched(&patched(frame, IP + 4, &number.to_be_bytes()), IP + 10, &[0; 2]);
    let end = IP + 4 * usize::from(frame[IP] & 0x0f);
    fix_ipv4_checksum(&mut frame[IP..end]);
    frame
}

#[test]
fn a_ruleset_lets_pass_what_explain_says_under_any_policy() {
    let seed = super::read_variable("PORTCULLIS_SEED").unwrap_or(super::SEED);
    let mut router = Router::new("rules");
    assert_eq!(router.nft(&[], WITNESS), "");
    let mut gate: Option<TestGate> = None;
    let (mut policies, mut passed, mut held, mut lost) = (0, 0, 0, 0);
    let mut reasons: BTreeSet<String> = BTreeSet::new();
    for part in 0..POLICIES {
        let mut chance = Chance::part(seed, part);
        // the head of a ruleset says that nft reads no questions
        let text = make_policy(&mut chance).replace("dns = \"named\"", "");
        let Ok(policy) = parse(&text, "dmz0.toml") else {
            continue;
        };
        let Ok(tables) = compile(&policy) else {
            continue;
        };
        let ruleset = export(&policy, NIC).text;
        assert_eq!(router.nft(&["-c"], &ruleset), "", "seed {seed}, part {part}\n{text}\n{ruleset}");
        assert_eq!(router.nft(&[], &ruleset), "", "seed {seed}, part {part}\n{text}\n{ruleset}");
        policies += 1;
        let gate = match &mut gate {
            Some(gate) => {
                gate.swap(&text);
                &*gate
            }
            none => &*none
                .insert(TestGate::sized(&text, &[("servers", 256), ("limits", 1024), ("needs", 65_536)])),
        };
        let is_server = |address: IpAddr| {
            let nets = policy.servers.iter().flat_map(|server| &server.addresses);
            nets.map(|(net, _)| net).any(|net| net.contains(&address))
        };
        assert_eq!(router.nft(&[], &format!("delete table inet witness\n{WITNESS}")), "");
        let mut spent: BTreeSet<u32> = BTreeSet::new();
        let mut expected = Vec::new();
        while expected.len() < usize::from(FRAMES) {
            let number = expected.len() as u16 + 1;
            let mut frame = numbered(&invent(&mut chance, &is_server), number);
            let plain = frame.clone();
            let vlan = chance.percent(15).then(|| chance.below(VLANS.len()));
            if let Some(vlan) = vlan {
                frame = tagged(&frame, 0x8100, VLANS[vlan]);
            }
            let answer = gate.explain(&frame, false, None).expect("an answer");
            // explain takes no token
            let limited = tables.rules.get(answer.rule as usize).is_some_and(|rule| rule.limit.is_some());
            if limited && !spent.insert(answer.server) {
                continue;
            }
            let nic = vlan.map_or(&mut router.nic, |vlan| &mut router.vlans[vlan]);
            nic.write_all(&plain).expect("a frame that goes out");
            expected.push((number, frame, answer));
        }
        let all: BTreeSet<u16> = expected.iter().map(|(number, ..)| *number).collect();
        let mut before = BTreeSet::new();
        // those that the kernel itself drops never come, so the last of the others says that all have come
        router
            .nic
            .write_all(&numbered(&udp((ip("192.0.2.1"), 1), (ip("192.0.2.1"), 1)), 60_000))
            .expect("a marker");
        eventually("the last frame has come", || {
            before = router.seen("before");
            before.contains(&60_000)
        });
        let after = router.seen("after");
        lost += all.difference(&before).count();
        for (number, frame, answer) in expected.iter().filter(|(number, ..)| before.contains(number)) {
            let passes = answer.verdict != Verdict::Drop;
            if passes {
                passed += 1;
            } else {
                held += 1;
            }
            reasons.insert(format!("{:?}", answer.reason));
            assert_eq!(
                after.contains(number),
                passes,
                "seed {seed}, part {part}: explain says {answer:?}\n{frame:02x?}\n{text}\n{ruleset}"
            );
        }
    }
    println!(
        "rulesets: seed {seed}: {policies} policies, {passed} passed and {held} held by both, {lost} dropped by the kernel"
    );
    assert!(policies > POLICIES / 2 && passed > 1000 && held > 1000, "{policies} {passed} {held}");
    assert!(lost < (passed + held) / 10, "{lost} never came to the ruleset");
    for reason in [
        Reason::Need,
        Reason::OwnConnection,
        Reason::Neighbour,
        Reason::Dhcp,
        Reason::Router,
        Reason::UnknownAllowed,
        Reason::UnknownSource,
        Reason::Spoofed,
        Reason::Malformed,
        Reason::SourceRoute,
        Reason::RogueRouter,
        Reason::NewFlow,
        Reason::Destination,
    ] {
        let name = format!("{:?}", Some(reason));
        assert!(reasons.contains(&name), "no packet was {name}, only {reasons:?}");
    }
}

#[test]
fn a_limit_holds_for_a_server_with_all_its_addresses() {
    let policy = "[roles.mail]\nout = [\"tcp/25 limit 3/m\"]\n\
                  [servers.mx1]\naddresses = [\"192.0.2.25\", \"2001:db8:1::25\"]\nroles = [\"mail\"]\n\
                  [servers.mx2]\naddresses = [\"192.0.2.26\"]\nroles = [\"mail\"]\n";
    let mut router = Router::new("limit");
    let ruleset = export(&parse(policy, "dmz0.toml").expect("a policy"), NIC).text;
    assert_eq!(router.nft(&[], &format!("{WITNESS}{ruleset}")), "");
    let peer = |own: &str| (ip(if own.contains(':') { "2001:db8:2::20" } else { "198.51.100.20" }), 25);
    let mut number = 0;
    for own in ["192.0.2.25", "2001:db8:1::25", "192.0.2.25", "2001:db8:1::25", "192.0.2.25", "192.0.2.26"] {
        number += 1;
        let frame = numbered(&tcp((ip(own), 40_000 + number), peer(own), SYN), number);
        router.nic.write_all(&frame).expect("a frame that goes out");
    }
    // what belongs to a connection takes no token
    let data = numbered(&tcp((ip("192.0.2.25"), 40_001), peer("192.0.2.25"), PSH | ACK), 7);
    router.nic.write_all(&data).expect("a frame that goes out");
    eventually("all have come", || router.seen("before").len() == 7);
    assert_eq!(router.seen("after"), BTreeSet::from([1, 2, 3, 6, 7]));
}

#[test]
fn four_thousand_servers_make_no_more_rules_than_forty() {
    let write = |servers: usize| {
        let mut text = String::from("[sets]\nlog = [\"198.51.100.20\", \"203.0.113.0/24\"]\n");
        for role in 0..8 {
            let _ = write!(
                text,
                "[roles.r{role}]\nin = [\"tcp/{}\", \"udp/53\"]\nout = [\"udp/514 to @log\", \"tcp/25 limit {}/s\"]\n",
                8000 + role,
                role + 1
            );
        }
        for server in 0..servers {
            let _ = write!(
                text,
                "[servers.s{server}]\naddresses = [\"192.0.2.{}\", \"2001:db8:1::{server:x}\"]\nroles = [\"r{}\"]\n",
                server % 256,
                server % 8
            );
        }
        // an IPv4 address each for as many as there are
        let text = match servers > 256 {
            true => text.lines().fold(String::new(), |text, line| {
                text + &match line
                    .split_once("\"192.0.2.")
                    .and_then(|(head, rest)| Some((head, rest.split_once(", ")?)))
                {
                    Some((head, (_, rest))) => format!("{head}{rest}"),
                    None => line.to_owned(),
                } + "\n"
            }),
            false => text,
        };
        export(&parse(&text, "dmz0.toml").unwrap_or_else(|errors| panic!("{errors}")), NIC).text
    };
    let rules = |ruleset: &str| {
        ruleset.lines().filter(|line| line.contains("accept") || line.contains("goto refuse")).count()
    };
    let (few, many) = (write(40), write(4096));
    assert_eq!(rules(&few), rules(&many) + 8, "a map of limits in IPv4 for each role");
    let router = Router::new("many");
    assert_eq!(router.nft(&[], &many), "");
}

#[test]
fn the_guard_falls_back_to_the_rules_and_lets_nothing_else_pass() {
    let mut router = Router::new("guard");
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("dmz0.toml");
    let text =
        "[roles.mail]\nout = [\"tcp/25\"]\n[servers.mx1]\naddresses = [\"192.0.2.25\"]\nroles = [\"mail\"]\n";
    std::fs::write(&policy, text).expect("a policy");
    let guard = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/portcullis-guard");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    // the guard reads the number of the NIC in /sys, which shows the machine's own otherwise
    let run = |words: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", router.router.name(), "sh", guard]).args(words).env("PATH", &path);
        command.output().expect("a shell")
    };
    let policy = policy.display().to_string();
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let sent = |number: u16, port: u16| {
        numbered(&tcp((ip("192.0.2.25"), 40_000), (ip("198.51.100.20"), port), SYN), number)
    };

    assert_eq!(router.nft(&[], WITNESS), "");
    let closed = run(&["close", NIC]);
    assert!(closed.status.success(), "{}", said(&closed));
    let refused = run(&["fall-back", NIC, "/nonexistent.toml"]);
    assert!(
        !refused.status.success() && said(&refused).contains("all that comes from it is dropped"),
        "{}",
        said(&refused)
    );
    let fallen = run(&["fall-back", NIC, &policy]);
    assert!(fallen.status.success() && said(&fallen).contains("judged by nft"), "{}", said(&fallen));
    for (number, port) in [(1, 25), (2, 22), (3, 25)] {
        router.nic.write_all(&sent(number, port)).expect("a frame that goes out");
    }
    eventually("the frames have come", || router.seen("after").contains(&3));
    assert_eq!(router.seen("after"), BTreeSet::from([1, 3]));
}
