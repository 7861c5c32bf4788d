//! A policy on trial on real packets: the way back needs no process, and nothing that the policy before needs is
//! gone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::sys::signal::Signal;
use portcullis::abi::{active_word, state};

use super::command::{Daemon, Outcome};
use super::policies::{dmz, dmz_with};
use super::socket::{ARRIVES, NEVER, TcpServer, UdpServer, connect, echoes, udp, udp_talks};
use super::testbed::{Family, NIC, Testbed, V4, in_both_families, ip, share_machine};
use crate::support::patience::{deadline, eventually};

/// The policy with one need more: what `prove_passes` sends.
fn open_dmz() -> String {
    dmz().replacen("[roles.web]\n", "[roles.web]\nout = [\"udp/4000\"]\n", 1)
}

/// The policy without its management.
fn locked_dmz() -> String {
    dmz().replacen("management = [\"tcp/22 from @bastion\"]\n", "", 1)
}

impl Testbed {
    /// `apply --confirm TIME` of this policy.
    pub fn try_policy(&self, policy: &str, time: &str) -> Outcome {
        let path = self.write("trial.toml", policy);
        self.run("apply", &[&path, "--confirm", time])
    }

    /// Moves the deadline of the trial into the past, as if its time had gone by. No command and no daemon does
    /// anything.
    pub fn let_trial_pass(&self) {
        let words = MapHandle::from_pinned_path(self.pins().join("maps/state")).expect("the map");
        let key = state::STATE_ACTIVE.0.to_ne_bytes();
        let bytes = words.lookup(&key, MapFlags::ANY).expect("a word").expect("a word");
        let word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        let slots = word & ((1 << active_word::ACTIVE_DEADLINE_SHIFT.0) - 1);
        assert_ne!(word, slots, "no trial is under way");
        let over = slots | 1 << active_word::ACTIVE_DEADLINE_SHIFT.0;
        words.update(&key, &over.to_ne_bytes(), MapFlags::ANY).expect("a write");
    }

    fn generation(&self) -> u64 {
        self.show("status")["generation"].as_u64().expect("a number")
    }
}

#[test]
fn the_gate_goes_back_by_itself_when_nobody_confirms_in_time() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    testbed.prove_drops(&tap, 2);
    let said = testbed.try_policy(&open_dmz(), "1h").done().out;
    assert!(said.contains("generation 2 is live on dmz0, on trial for 1h"), "{said}");
    testbed.prove_passes(&tap, 2);
    let status = testbed.show("status");
    assert_eq!((&status["generation"], &status["trial"]["before"]), (&2.into(), &1.into()), "{status:#}");
    // the file is the live one, for now
    let same = testbed.run("diff", &[&testbed.write("same.toml", &open_dmz())]).done().out;
    assert!(
        same.contains("! the live policy is on trial") && same.contains("generation 1 is live again in"),
        "{same}"
    );
    testbed.let_trial_pass();
    let said = testbed.run("diff", &[&testbed.write("before.toml", &dmz())]).done().out;
    assert!(!said.contains("on trial"), "{said}");
    testbed.prove_drops(&tap, 2);
    let status = testbed.show("status");
    assert_eq!((&status["generation"], status.get("trial")), (&1.into(), None), "{status:#}");
    assert_eq!(testbed.run("show", &["policy"]).done().out, dmz());
    // the number of the trial is not used again
    let said = testbed.run("apply", &[&testbed.write("next.toml", &open_dmz())]).done().out;
    assert!(said.contains("generation 3 is live"), "{said}");
    testbed.prove_passes(&tap, 1);
}

#[test]
fn the_time_of_a_trial_is_that_of_the_kernels_clock_whatever_the_wall_clock_says() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    for (number, ahead_s) in [(2, "864000"), (3, "-864000")] {
        let clock = testbed.write("clock", ahead_s);
        let path = testbed.write("trial.toml", &open_dmz());
        let mut apply = testbed.router.prepare(&["apply", "-i", NIC, &path, "--confirm", "1s", "-j"]);
        apply.env("PORTCULLIS_CLOCK_OFFSET", clock);
        assert_eq!(Outcome::of(&mut apply).done().json()["generation"], number);
        eventually("the kernel has gone back", || testbed.generation() == 1);
        testbed.prove_drops(&tap, 1);
    }
}

