//! Quarantines under another policy: they follow the addresses that they were given for, and their names.

use portcullis::abi::Reason;
use portcullis::compile::{Tables, compile};
use portcullis::gate::list_carried;
use portcullis::policy::parse;

use crate::support::dmz::{POLICY, V4, in_both_families, ip};
use crate::support::frame::{SYN, from_mac, tcp, udp};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x30];

/// What a policy would change, as `apply` and `diff` print it.
fn carried(gate: &TestGate, text: &str) -> String {
    let tables: Tables = compile(&parse(text, "p.toml").unwrap()).unwrap();
    list_carried(&gate.find_carried_quarantines(&tables).unwrap())
}

fn question(from: &str) -> Vec<u8> {
    udp((ip(from), 40_000), (V4.peer, 53))
}

fn servers(lines: &str) -> String {
    let roles = POLICY.split_once("[servers.web1]").expect("servers").0;
    let servers = lines.lines().map(|line| {
        let (name, addresses) = line.split_once(' ').expect("a name");
        let addresses: Vec<String> = addresses.split(' ').map(|it| format!("\"{it}\"")).collect();
        format!("[servers.{name}]\naddresses = [{}]\nroles = [\"dns\"]\n", addresses.join(", "))
    });
    format!("{roles}{}", servers.collect::<String>())
}

#[test]
fn a_server_that_the_next_policy_calls_by_another_name_stays_cut_off() {
    with_dmz_in_both_families(|gate, family| {
        let frame = udp((family.ns, 40_000), (family.peer, 53));
        let opening = tcp((family.ns, 40_000), (family.peer, 53), SYN);
        let renamed = POLICY.replace("[servers.ns1]", "[servers.ns9]");
        for _ in 0..3 {
            gate.passes(&opening, Reason::Need);
        }
        gate.quarantine("ns1", None).unwrap();
        let text = carried(&gate, &renamed);
        assert_eq!(
            text,
            "! 192.0.2.53 stays in quarantine: it was ns1's, and ns9 has it now\n\
             ! 2001:db8:1::53 stays in quarantine: it was ns1's, and ns9 has it now\n"
        );
        gate.swap(&renamed);
        for _ in 0..3 {
            assert_eq!(gate.drops(&frame, Reason::Quarantined).key.server, gate.id_of("ns9"));
            gate.drops(&opening, Reason::Quarantined);
        }
        assert_eq!(carried(&gate, &renamed), "", "nothing moves any more");
        // and back, and away, and back
        gate.swap(POLICY);
        gate.drops(&frame, Reason::Quarantined);
        let without = POLICY.split_once("[servers.ns1]").expect("the last server").0;
        gate.swap(without);
        gate.drops(&frame, Reason::UnknownSource);
        gate.swap(&renamed);
        gate.drops(&frame, Reason::Quarantined);
        assert!(gate.release("ns9").unwrap().was);
        gate.passes(&frame, Reason::Need);
        // by its name it was cut off as well
        gate.swap(POLICY);
        gate.drops(&frame, Reason::Quarantined);
        assert!(gate.release("ns1").unwrap().was);
        gate.passes(&frame, Reason::Need);
        gate.swap(&renamed);
        gate.passes(&frame, Reason::Need);
    });
}

#[test]
fn names_that_are_exchanged_leave_both_machines_cut_off_and_a_release_says_so() {
    let gate = TestGate::new(&servers("a 192.0.2.10\nb 192.0.2.11\nc 192.0.2.12"));
    gate.quarantine("a", None).unwrap();
    let next = servers("b 192.0.2.10\na 192.0.2.11\nc 192.0.2.12");
    assert_eq!(
        carried(&gate, &next),
        "! 192.0.2.10 stays in quarantine: it was a's, and b has it now\n\
         ! 192.0.2.11 comes into quarantine: a has it now, and is in quarantine\n"
    );
    gate.swap(&next);
    for from in ["192.0.2.10", "192.0.2.11"] {
        gate.drops(&question(from), Reason::Quarantined);
    }
    gate.passes(&question("192.0.2.12"), Reason::Need);
    let released = gate.release("a").unwrap();
    assert!(released.was);
    let remaining: Vec<String> = released.remaining.iter().map(|row| row.describe()).collect();
    assert_eq!(remaining, ["192.0.2.10 (b)"]);
    gate.passes(&question("192.0.2.11"), Reason::Need);
    gate.drops(&question("192.0.2.10"), Reason::Quarantined);
    assert!(gate.release("b").unwrap().was);
    gate.passes(&question("192.0.2.10"), Reason::Need);
}

