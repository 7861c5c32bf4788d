//! `doctor`: each finding where its condition is made, and its absence where it is not. What needs other drivers is in
//! `kernel`.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::{MapFlags, libbpf_sys};
use nix::sys::signal::Signal;
use portcullis::abi::server_flag;
use portcullis::compile::compile;
use portcullis::gate::Gate;
use portcullis::policy::parse;
use serde_json::Value;

use super::command::Daemon;
use super::name_console::with_names;
use super::policies::{dmz, dmz_with};
use super::refusals::OtherProgram;
use super::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::patience::eventually;

/// What `doctor -j` prints of the gate on this interface.
fn ask(testbed: &Testbed, nic: &str) -> Value {
    let outcome = testbed.router.portcullis(&["doctor", "-j", "-i", nic]);
    let said = outcome.json();
    assert_eq!(outcome.code, Some(i32::from(said["severe"] == true)), "{outcome:#?}");
    said
}

/// The findings of this id.
fn find(testbed: &Testbed, nic: &str, id: &str) -> Vec<Value> {
    let said = ask(testbed, nic);
    let findings = said["findings"].as_array().expect("findings");
    findings.iter().filter(|finding| finding["id"] == id).cloned().collect()
}

/// The finding is about this.
#[track_caller]
fn is_found(testbed: &Testbed, nic: &str, id: &str, about: &str) {
    let found = find(testbed, nic, id);
    let names = |finding: &Value| finding["about"].as_str().is_some_and(|text| text.contains(about));
    assert!(found.iter().any(names), "no {id} about {about} in {:#}", ask(testbed, nic));
}

#[track_caller]
fn is_absent(testbed: &Testbed, nic: &str, id: &str) {
    assert_eq!(find(testbed, nic, id), Vec::<Value>::new());
}

#[test]
fn a_healthy_gate_has_no_severe_finding_and_every_part_has_looked() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = testbed.daemon(&dmz(), &[]);
    let said = ask(&testbed, NIC);
    assert_eq!(said["severe"], false, "{said:#}");
    // what depends on the machine that runs the tests
    let machines_own = ["clock", "units"];
    let parts = |key: &str| -> Vec<String> {
        let rows = said[key].as_array().expect("rows").iter();
        let name = |row: &Value| row["part"].as_str().or(row.as_str()).expect("a part").to_owned();
        rows.map(name).filter(|part| !machines_own.contains(&part.as_str())).collect()
    };
    assert_eq!(parts("findings"), Vec::<String>::new(), "{said:#}");
    assert_eq!(parts("skipped"), Vec::<String>::new(), "{said:#}");
    let all =
        ["attachment", "packets", "bypass", "subnet", "tags", "resolvers", "programs", "tables", "sinks"];
    assert_eq!(parts("clear"), all);
    let text = testbed.run("doctor", &[]).done().out;
    assert!(text.contains("nothing found in: attachment, packets, bypass"), "{text}");
    drop(daemon);
}

#[test]
fn a_nic_without_gate_or_without_tracker_is_found_and_so_is_the_lack_of_a_daemon() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    is_found(&testbed, NIC, "detached", NIC);
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "detached");
    is_found(&testbed, NIC, "no_daemon", NIC);
    is_absent(&testbed, NIC, "tracker_missing");
    testbed.remove_tracker();
    eventually("the tracker is off", || !find(&testbed, NIC, "tracker_missing").is_empty());
    is_absent(&testbed, NIC, "observing");
    testbed.apply(&dmz_with("mode = \"observe\""));
    is_found(&testbed, NIC, "observing", NIC);
    // what would be dropped is no failure of the programs
    is_absent(&testbed, NIC, "must_drop_passes");
    fs::remove_file(testbed.pins().join("links/filter")).expect("the filter's link");
    eventually("the filter is off", || !find(&testbed, NIC, "detached").is_empty());
}