#[test]
fn a_trial_that_is_confirmed_stays_and_ends_what_it_revokes() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _server = TcpServer::start(&testbed.dmz, 80);
    testbed.attach(&dmz());
    let mut visit =
        connect(&testbed.internet, ip(V4.peer), SocketAddr::new(ip(V4.web), 80), ARRIVES).expect("a visit");
    assert!(echoes(&mut visit));
    testbed.run("confirm", &[]).refused(&["no policy is on trial"]);
    let flows = || testbed.show("flows").as_array().expect("a list").len();
    let before = flows();
    testbed.try_policy(&dmz().replacen("\"tcp/80\", ", "", 1), "1h").done();
    assert_eq!(flows(), before, "a trial removes no flow");
    let said = testbed.run("confirm", &[]).done().out;
    assert!(said.contains("generation 2 is confirmed"), "{said}");
    assert_eq!(flows(), before - 1, "the revoked one has ended");
    testbed.run("confirm", &[]).refused(&["no policy is on trial"]);
    assert_eq!((testbed.generation(), testbed.show("status").get("trial")), (2, None));
    testbed.try_policy(&dmz(), "1h").done();
    testbed.let_trial_pass();
    testbed.run("confirm", &[]).refused(&["no policy is on trial", "its time is over"]);
    assert_eq!(testbed.generation(), 2);
}

#[test]
fn a_session_that_the_trial_froze_lives_again_after_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let server = TcpServer::start(&testbed.dmz, 22);
    testbed.attach(&dmz());
    in_both_families(|family: Family| {
        let login = |family: Family| -> TcpStream {
            connect(&testbed.internet, ip(family.bastion), SocketAddr::new(ip(family.web), 22), ARRIVES)
                .expect("a session")
        };
        let mut session = login(family);
        assert!(echoes(&mut session));
        // without a trial such a policy is refused
        let path = testbed.write("locked.toml", &locked_dmz());
        let refused = testbed.run("apply", &[&path]);
        refused.refused(&[
            "cuts off an open flow of the management",
            "tcp/22 of web1",
            family.bastion,
            "--confirm 60s",
        ]);
        let said = testbed.try_policy(&locked_dmz(), "1h").done();
        assert!(said.err.contains("cuts off an open flow"), "{said:#?}");
        server.last().write_all(b"late").expect("room in the server's buffer");
        session.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        assert!(session.read(&mut [0; 4]).is_err(), "the trial does not cut it off");
        testbed.let_trial_pass();
        // the server sends again by itself
        session.set_read_timeout(Some(deadline(ARRIVES.duration()) * 4)).expect("a timeout");
        let mut word = [0; 4];
        session.read_exact(&mut word).expect("the session is alive");
        assert_eq!(&word, b"late");
        assert!(echoes(&mut session));
        testbed.run("apply", &[&path, "--force"]).done();
        testbed.apply(&dmz());
    });
}

#[test]
fn nobody_changes_the_gate_during_a_trial_and_the_same_policy_sets_its_time_anew() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    testbed.try_policy(&open_dmz(), "30m").done();
    let other = testbed.write("other.toml", &dmz_with("mode = \"observe\""));
    let words = ["a policy is on trial on dmz0", "confirm -i dmz0", "rollback -i dmz0"];
    testbed.run("apply", &[&other]).refused(&words);
    testbed.run("apply", &[&other, "--confirm", "10s"]).refused(&words);
    testbed.run("apply", &[&testbed.write("trial.toml", &open_dmz())]).refused(&words);
    testbed.run("attach", &["-p", &other]).refused(&words);
    testbed.run("detach", &[]).refused(&words);
    testbed.run("rollback", &["1"]).refused(&words);
    assert!(testbed.has_xdp());
    let left = || testbed.show("status")["trial"]["left_s"].as_u64().expect("a number");
    assert!(left() <= 1800);
    let said = testbed.try_policy(&open_dmz(), "1h").done().out;
    assert!(said.contains("generation 2 stays on trial on dmz0, for 1h from now on"), "{said}");
    assert!(left() > 1800 && testbed.generation() == 2);
    let said = testbed.run("rollback", &[]).done().out;
    assert!(said.contains("generation 1 is live on dmz0 again"), "{said}");
    assert_eq!(testbed.generation(), 1);
    testbed.run("apply", &[&other]).done();
    for bad in ["0", "61m", "soon"] {
        testbed.try_policy(&dmz(), bad).failed(2, &["--confirm"]);
    }
}

