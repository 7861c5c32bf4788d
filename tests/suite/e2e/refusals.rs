//! What can't be done is refused in plain words, and nothing has changed.

use std::fs::OpenOptions;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, libbpf_sys};
use nix::fcntl::{Flock, FlockArg};
use portcullis::compile::compile;
use portcullis::gate::Gate;
use portcullis::policy::parse;

use super::command::{Daemon, Running};
use portcullis::abi::layout;

use super::policies::{TABLES, dmz, twin};
use super::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::eventually;

/// Somebody else's XDP program on the router's NIC: one that lets everything through.
struct OtherProgram<'w>(&'w Testbed);

impl<'w> OtherProgram<'w> {
    fn attach(testbed: &'w Testbed) -> OtherProgram<'w> {
        let text = format!(
            "[policy]\nunknown_sources = \"allow\"\n[servers.none]\naddresses = [\"192.0.2.254\"]\nroles = []\n{TABLES}"
        );
        let text = text.replace("roles = []", "roles = [\"none\"]") + "[roles.none]\nin = [\"tcp/1\"]\n";
        let policy = parse(&text, "other.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
        testbed.router.enter(|| {
            let gate = Gate::load(&policy, &tables).expect("a program");
            let index = nix::net::if_::if_nametoindex(NIC).expect("a NIC");
            let program = gate.programs.filter.as_fd().as_raw_fd();
            // SAFETY: a program's descriptor and no options. The NIC keeps the program.
            let result = unsafe { libbpf_sys::bpf_xdp_attach(index as i32, program, 0, std::ptr::null()) };
            assert_eq!(result, 0, "attaching another program");
        });
        OtherProgram(testbed)
    }
}

impl Drop for OtherProgram<'_> {
    fn drop(&mut self) {
        let mut command = self.0.router.command("ip");
        let _ = command.args(["link", "set", "dev", NIC, "xdp", "off"]).status();
    }
}

#[test]
fn another_program_on_the_nic_is_left_alone_and_named() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("policy.toml", &dmz());
    let other = OtherProgram::attach(&testbed);
    for command in ["attach", "run"] {
        testbed.run(command, &["-p", &path]).refused(&[
            "another XDP program is on dmz0 already",
            "help:",
            "ip link set dev dmz0 xdp off",
        ]);
        assert!(testbed.has_xdp(), "the other program was removed");
        assert!(!testbed.pins().exists(), "something is pinned");
    }
    testbed.prove_passes(&tap, 2);
    drop(other);
    eventually("the other program is off", || !testbed.has_xdp());
    testbed.run("attach", &["-p", &path]).done();
    testbed.prove_drops(&tap, 2);
}

#[test]
fn a_program_that_took_the_place_of_a_gate_is_named_too() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    std::fs::remove_file(testbed.pins().join("links/filter")).expect("the filter's link");
    eventually("the program is off", || !testbed.has_xdp());
    let other = OtherProgram::attach(&testbed);
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"no".into(), &false.into()), "{status:#}");
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).refused(&["another XDP program is on dmz0 already"]);
    drop(other);
    eventually("the other program is off", || !testbed.has_xdp());
    testbed.run("attach", &["-p", &path]).done();
    assert_eq!(testbed.show("status")["attached"], "native");
}

#[test]
fn an_interface_that_is_not_there_and_one_without_a_gate_have_their_own_words() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let missing = ["there is no interface `dmz7`", "help:", "nsenter"];
    let at = |command: &str, interface: &str, more: &[&str]| {
        testbed.router.portcullis(&[&[command, "-i", interface], more].concat())
    };
    at("attach", "dmz7", &["-p", &path]).refused(&missing);
    at("run", "dmz7", &["-p", &path]).refused(&missing);
    at("detach", "dmz7", &[]).refused(&missing);
    at("show", "dmz7", &["status"]).refused(&missing);
    at("apply", "dmz7", &[&path]).refused(&missing);
    at("show", "../../etc", &["status"]).refused(&["can't be an interface's name"]);
    // the NIC is another namespace's business
    testbed.internet.portcullis(&["show", "-i", NIC, "status"]).refused(&["there is no interface `dmz0`"]);

    let none = ["there is no gate on dmz0", "help: portcullis attach -i dmz0"];
    at("show", NIC, &["status"]).refused(&none);
    at("apply", NIC, &[&path]).refused(&none);
    at("diff", NIC, &[&path]).failed(2, &none);
    at("quarantine", NIC, &["web1"]).refused(&none);
    at("release", NIC, &["web1"]).refused(&none);
    at("explain", NIC, &["--from", "192.0.2.80", "--to", "198.51.100.99", "tcp/80"]).refused(&none);
    assert!(!testbed.pins().exists());
    assert!(!testbed.has_xdp());
}