/// Makes every server one in observe behind the policy's back, or no longer.
fn set_observe(gate: &Gate, is_observing: bool) {
    let flag = server_flag::SERVER_OBSERVE.0;
    for table in (0..3).filter_map(|slot| gate.maps.hosts.open_inner(slot).ok()) {
        for (address, mut server) in table.entries().expect("entries") {
            server.flags = if is_observing { server.flags | flag } else { server.flags & !flag };
            table.put(&address, &server, MapFlags::EXIST).expect("a write");
        }
    }
}

#[test]
fn programs_that_do_not_do_what_the_policy_says_are_found() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "must_drop_passes");
    is_absent(&testbed, NIC, "must_pass_drops");
    let gate = testbed.open_gate();
    set_observe(&gate, true);
    is_found(&testbed, NIC, "must_drop_passes", NIC);
    set_observe(&gate, false);
    is_absent(&testbed, NIC, "must_drop_passes");
    // nobody has the servers' addresses any more
    for table in (0..3).filter_map(|slot| gate.maps.hosts.open_inner(slot).ok()) {
        for (address, _) in table.entries().expect("entries") {
            table.remove(&address).expect("a write");
        }
    }
    is_found(&testbed, NIC, "must_pass_drops", NIC);
    // a test run counts nothing
    assert_eq!(testbed.drops().len(), 0);
}

#[test]
fn a_second_nic_in_the_subnet_is_found_until_it_is_gone() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "second_nic");
    testbed.router.ip("link add eth5 type veth peer name eth6\naddress add 192.0.2.129/25 dev eth5\n");
    is_found(&testbed, NIC, "second_nic", "eth5");
    testbed.router.ip("link delete eth5\n");
    is_absent(&testbed, NIC, "second_nic");
}

#[test]
fn a_port_of_a_bridge_is_found_once_the_bridge_has_another_one() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.router.ip(&format!("link add br0 type bridge\nlink set {NIC} master br0\n"));
    is_absent(&testbed, NIC, "bridge_port");
    testbed.router.ip("link add eth5 type veth peer name eth6\nlink set eth5 master br0\n");
    is_found(&testbed, NIC, "bridge_port", "br0");
}

#[test]
fn a_gate_on_a_macvlan_leaves_out_its_parent_and_a_program_below_has_packets_before_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.router.ip(&format!("link add link {NIC} name mac0 type macvlan mode bridge\nlink set mac0 up\n"));
    let path = testbed.write("policy.toml", &dmz());
    // the kernel refuses it once there is a program above
    let other = OtherProgram::attach(&testbed);
    testbed.router.portcullis(&["attach", "-i", "mac0", "-p", &path]).done();
    is_found(&testbed, "mac0", "macvlan", NIC);
    is_found(&testbed, "mac0", "generic_mode", "mac0");
    is_found(&testbed, "mac0", "other_xdp", NIC);
    testbed.router.portcullis(&["detach", "-i", "mac0"]).done();
    drop(other);
    testbed.attach(&dmz());
    // the other way round nothing is left out
    is_absent(&testbed, NIC, "macvlan");
    is_absent(&testbed, NIC, "generic_mode");
    is_absent(&testbed, NIC, "other_xdp");
}

/// A program of somebody else at the NIC's ingress, until it is dropped.
fn attach_tcx(testbed: &Testbed) -> OwnedFd {
    let policy = parse(&dmz(), "other.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
    testbed.router.enter(|| {
        let gate = Gate::load(&policy, &tables).expect("a program");
        let index = nix::net::if_::if_nametoindex(NIC).expect("a NIC");
        let program = gate.programs.track.as_fd().as_raw_fd();
        // SAFETY: a program's descriptor and no options.
        let link = unsafe {
            libbpf_sys::bpf_link_create(program, index as i32, libbpf_sys::BPF_TCX_INGRESS, std::ptr::null())
        };
        assert!(link >= 0, "attaching another program: {link}");
        // SAFETY: the kernel has just returned it, and nobody else has it.
        unsafe { OwnedFd::from_raw_fd(link) }
    })
}

#[test]
fn a_tc_program_of_somebody_else_is_found_and_the_tracker_is_none() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "other_tc");
    let other = attach_tcx(&testbed);
    is_found(&testbed, NIC, "other_tc", "ingress");
    drop(other);
    eventually("the program is gone", || find(&testbed, NIC, "other_tc").is_empty());
}