#[test]
fn a_policy_that_nobody_confirmed_is_not_what_the_next_boot_attaches() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    std::fs::write(&path, open_dmz()).expect("a file");
    testbed.run("apply", &[&path, "--confirm", "1h", "--note", "for the mirror"]).done();
    // the power fails
    testbed.reboot();
    let words = ["a trial", "never confirmed", "is attached and enforcing under the last confirmed policy"];
    testbed.run("attach", &["--fall-back", "-p", &path]).refused(&words);
    testbed.prove_drops(&tap, 1);
    // the gate is attached, and stays as it is
    testbed.run("attach", &["-p", &path]).refused(&["never confirmed", "stays attached and enforcing"]);
    testbed.reboot();
    testbed.run("attach", &["-p", &path]).refused(&words);
    testbed.prove_drops(&tap, 1);
    // a person makes it live
    testbed.run("apply", &[&path]).done();
    testbed.prove_passes(&tap, 1);
    testbed.reboot();
    testbed.run("attach", &["--fall-back", "-p", &path]).done();
    testbed.prove_passes(&tap, 1);
    // or confirms it
    std::fs::write(&path, dmz()).expect("a file");
    testbed.run("apply", &[&path, "--confirm", "1h"]).done();
    testbed.run("confirm", &[]).done();
    testbed.reboot();
    testbed.run("attach", &["--fall-back", "-p", &path]).done();
    testbed.prove_drops(&tap, 1);
}

#[test]
fn the_daemon_sees_a_trial_begin_and_end_and_makes_no_unconfirmed_file_live() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let path = testbed.write("daemon.toml", &open_dmz());
    testbed.run("apply", &[&path, "--confirm", "1h"]).done();
    daemon
        .wait_for_line(&["generation 2 of the policy is on trial on dmz0", "generation 1 is live again in"]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["a policy is on trial on dmz0"]);
    assert!(daemon.find(&["critical"]).is_empty(), "a reload during a trial is no alarm");
    // it is stopped, and the kernel goes back all the same
    daemon.signal(Signal::SIGSTOP);
    testbed.let_trial_pass();
    eventually("the kernel has gone back", || testbed.generation() == 1);
    daemon.signal(Signal::SIGCONT);
    daemon
        .wait_for_line(&["nobody confirmed generation 2 of the policy: generation 1 is live again on dmz0"]);
    testbed.prove_drops(&tap, 1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["never confirmed"]);
    daemon.wait_for_line(&["critical", "never confirmed"]);
    assert_eq!(testbed.generation(), 1);
    // one that starts during a trial watches the gate as it is
    testbed.try_policy(&format!("# again\n{}", open_dmz()), "1h").done();
    assert!(daemon.end(Signal::SIGTERM).success());
    let mut next = testbed.daemon(&dmz(), &[]);
    next.wait_for_line(&["under the policy that is on trial", "is not read before the next reload"]);
    assert_eq!(testbed.generation(), 3);
    testbed.run("confirm", &[]).done();
    next.wait_for_line(&["generation 3 of the policy is confirmed on dmz0"]);
    assert!(next.end(Signal::SIGTERM).success());
}

#[test]
fn a_reload_keeps_a_policy_that_came_from_another_file_and_the_management() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let _server = TcpServer::start(&testbed.dmz, 22);
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.run("apply", &[&testbed.write("other.toml", &open_dmz())]).done();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["the live policy is that of", "other.toml", "somebody has applied since"]);
    testbed.prove_passes(&tap, 1);
    testbed.run("reload", &["--force"]).done();
    daemon.wait_for_line(&["generation 3 is live"]);
    testbed.prove_drops(&tap, 1);
    let mut session = connect(&testbed.internet, ip(V4.bastion), SocketAddr::new(ip(V4.web), 22), ARRIVES)
        .expect("a session");
    assert!(echoes(&mut session));
    testbed.write("daemon.toml", &locked_dmz());
    testbed.run("reload", &[]).refused(&["would cut off an open flow of the management", "tcp/22 of web1"]);
    daemon.wait_for_line(&["critical", "would cut off"]);
    assert!(echoes(&mut session));
    testbed.run("reload", &["--force"]).done();
    assert_eq!(testbed.generation(), 4);
    assert!(daemon.end(Signal::SIGTERM).success());
    testbed.run("reload", &[]).refused(&["no daemon runs"]);
}

