//! A policy on trial, and the way back from it, which is the programs' own.

use std::time::Duration;

use libbpf_rs::{MapCore as _, MapFlags};
use portcullis::abi::{Reason, active_word, quota_class, state};

use crate::support::dmz::{POLICY, V4, in_both_families};
use crate::support::frame::{ACK, SYN, tcp, udp};
use crate::support::test_gate::{TestGate, read_policy, with_dmz_in_both_families};

const HOUR: Duration = Duration::from_secs(3600);

/// Puts a policy on trial.
fn begin(gate: &TestGate, policy: &str) -> u64 {
    let (policy, tables) = read_policy(policy, &[]);
    gate.install_on_trial(&policy, &tables, HOUR).expect("a trial")
}

fn change_active(gate: &TestGate, change: impl Fn(u64) -> u64) {
    let words: Vec<(u32, u64)> = gate.entries("state");
    let word = words.iter().find(|(index, _)| *index == state::STATE_ACTIVE.0).expect("a word").1;
    let changed = change(word).to_ne_bytes();
    gate.maps.state.handle().update(&state::STATE_ACTIVE.0.to_ne_bytes(), &changed, MapFlags::ANY).unwrap();
}

/// Moves the deadline into the past, as if the time had gone by. No tool does anything.
fn let_time_pass(gate: &TestGate) {
    let slots = (1 << active_word::ACTIVE_DEADLINE_SHIFT.0) - 1;
    change_active(gate, |word| {
        assert!(word > slots, "no trial is under way");
        word & slots | 1 << active_word::ACTIVE_DEADLINE_SHIFT.0
    });
}

/// As `confirm` does.
fn confirm(gate: &TestGate) {
    change_active(gate, |word| word & ((1 << active_word::ACTIVE_DEADLINE_SHIFT.0) - 1));
}

fn generation(gate: &TestGate) -> u64 {
    gate.live_settings().unwrap().unwrap().generation
}

fn with_8443() -> String {
    POLICY.replace("\"tcp/6514 ", "\"tcp/8443\", \"tcp/6514 ")
}

#[test]
fn the_policy_before_is_live_again_when_the_time_of_a_trial_is_over() {
    with_dmz_in_both_families(|gate, family| {
        let syn = tcp((family.web, 40_000), (family.peer, 8443), SYN);
        gate.drops(&syn, Reason::NewFlow);
        let before = generation(&gate);
        let trial = begin(&gate, &with_8443());
        // often enough that the verdict is kept
        (0..4).for_each(|_| gate.passes(&syn, Reason::Need));
        assert_eq!(generation(&gate), trial);
        let_time_pass(&gate);
        for _ in 0..4 {
            gate.drops(&syn, Reason::NewFlow);
        }
        assert_eq!(generation(&gate), before);
    });
}

#[test]
fn a_trial_that_is_confirmed_stays() {
    let gate = TestGate::dmz();
    let syn = tcp((V4.web, 40_000), (V4.peer, 8443), SYN);
    let trial = begin(&gate, &with_8443());
    gate.passes(&syn, Reason::Need);
    confirm(&gate);
    gate.passes(&syn, Reason::Need);
    assert_eq!(generation(&gate), trial);
}

#[test]
fn flows_that_a_trial_revokes_live_again_after_it() {
    with_dmz_in_both_families(|gate, family| {
        let answer = tcp((family.web, 80), (family.peer, 51_000), ACK);
        let datagram = udp((family.ns, 53), (family.peer, 51_000));
        gate.establish((family.web, 80), (family.peer, 51_000));
        gate.to_server(&udp((family.peer, 51_000), (family.ns, 53)));
        gate.passes(&answer, Reason::Reply);
        begin(&gate, &POLICY.replace("\"tcp/80\", ", "").replace("\"udp/53\", ", ""));
        gate.drops(&answer, Reason::NoFlow);
        // the peer sends again, and so does the server
        gate.to_server(&tcp((family.peer, 51_000), (family.web, 80), ACK));
        gate.drops(&answer, Reason::NoFlow);
        let_time_pass(&gate);
        gate.passes(&answer, Reason::Reply);
        gate.passes(&datagram, Reason::Reply);
    });
}

#[test]
fn a_flow_that_only_the_trial_permits_ends_with_it() {
    with_dmz_in_both_families(|gate, family| {
        begin(&gate, &POLICY.replace("\"tcp/80\", ", "\"tcp/80\", \"tcp/8080\", "));
        gate.establish((family.web, 8080), (family.peer, 51_000));
        let answer = tcp((family.web, 8080), (family.peer, 51_000), ACK);
        (0..3).for_each(|_| gate.passes(&answer, Reason::Reply));
        let_time_pass(&gate);
        gate.drops(&answer, Reason::NoFlow);
    });
}

#[test]
fn no_generation_comes_twice() {
    let gate = TestGate::dmz();
    let mut last = generation(&gate);
    for number in 0..12 {
        let text = format!("# version {number}\n{POLICY}");
        let trial = begin(&gate, &text);
        assert!(trial > last, "{trial} after {last}");
        last = trial;
        match number % 3 {
            0 => let_time_pass(&gate),
            1 => confirm(&gate),
            _ => {
                let_time_pass(&gate);
                gate.swap(&format!("# other {number}\n{POLICY}"));
                assert!(generation(&gate) > last);
                last = generation(&gate);
            }
        }
    }
}

#[test]
fn the_policy_before_stays_whole_through_one_trial_after_the_other() {
    let gate = TestGate::dmz();
    in_both_families(|family| gate.establish((family.web, 80), (family.peer, 51_000)));
    let before = generation(&gate);
    for number in 0..7 {
        begin(&gate, &format!("# version {number}\n{}", with_8443()));
        let_time_pass(&gate);
        assert_eq!(generation(&gate), before);
        assert!(!gate.live_policy().unwrap().unwrap().text.contains("version"));
        in_both_families(|family| {
            gate.passes(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::Reply);
            gate.drops(&tcp((family.web, 40_000), (family.peer, 8443), SYN), Reason::NewFlow);
        });
    }
}

#[test]
fn each_policy_has_its_own_quotas_and_its_part_of_the_cache() {
    let gate = TestGate::dmz();
    let read = || {
        let live = gate.live_settings().unwrap().unwrap();
        let own = live.limits[quota_class::CLASS_OWN.0 as usize];
        ((own.guaranteed, own.max, own.shared), live.verdicts_mask)
    };
    let before = read();
    let farm: String =
        (1..=12).map(|n| format!("[servers.x{n}]\naddresses = [\"198.51.100.{n}\"]\n")).collect();
    begin(&gate, &format!("{POLICY}\n{farm}"));
    let during = read();
    assert!(during.0.0 < before.0.0 && during.1 >= before.1, "{during:?} {before:?}");
    let_time_pass(&gate);
    assert_eq!(read(), before);
}

#[test]
fn the_tracker_goes_on_for_a_policy_that_is_strict_while_another_one_is_on_trial() {
    with_dmz_in_both_families(|gate, family| {
        begin(&gate, &POLICY.replace("[policy]", "[policy]\ntracking = \"service\""));
        gate.to_server(&udp((family.peer, 51_000), (family.ns, 53)));
        let_time_pass(&gate);
        gate.passes(&udp((family.ns, 53), (family.peer, 51_000)), Reason::Reply);
    });
}