#[test]
fn servers_behind_another_nic_are_found_and_so_is_the_wrong_nic() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "servers_elsewhere");
    is_absent(&testbed, NIC, "wrong_nic");
    testbed.router.ip(&format!("route add {}/32 via 203.0.113.130\n", V4.mail));
    is_found(&testbed, NIC, "servers_elsewhere", "wan0");
    testbed.router.ip(&format!("route delete {}/32\n", V4.mail));
    is_absent(&testbed, NIC, "servers_elsewhere");
    testbed.detach();
    let path = testbed.write("policy.toml", &dmz());
    testbed.router.portcullis(&["attach", "-i", "wan0", "-p", &path]).done();
    is_found(&testbed, "wan0", "wrong_nic", "wan0");
    is_absent(&testbed, "wan0", "servers_elsewhere");
}

#[test]
fn an_outer_interface_that_takes_any_source_is_found_where_names_are_in_use() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.router.set_sysctl("ipv4/conf/all/rp_filter", "0");
    testbed.router.set_sysctl("ipv4/conf/wan0/rp_filter", "0");
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "rp_filter");
    testbed.apply(&with_names());
    is_found(&testbed, NIC, "rp_filter", "wan0");
    is_found(&testbed, NIC, "forgeable_resolver", V4.resolver);
    testbed.router.set_sysctl("ipv4/conf/wan0/rp_filter", "1");
    is_absent(&testbed, NIC, "rp_filter");
    testbed.router.ip(&format!("address add {}/32 dev lo\n", V4.resolver));
    let about = find(&testbed, NIC, "forgeable_resolver");
    assert!(about.iter().all(|finding| finding["about"] != V4.resolver), "{about:#?}");
}

#[test]
fn a_table_that_is_full_is_found() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz().replace("ledger = 4096", "ledger = 64"));
    testbed.send_from_web(4000, 1);
    eventually("the drop is counted", || testbed.dropped("web1", "udp", 4000, "new_flow") == 1);
    is_absent(&testbed, NIC, "ledger_full");
    (4001..4060).for_each(|port| testbed.send_from_web(port, 1));
    eventually("the ledger is full", || !find(&testbed, NIC, "ledger_full").is_empty());
}

#[test]
fn a_clock_behind_the_policy_is_found() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    is_absent(&testbed, NIC, "clock_behind");
    let clock = testbed.write("clock", "-86400");
    let mut doctor = testbed.router.prepare(&["doctor", "-j", "-i", NIC]);
    let said = super::command::Outcome::of(doctor.env("PORTCULLIS_CLOCK_OFFSET", clock)).json();
    let ids: Vec<&Value> = said["findings"].as_array().expect("findings").iter().map(|f| &f["id"]).collect();
    assert!(ids.contains(&&Value::from("clock_behind")), "{said:#}");
}