#[test]
fn the_tracker_stays_for_the_policy_before_and_goes_when_nothing_needs_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _server = TcpServer::start(&testbed.dmz, 80);
    testbed.attach(&dmz().replacen("pickup = 0", "pickup = 60", 1));
    let tracker = || testbed.show("status")["tracker"] != "no";
    let service = dmz_with("tracking = \"service\"");
    let web = SocketAddr::new(ip(V4.web), 80);
    let visit = || connect(&testbed.internet, ip(V4.peer), web, ARRIVES).expect("a visit");
    testbed.try_policy(&service, "1h").done();
    assert!(tracker(), "the policy before needs it");
    let mut during = visit();
    assert!(echoes(&mut during));
    testbed.run("rollback", &[]).done();
    assert!(echoes(&mut during), "a connection of the trial is taken over");
    assert!(tracker() && echoes(&mut visit()));
    testbed.try_policy(&service, "1h").done();
    testbed.run("confirm", &[]).done();
    assert!(!tracker(), "nothing needs it any more");
    testbed.try_policy(&dmz(), "1h").done();
    assert!(tracker() && echoes(&mut visit()));
    testbed.let_trial_pass();
    assert!(echoes(&mut visit()));
    // whoever has the lock next tidies up
    testbed.apply(&service);
    assert!(!tracker());
}

#[test]
fn an_earlier_policy_of_the_history_becomes_the_live_one() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    testbed.run("rollback", &[]).refused(&["there is no policy 1 to go back to"]);
    let path = testbed.write("open.toml", &open_dmz());
    testbed.run("apply", &[&path, "--note", "for the mirror"]).done();
    testbed.apply(&dmz_with("mode = \"observe\""));
    let list = testbed.run("rollback", &["--list", "-j"]).done().json();
    let list = list.as_array().expect("a list");
    let numbers: Vec<_> = list.iter().map(|entry| entry["number"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!((&list[0]["live"], &list[1]["note"]), (&true.into(), &"for the mirror".into()));
    let table = testbed.run("rollback", &["--list"]).done().out;
    assert!(table.contains("for the mirror") && table.contains("live"), "{table}");
    let said = testbed.run("rollback", &["2"]).done();
    assert!(said.out.contains("generation 4 is live on dmz0"), "{said:#?}");
    testbed.prove_drops(&tap, 1);
    // on trial too
    testbed.run("rollback", &["2", "--confirm", "1h"]).done();
    testbed.prove_passes(&tap, 1);
    testbed.let_trial_pass();
    testbed.prove_drops(&tap, 1);
    testbed.run("rollback", &["19"]).refused(&["there is no policy 19", "--list"]);
}

#[test]
fn a_server_that_was_cut_off_during_a_trial_stays_so_after_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let renamed = dmz().replacen("[servers.web1]", "[servers.shop]", 1);
    testbed.try_policy(&renamed, "1h").done();
    testbed.run("quarantine", &["shop"]).done();
    let cut = || testbed.verdict(V4.web, V4.peer, "udp/9000").1;
    assert_eq!(cut(), "quarantined");
    testbed.let_trial_pass();
    assert_eq!(cut(), "quarantined");
}

#[test]
fn a_file_that_nobody_confirmed_is_one_alarm_however_often_the_daemon_reads_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&dmz(), &[]);
    let path = testbed.write("daemon.toml", &open_dmz());
    testbed.run("apply", &[&path, "--confirm", "1h"]).done();
    testbed.let_trial_pass();
    let refusals = || {
        let events = testbed.audit();
        events.iter().filter(|event| event["action"] == "reload" && event["result"] == "refused").count()
    };
    for number in 1..=3 {
        daemon.signal(Signal::SIGHUP);
        eventually("the refusal is kept", || refusals() == number);
    }
    daemon.wait_for_line(&["alarm #", "critical", "never confirmed"]);
    // another refusal is another matter, and so is the text of another trial
    std::fs::write(&path, "[polcy]\n").expect("a file");
    daemon.signal(Signal::SIGHUP);
    eventually("the refusal is kept", || refusals() == 4);
    assert!(daemon.end(Signal::SIGTERM).success());
    let alarms = daemon.find(&["alarm #", "never confirmed"]);
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
    // each daemon reports it once
    std::fs::write(&path, open_dmz()).expect("a file");
    let mut next = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    next.wait_for_line(&["alarm #", "critical", "never confirmed"]);
    next.signal(Signal::SIGHUP);
    eventually("the refusal is kept", || refusals() == 5);
    assert!(next.end(Signal::SIGTERM).success());
    assert_eq!(next.find(&["alarm #", "never confirmed"]).len(), 1, "{:#?}", next.said());
}