#[test]
fn interfaces_whose_packets_have_no_ethernet_header_are_refused_before_anything_is_done() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    testbed.router.ip("tuntap add dev tun0 mode tun\nlink set tun0 up\ntuntap add dev tap0 mode tap\n");
    let at = |command: &str, nic: &str| testbed.router.portcullis(&[command, "-i", nic, "-p", &path]);
    for command in ["attach", "run"] {
        at(command, "tun0").refused(&["packets of tun0 have no Ethernet header", "`tun`", "help:"]);
        at(command, "lo").refused(&["lo is the loopback interface", "help:", "ip route get"]);
    }
    for nic in ["tun0", "lo"] {
        let output =
            testbed.router.command("ip").args(["-d", "link", "show", "dev", nic]).output().expect("ip");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("xdp"), "{nic} has a program");
    }
    // a tap has one
    let outcome = at("attach", "tap0").done();
    assert!(outcome.err.contains("behind dmz0 by the routing table"), "{outcome:#?}");
    testbed.router.portcullis(&["detach", "-i", "tap0"]).done();
}

#[test]
fn a_gate_on_the_wrong_interface_says_what_goes_past_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let attach = |nic: &str| {
        let said = testbed.router.portcullis(&["attach", "-i", nic, "-p", &path]).done().err;
        testbed.router.portcullis(&["detach", "-i", nic]).done();
        said
    };
    let said = attach(NIC);
    assert!(!said.contains("do not pass"), "{said}");
    // towards the internet
    let said = attach("wan0");
    assert!(said.contains("more of the policy's servers are behind dmz0 by the routing table"), "{said}");
    // beside a parent that has addresses of its own
    testbed.router.ip(&format!("link add mac0 link {NIC} type macvlan mode bridge\nlink set mac0 up\n"));
    let said = attach("mac0");
    assert!(said.contains("mac0 is a macvlan on dmz0") && said.contains("attach to dmz0"), "{said}");
    testbed.router.ip("link delete mac0\n");
    // in a bridge
    testbed.router.ip(&format!(
        "link add lan type bridge forward_delay 0 mcast_snooping 0\nlink set {NIC} master lan\nlink set lan up\n"
    ));
    let said = attach(NIC);
    assert!(said.contains("dmz0 is a port of the bridge lan") && said.contains("attach to lan"), "{said}");
}

#[test]
fn maps_of_a_newer_layout_are_touched_by_nothing_but_detach() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    let state = MapHandle::from_pinned_path(testbed.pins().join("maps/state")).expect("the map");
    let write = |version: u64| {
        state.update(&0_u32.to_ne_bytes(), &version.to_ne_bytes(), MapFlags::ANY).expect("a write");
    };
    write(99);
    let path = testbed.write("policy.toml", &dmz());
    let words = ["layout 99", "help:", "portcullis detach -i dmz0"];
    testbed.run("attach", &["-p", &path]).refused(&words);
    testbed.run("run", &["-p", &path]).refused(&words);
    testbed.run("apply", &[&path]).refused(&words);
    testbed.run("diff", &[&path]).failed(2, &words);
    testbed.run("show", &["status"]).refused(&words);
    testbed.run("show", &["drops"]).refused(&words);
    testbed.run("quarantine", &["web1"]).refused(&words);
    assert!(testbed.has_xdp());

    // the gate itself holds, untouched
    write(u64::from(layout::LAYOUT_VERSION.0));
    testbed.prove_drops(&tap, 3);
    assert_eq!(testbed.show("status")["generation"], 1);
    write(99);
    testbed.detach();
    assert!(!testbed.pins().exists());
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 3);
    testbed.attach(&dmz());
    testbed.prove_drops(&tap, 3);
}

#[test]
fn a_gate_of_an_earlier_build_has_other_maps_and_only_attach_replaces_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    let maps = testbed.pins().join("maps");
    let state = MapHandle::from_pinned_path(maps.join("state")).expect("the map");
    state.update(&0_u32.to_ne_bytes(), &3_u64.to_ne_bytes(), MapFlags::ANY).expect("a write");
    // as layout 3 had them
    std::fs::rename(maps.join("verdict_cache"), maps.join("known_drops")).expect("another name");
    std::fs::rename(maps.join("cpus"), maps.join("clocks")).expect("another name");
    for fresh in ["quota_cache", "ledger_bloom"] {
        std::fs::remove_file(maps.join(fresh)).expect("one map fewer");
    }
    let path = testbed.write("policy.toml", &dmz());
    let words = ["layout 3", "help:", "portcullis attach -i dmz0"];
    testbed.run("apply", &[&path]).refused(&words);
    testbed.run("show", &["status"]).refused(&words);
    assert!(testbed.has_xdp());
    testbed.attach(&dmz());
    testbed.prove_drops(&tap, 3);
}

#[test]
fn half_a_gate_is_recognised_and_detach_removes_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    std::fs::remove_file(testbed.pins().join("maps/ledger")).expect("a pin");
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("show", &["status"]).refused(&["incomplete", "ledger", "portcullis detach -i dmz0"]);
    testbed.run("apply", &[&path]).refused(&["incomplete", "ledger"]);
    testbed.run("attach", &["-p", &path]).refused(&["ledger", "help:"]);
    testbed.detach();
    testbed.run("attach", &["-p", &path]).done();
    assert_eq!(testbed.show("status")["generation"], 2);
}