#[test]
fn a_dead_sink_is_found_at_the_start_and_by_a_test_alarm_and_takes_one_when_it_is_repaired() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.run("test-alarm", &[]).refused(&["no daemon runs", "help:"]);
    let folder = testbed.folder.join("log");
    let [eve, samples] = ["eve.json", "samples.pcapng"].map(|name| folder.join(name));
    fs::write(&folder, "no folder").expect("a file");
    let alarms = format!("eve = \"{}\"\npcapng = \"{}\"\n", eve.display(), samples.display());
    let mut daemon = testbed.daemon(&format!("{}\n[alarms]\n{alarms}", dmz()), &[]);
    // no alarm has come yet, and a sink that fails keeps no gate away
    for sink in ["eve ", "pcapng "] {
        eventually("the sink is tried", || {
            find(&testbed, NIC, "sink_failing")
                .iter()
                .any(|found| found["about"].as_str().unwrap().starts_with(sink))
        });
    }
    let tested = testbed.run("test-alarm", &["-j"]);
    assert_eq!(tested.code, Some(1), "{tested:#?}");
    let took = |said: &Value, sink: &str| {
        let sinks = said["sinks"].as_array().expect("sinks").iter();
        sinks
            .filter(|row| row["sink"].as_str().unwrap().starts_with(sink))
            .map(|row| row["took"].clone())
            .next()
    };
    let said = tested.json();
    assert_eq!(took(&said, "stderr"), Some(true.into()), "{said:#}");
    assert_eq!(took(&said, "eve "), Some(false.into()), "{said:#}");
    assert_eq!(took(&said, "pcapng "), Some(false.into()), "{said:#}");
    daemon.wait_for_line(&["opened: high doctor", "TEST: nothing has happened"]);

    fs::remove_file(&folder).expect("the file");
    fs::create_dir(&folder).expect("a folder");
    let text = testbed.run("test-alarm", &[]).done().out;
    assert!(text.contains("took the test") && !text.contains("DID NOT"), "{text}");
    eventually("the sinks are well", || find(&testbed, NIC, "sink_failing").is_empty());
    let lines = || fs::read_to_string(&eve).unwrap_or_default();
    let tests = || lines().lines().filter(|line| line.contains("\"test\":true")).count();
    eventually("the test is in the file, opened and closed", || tests() == 2);
    assert_eq!(testbed.alarms(&[]).len(), 0, "no alarm");
    assert!(daemon.end(Signal::SIGTERM).success());
}

/// A daemon that looks five times a second.
fn watch(testbed: &Testbed) -> Daemon {
    let path = testbed.write("daemon.toml", &dmz());
    let mut command = testbed.router.prepare(&["run", "-i", NIC, "-p", &path, "--watch"]);
    let daemon = Daemon::start({
        command.env("PORTCULLIS_DOCTOR_MS", "200");
        command
    });
    daemon.wait_for_line(&["attached to dmz0: "]);
    daemon
}

#[test]
fn what_doctor_finds_while_the_daemon_watches_is_an_alarm_until_it_is_gone() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = watch(&testbed);
    testbed.router.ip("link add eth5 type veth peer name eth6\naddress add 192.0.2.129/25 dev eth5\n");
    daemon.wait_for_line(&[
        "high doctor",
        "eth5 has an address in the subnet of dmz0",
        "Next: portcullis doctor -i dmz0",
    ]);
    let open = |kind: &str, severity: &str| {
        let alarms = testbed.alarms(&["--open"]);
        alarms.iter().any(|alarm| alarm["kind"] == kind && alarm["severity"] == severity)
    };
    assert!(open("doctor", "high"));
    testbed.router.ip("link delete eth5\n");
    eventually("it is gone", || {
        let alarms = testbed.alarms(&["--open"]);
        let parts = alarms
            .iter()
            .filter(|alarm| alarm["kind"] == "doctor")
            .flat_map(|alarm| alarm["parts"].as_array());
        parts.flatten().all(|part| part["severity"] != "high" || part["is_over"] == true)
    });
}

#[test]
fn a_canary_that_would_pass_is_a_critical_alarm_until_the_programs_drop_it_again() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let daemon = watch(&testbed);
    testbed.wait_for_consumer();
    let gate = testbed.open_gate();
    assert_eq!(daemon.find(&["canary"]), Vec::<String>::new());
    set_observe(&gate, true);
    daemon.wait_for_line(&["critical canary", "would pass", "the policy drops it"]);
    set_observe(&gate, false);
    daemon.wait_for_line(&["closed: critical canary"]);
    assert_eq!(testbed.drops().len(), 0, "a canary is no drop");
}