#[test]
fn a_gate_whose_nic_is_made_anew_during_a_trial_is_attached_again_at_once() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("policy.toml", &dmz());
    testbed.run("attach", &["-p", &path]).done();
    testbed.try_policy(&open_dmz(), "1h").done();
    testbed.run("attach", &["-p", &path]).refused(&["a policy is on trial on dmz0"]);
    // as the unit does for an interface that appears, also with the text that nobody has confirmed
    let trial = testbed.folder.join("trial.toml").display().to_string();
    for (number, attach) in [&["-p", &path][..], &["--fall-back", "-p", &trial]].into_iter().enumerate() {
        testbed.replace_cable();
        let outcome = testbed.run("attach", attach);
        if number == 0 {
            outcome.done()
        } else {
            outcome.refused(&["never confirmed", "is attached"])
        };
        assert!(testbed.has_xdp());
        testbed.prove_drops(&tap, 2);
        assert_eq!(testbed.run("show", &["policy"]).done().out, dmz());
        assert_eq!(testbed.show("status").get("trial"), None);
        let events = testbed.audit();
        let back = events.iter().rfind(|event| event["action"] == "way_back").expect("an event");
        assert_eq!(back["detail"], "nobody confirmed the trial, which ended with the interface");
        testbed.try_policy(&open_dmz(), "1h").done();
        testbed.prove_passes(&tap, 2);
    }
    // nor does a trial keep the pins of a gate whose NIC is gone
    testbed.replace_cable();
    testbed.detach();
    assert!(!testbed.pins().exists());
}

#[test]
fn a_session_of_datagrams_counts_as_management_that_may_be_cut_off() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let with_vpn = |more: &str| {
        dmz().replacen("\"tcp/22 from @bastion\"", &format!("\"tcp/22 from @bastion\"{more}"), 1)
    };
    testbed.attach(&with_vpn(", \"udp/51820 from @bastion\""));
    let path = testbed.write("without.toml", &dmz());
    in_both_families(|family: Family| {
        let _vpn = UdpServer::start(&testbed.dmz, family.web, 51_820);
        let to = SocketAddr::new(ip(family.web), 51_820);
        assert!(udp_talks(&testbed.internet, family.bastion, to, ARRIVES));
        testbed.run("apply", &[&path]).refused(&[
            "cuts off an open flow of the management",
            "udp/51820 of web1",
            family.bastion,
        ]);
        testbed.run("apply", &[&path, "--force"]).done();
        testbed.apply(&with_vpn(", \"udp/51820 from @bastion\""));
        // what nobody answers is no session
        drop(_vpn);
        let socket = udp(&testbed.internet, family.bastion, 0);
        socket.send_to(b"ping", to).expect("a datagram");
        eventually("the gate has seen it", || {
            testbed.show("flows").as_array().expect("a list").iter().any(|flow| flow["server_port"] == 51_820)
        });
        testbed.apply(&dmz());
        testbed.apply(&with_vpn(", \"udp/51820 from @bastion\""));
    });
}

#[test]
fn a_session_that_comes_through_a_server_is_not_cut_off_there() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let _server = TcpServer::start(&testbed.dmz, 22);
    // a server as a jump host, whose ssh is no management
    let jump = |services: &str| {
        dmz().replacen("management = [\"tcp/22 from @bastion\"]\n", "", 1).replacen(
            "in = [\"tcp/80\", \"tcp/443\"]",
            &format!("in = [{services}]"),
            1,
        )
    };
    testbed.attach(&jump("\"tcp/80\", \"tcp/22\""));
    let _session = connect(&testbed.internet, ip(V4.peer), SocketAddr::new(ip(V4.web), 22), ARRIVES);
    eventually("the gate has seen it", || {
        testbed.show("flows").as_array().expect("a list").iter().any(|flow| flow["table"] == "established")
    });
    let path = testbed.write("closed.toml", &jump("\"tcp/80\""));
    let apply = |client: &str| {
        let mut command = testbed.router.prepare(&["apply", "-i", NIC, &path]);
        command.env("SSH_CONNECTION", format!("{client} 52000 192.0.2.1 22"));
        Outcome::of(&mut command)
    };
    apply(V4.web).refused(&["tcp/22 of web1", "by which you are logged in", "--confirm 60s"]);
    // whoever came another way is not asked
    apply(V4.bastion).done();
}
