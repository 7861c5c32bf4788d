//! The commands of a trial die before each of their changes in turn. Each time one whole policy is live, the kernel
//! goes back by itself from wherever the trial stood, and a policy that nobody confirmed is not what a boot attaches.

use super::fault_points::{MOST_POINTS, died, list_pins, load_step};
use crate::e2e::command::Outcome;
use crate::e2e::kills::find_twin;
use crate::e2e::policies::twin;
use crate::e2e::testbed::{NIC, Testbed, share_machine};

fn stage() -> (Testbed, [String; 2]) {
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let paths = [testbed.write("0.toml", &twin(0)), testbed.write("1.toml", &twin(1))];
    (testbed, paths)
}

/// Runs a command that ends before its Nth change. True: it ran through.
fn runs_through(testbed: &Testbed, point: usize, args: &[&str]) -> bool {
    let mut command = testbed.router.prepare(args);
    command.env("PORTCULLIS_DIE_AT", point.to_string());
    !died(&Outcome::of(&mut command), point)
}

fn is_on_trial(testbed: &Testbed) -> bool {
    testbed.show("status").get("trial").is_some()
}

#[test]
fn an_apply_on_trial_that_dies_before_any_of_its_changes_leaves_one_whole_policy_and_the_way_back() {
    let _machine = share_machine();
    let (testbed, paths) = stage();
    let place = testbed.place();
    let whole = list_pins(&testbed);
    let mut begun = 0;
    let mut generation = 1;
    for point in 1..MOST_POINTS {
        let through = runs_through(&testbed, point, &["apply", "-i", NIC, &paths[1], "--confirm", "1h"]);
        let live = find_twin(&testbed, &place);
        assert_eq!(live == 1, is_on_trial(&testbed), "point {point}: what is said and what is done");
        assert!(!through || live == 1);
        if live == 1 {
            begun += 1;
            let trial = testbed.show("status")["generation"].as_u64().expect("a number");
            assert!(trial > generation, "point {point}: a number came twice");
            generation = trial;
            testbed.let_trial_pass();
            assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        }
        // now and then the power fails
        if point % 8 == 0 || through || live == 1 {
            testbed.reboot();
            let booted = testbed.run("attach", &["--fall-back", "-p", &paths[live]]);
            assert_eq!(booted.code, Some(i32::from(live == 1)), "point {point}: {booted:#?}");
            assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        }
        testbed.run("apply", &[&paths[0]]).done();
        assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        assert_eq!(list_pins(&testbed), whole, "point {point}");
        if through {
            eprintln!("apply --confirm: {} points, {begun} of them after the swap", point - 1);
            assert!(point > 20 && begun >= 2, "{point} points, {begun} after the swap");
            return;
        }
    }
    panic!("it never ran through");
}

#[test]
fn a_confirm_that_dies_before_any_of_its_changes_leaves_the_trial_or_a_policy_that_stays() {
    let _machine = share_machine();
    let (testbed, paths) = stage();
    let place = testbed.place();
    for point in 1..MOST_POINTS {
        testbed.run("apply", &[&paths[1], "--confirm", "1h"]).done();
        let through = runs_through(&testbed, point, &["confirm", "-i", NIC]);
        assert_eq!(find_twin(&testbed, &place), 1, "point {point}");
        if is_on_trial(&testbed) {
            assert!(!through);
            testbed.let_trial_pass();
            assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        } else {
            // whoever comes next finds it confirmed, and keeps it
            testbed.run("attach", &["-p", &paths[1]]).done();
            testbed.reboot();
            testbed.run("attach", &["--fall-back", "-p", &paths[1]]).done();
            assert_eq!(find_twin(&testbed, &place), 1, "point {point}");
        }
        if through {
            eprintln!("confirm: {} points", point - 1);
            assert!(point > 3);
            return;
        }
        testbed.run("apply", &[&paths[0]]).done();
    }
    panic!("it never ran through");
}

#[test]
fn whoever_dies_while_he_ends_a_trial_or_tidies_up_after_it_leaves_that_to_the_next() {
    let _machine = share_machine();
    let (testbed, paths) = stage();
    let place = testbed.place();
    let whole = list_pins(&testbed);
    for (command, passes) in [(&["rollback"][..], false), (&["apply", paths[0].as_str()], true)] {
        let mut through = false;
        for point in (1..MOST_POINTS).step_by(if passes { 1 } else { load_step().min(2) }) {
            testbed.run("apply", &[&paths[1], "--confirm", "1h"]).done();
            if passes {
                testbed.let_trial_pass();
            }
            let args = [&[command[0], "-i", NIC], &command[1..]].concat();
            through = runs_through(&testbed, point, &args);
            let live = find_twin(&testbed, &place);
            assert_eq!(live == 1, is_on_trial(&testbed), "{command:?}, point {point}");
            assert!(live == 0 || !passes, "{command:?}, point {point}");
            if live == 1 {
                testbed.run("rollback", &[]).done();
            }
            testbed.run("apply", &[&paths[0]]).done();
            assert_eq!(find_twin(&testbed, &place), 0, "{command:?}, point {point}");
            assert_eq!(list_pins(&testbed), whole, "{command:?}, point {point}");
            if through {
                eprintln!("{command:?}: {} points", point - 1);
                break;
            }
        }
        assert!(through, "{command:?} never ran through");
    }
}