#[test]
fn a_prefix_that_is_divided_stays_cut_off_in_all_its_parts_and_nothing_else_does() {
    let before = "farm 192.0.2.128/26 2001:db8:1:a::/64\nown 192.0.2.130 2001:db8:1:a::130\nx 192.0.2.9";
    // an IPv6 prefix with a hole is dozens of rows
    let gate = TestGate::sized(&servers(before), &[("servers", 512)]);
    gate.quarantine("farm", None).unwrap();
    gate.passes(&question("192.0.2.130"), Reason::Need);
    gate.swap(&servers(
        "p 192.0.2.128/27 2001:db8:1:a::/64\nq 192.0.2.160/28\nown 192.0.2.130 2001:db8:1:a::130\nx 192.0.2.9",
    ));
    for from in ["192.0.2.128", "192.0.2.131", "192.0.2.159", "192.0.2.160", "192.0.2.175"] {
        gate.drops(&question(from), Reason::Quarantined);
    }
    gate.drops(&question("192.0.2.176"), Reason::UnknownSource);
    // never cut off with the farm
    gate.passes(&question("192.0.2.130"), Reason::Need);
    let v6 = |from: &str| udp((ip(from), 40_000), (ip("2001:db8:50::50"), 53));
    gate.drops(&v6("2001:db8:1:a::131"), Reason::Quarantined);
    gate.passes(&v6("2001:db8:1:a::130"), Reason::Need);
    // a larger server has them now
    gate.swap(&servers("all 192.0.2.0/24 2001:db8:1::/48\nown 192.0.2.130"));
    gate.drops(&question("192.0.2.190"), Reason::Quarantined);
    gate.passes(&question("192.0.2.130"), Reason::Need);
    gate.passes(&question("192.0.2.127"), Reason::Need);
    gate.passes(&question("192.0.2.9"), Reason::Need);
    gate.passes(&v6("2001:db8:1:b::131"), Reason::Need);
    gate.drops(&v6("2001:db8:1:a::131"), Reason::Quarantined);
    // one address of it is released
    assert!(gate.release_addresses(ip("192.0.2.190").into()).unwrap().was);
    gate.passes(&question("192.0.2.190"), Reason::Need);
    gate.drops(&question("192.0.2.191"), Reason::Quarantined);
    // and a part of it
    let released = gate.release_addresses("192.0.2.188/31".parse().unwrap()).unwrap();
    assert_eq!((released.was, released.addresses), (true, vec![]));
    gate.passes(&question("192.0.2.189"), Reason::Need);
    gate.drops(&question("192.0.2.187"), Reason::Quarantined);
    // the rest with the server that has it
    assert!(gate.release("all").unwrap().was);
    gate.passes(&question("192.0.2.191"), Reason::Need);
    gate.passes(&v6("2001:db8:1:a::131"), Reason::Need);
}

#[test]
fn a_machine_stays_cut_off_with_its_mac_under_its_servers_next_name() {
    let gate = TestGate::new(&servers("farm 192.0.2.128/26"));
    gate.quarantine_address(ip("192.0.2.130"), Some(MAC), None).unwrap();
    let next = servers("pool 192.0.2.128/26");
    assert_eq!(
        carried(&gate, &next),
        "! 192.0.2.130 stays in quarantine: it was farm's, and pool has it now\n"
    );
    gate.swap(&next);
    gate.drops(&question("192.0.2.130"), Reason::Quarantined);
    gate.drops(&from_mac(&question("192.0.2.131"), MAC), Reason::Quarantined);
    gate.passes(&question("192.0.2.131"), Reason::Need);
    gate.swap(&servers("x 192.0.2.9"));
    gate.swap(&servers("farm 192.0.2.128/26"));
    gate.drops(&from_mac(&question("192.0.2.131"), MAC), Reason::Quarantined);
    assert!(gate.release("farm").unwrap().was);
    gate.passes(&from_mac(&question("192.0.2.131"), MAC), Reason::Need);
    gate.swap(&next);
    gate.passes(&from_mac(&question("192.0.2.131"), MAC), Reason::Need);
}

