//! Grants of names through deaths: wherever a command dies, the next attach has them all, and opens nothing else.

use super::fault_points::{MOST_POINTS, died, load_step};
use crate::e2e::command::Outcome;
use crate::e2e::name_resolvers::{is_open, policy};
use crate::e2e::resolver::{Resolver, look_up};
use crate::e2e::socket::ARRIVES;
use crate::e2e::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::dns::A;

const NAME: &str = "deb.vendor.example";

#[track_caller]
fn prove_granted(testbed: &Testbed, path: &str, command: &str, point: usize) {
    let said = testbed.run("attach", &["-p", path]).done();
    assert!(!said.err.contains("damaged"), "{command}, point {point}: {said:#?}");
    assert!(is_open(testbed, &V4, V4.peer), "{command}, point {point}: the grant is lost");
    assert!(!is_open(testbed, &V4, V4.clock), "{command}, point {point}");
}

#[test]
fn wherever_an_attach_or_a_detach_dies_the_next_attach_has_the_grants_of_before() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &policy(&[V4.router], ""));
    testbed.run("attach", &["-p", &path]).done();
    let zone = Resolver::start(&testbed.router, V4.router);
    zone.set(NAME, &[V4.peer], 3_600);
    assert!(look_up(&testbed.dmz, V4.web, V4.router, NAME, A, ARRIVES));
    prove_granted(&testbed, &path, "none", 0);
    for args in [&["detach", "-i", NIC][..], &["attach", "-i", NIC, "-p", &path]] {
        let mut through = false;
        for point in (1..MOST_POINTS).step_by(2 * load_step()) {
            if args[0] == "attach" {
                testbed.detach();
            }
            let mut command = testbed.router.prepare(args);
            command.env("PORTCULLIS_DIE_AT", point.to_string());
            through = !died(&Outcome::of(&mut command), point);
            // what was cut short in between is no gate
            let tried = testbed.run("attach", &["-p", &path]);
            if tried.code != Some(0) {
                tried.refused(&["incomplete", "help:", "detach -i dmz0"]);
                testbed.detach();
            }
            prove_granted(&testbed, &path, args[0], point);
            if through {
                assert!(point > 10, "{} has {point} points", args[0]);
                break;
            }
        }
        assert!(through, "{} never ran through", args[0]);
    }
}