#[test]
fn a_shell_of_ip_netns_exec_is_refused_for_its_pins_would_vanish() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let within = |args: &[&str]| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", testbed.router.name(), env!("CARGO_BIN_EXE_portcullis")]);
        command.args(args);
        Running::start(command).outcome()
    };
    let words = ["private mount namespace", "help:", "nsenter --net=/run/netns/"];
    within(&["attach", "-i", NIC, "-p", &path]).refused(&words);
    within(&["run", "-i", NIC, "-p", &path]).refused(&words);
    assert!(!testbed.has_xdp());

    // There is a gate, and nobody in there may say that there is none.
    testbed.attach(&dmz());
    for args in [&["show", "-i", NIC, "status"][..], &["detach", "-i", NIC], &["apply", "-i", NIC, &path]] {
        let outcome = within(args);
        assert_eq!(outcome.code, Some(1), "{args:?}: {outcome:#?}");
        let said = format!("{}{}", outcome.out, outcome.err);
        assert!(!said.contains("no gate on"), "{args:?}: {outcome:#?}");
        assert!(said.contains("private mount namespace"), "{args:?}: {outcome:#?}");
    }
    assert_eq!(testbed.show("status")["attached"], "native");
}

#[test]
fn without_a_bpffs_a_private_mount_namespace_is_refused_as_well() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &dmz());
    let netns = format!("--net=/run/netns/{}", testbed.router.name());
    let mut command = std::process::Command::new("unshare");
    // the host's own bpffs stays: what is unmounted here is a copy of the mount, and of others below it
    let script = "while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec nsenter \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "-", &netns, "--"]);
    command.args([env!("CARGO_BIN_EXE_portcullis"), "attach", "-i", NIC, "-p", &path]);
    Running::start(command).outcome().refused(&[
        "no bpffs at /sys/fs/bpf",
        "private mount namespace",
        "help:",
    ]);
    assert!(!testbed.has_xdp());
    assert!(Path::new("/sys/fs/bpf").exists() && !testbed.pins().exists());
    testbed.run("attach", &["-p", &path]).done();
}

#[test]
fn a_writer_waits_for_another_one_and_names_it_when_it_takes_too_long() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let path = testbed.write("1.toml", &twin(1));
    let lock = || {
        let file = OpenOptions::new().read(true).write(true).open(testbed.lock()).expect("the lock");
        Flock::lock(file, FlockArg::LockExclusive).unwrap_or_else(|(_, errno)| panic!("{errno}"))
    };
    let is_waiting = |writer: &Running| {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", writer.pid())).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.path().read_link().ok()).any(|target| target == testbed.lock())
    };

    let held = lock();
    let mut writer = Running::start(testbed.router.prepare(&["apply", "-i", NIC, &path]));
    eventually("the writer has come to the lock", || is_waiting(&writer));
    // readers do not wait
    assert_eq!(testbed.run("show", &["policy"]).done().out, twin(0));
    assert_eq!(testbed.show("status")["generation"], 1);
    assert!(writer.is_running(), "the writer did not wait");
    drop(held);
    writer.outcome().done();
    assert_eq!(testbed.run("show", &["policy"]).done().out, twin(1));

    // longer than any writer takes: then it says who is in the way
    let mut held = lock();
    std::io::Write::write_all(&mut *held, b"4711").expect("a write");
    let path = testbed.write("0.toml", &twin(0));
    let refused = testbed.run("apply", &[&path]);
    refused.refused(&["another portcullis command is changing the gate on dmz0", "4711", "help:"]);
    assert_eq!(testbed.run("show", &["policy"]).done().out, twin(1));
}

#[test]
fn a_user_without_the_privilege_reads_what_is_missing() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let path = testbed.write("policy.toml", &dmz());
    let as_nobody = |args: &[&str]| {
        let mut command = testbed.router.command("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"]);
        command.arg(env!("CARGO_BIN_EXE_portcullis")).args(args);
        Running::start(command).outcome()
    };
    for args in [
        &["show", "-i", NIC, "status"][..],
        &["apply", "-i", NIC, &path],
        &["attach", "-i", NIC, "-p", &path],
        &["detach", "-i", NIC],
    ] {
        as_nobody(args).refused(&["CAP_NET_ADMIN", "help:"]);
    }
    as_nobody(&["check", &path]).done();
    assert_eq!(testbed.show("status")["attached"], "native");
}

#[test]
fn tables_of_another_size_are_a_warning_until_the_gate_is_made_anew() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let larger = dmz().replacen("ledger = 4096", "ledger = 8192", 1);
    let path = testbed.write("larger.toml", &larger);
    for (command, args) in [("apply", vec![path.as_str()]), ("attach", vec!["-p", path.as_str()])] {
        let outcome = testbed.run(command, &args).done();
        assert!(outcome.err.contains("warning") && outcome.err.contains("ledger = 8192"), "{outcome:#?}");
    }
    assert!(testbed.show("status")["warnings"].to_string().contains("ledger = 8192"));
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["warning", "ledger = 8192"]);
    daemon.end(nix::sys::signal::Signal::SIGTERM);
    testbed.detach();
    assert!(testbed.attach(&larger).err.is_empty());
    assert_eq!(testbed.show("status")["warnings"], serde_json::json!([]));
}