#[test]
fn an_address_that_no_server_has_any_more_stays_cut_off_among_the_unknown() {
    in_both_families(|family| {
        for mode in ["", "mode = \"observe\"\n"] {
            let allow = |text: &str| {
                text.replace("[policy]", &format!("[policy]\n{mode}unknown_sources = \"allow\""))
            };
            let gate = TestGate::new(&allow(POLICY));
            gate.quarantine("ns1", None).unwrap();
            let without = POLICY.split_once("[servers.ns1]").expect("the last server").0;
            gate.swap(&allow(without));
            let frame = udp((family.ns, 40_000), (family.peer, 53));
            gate.drops(&frame, Reason::UnknownSource);
            gate.passes(&udp((family.unknown, 40_000), (family.peer, 53)), Reason::UnknownAllowed);
            // its name is known, and ends it
            assert!(gate.release("ns1").unwrap().was);
            gate.passes(&frame, Reason::UnknownAllowed);
        }
    });
}

#[test]
fn what_a_released_server_had_once_hits_nobody_who_gets_it_later() {
    let gate = TestGate::new(&servers("a 192.0.2.10\nb 192.0.2.11"));
    gate.quarantine("a", None).unwrap();
    gate.swap(&servers("a 192.0.2.20\nb 192.0.2.11"));
    let released = gate.release("a").unwrap();
    assert_eq!(released.addresses, ["192.0.2.10"]);
    gate.swap(&servers("a 192.0.2.20\nb 192.0.2.10"));
    gate.passes(&question("192.0.2.10"), Reason::Need);
}

#[test]
fn an_address_whose_time_is_over_hides_no_longer_quarantine_of_the_prefix_around_it() {
    let gate = TestGate::new(&servers("farm 192.0.2.128/26"));
    gate.quarantine_address(ip("192.0.2.130"), None, Some(1)).unwrap();
    gate.quarantine("farm", None).unwrap();
    gate.swap(&servers("pool 192.0.2.128/26"));
    let left: Vec<_> = gate.quarantined_addresses().unwrap().into_iter().map(|row| row.left_s).collect();
    assert_eq!(left, [None, None], "a longer prefix hides a shorter one even when its time is over");
    gate.drops(&question("192.0.2.130"), Reason::Quarantined);
}

#[test]
fn a_policy_whose_quarantines_do_not_fit_is_refused_and_changes_nothing() {
    let gate = TestGate::fresh(&servers("farm 2001:db8:1:a::/64\nx 2001:db8:1:a::5"), &[("servers", 4)]);
    gate.quarantine("farm", None).unwrap();
    // 64 prefixes are left of the farm's without its one hole
    let (policy, tables) =
        crate::support::test_gate::read_policy(&servers("pool 2001:db8:1:a::/64\nx 2001:db8:1:a::5"), &[]);
    let text = gate.install(&policy, &tables).expect_err("a refusal").to_string();
    assert!(text.contains("raise `servers` under [tables]") && text.contains("help:"), "{text}");
    let v6 = |from: &str| udp((ip(from), 40_000), (ip("2001:db8:50::50"), 53));
    assert_eq!(gate.drops(&v6("2001:db8:1:a::7"), Reason::Quarantined).key.server, gate.id_of("farm"));
    gate.passes(&v6("2001:db8:1:a::5"), Reason::Need);
    assert!(gate.release("farm").unwrap().was);
    gate.passes(&v6("2001:db8:1:a::7"), Reason::Need);
}
