//! Objects that other compilers have made. `PORTCULLIS_OBJECTS` names them, with colons in between;
//! without it the one that is built in has to do.

use std::env;
use std::fs;
use std::sync::{Arc, LazyLock};

use portcullis::abi::Reason;
use portcullis::gate::{Gate, OBJECT};

use crate::support::dmz::{POLICY, in_both_families};
use crate::support::frame::{ACK, SYN, tcp, udp};
use crate::support::test_gate::{TestGate, read_policy};

/// Instructions that the verifier may process for one program. The kernel gives up at a million;
/// this is about half more than the costliest pair of compiler and kernel took when it was set, so
/// that a change of the programs that makes them dear is seen long before a kernel refuses them.
const MOST_VERIFIED: u32 = 250_000;

fn read_objects() -> Vec<(String, Vec<u8>)> {
    let Ok(paths) = env::var("PORTCULLIS_OBJECTS") else {
        return vec![("the built-in object".to_owned(), OBJECT.to_vec())];
    };
    let objects: Vec<_> = paths
        .split(':')
        .filter(|path| !path.is_empty())
        .map(|path| {
            let object = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path.to_owned(), object)
        })
        .collect();
    assert!(!objects.is_empty(), "PORTCULLIS_OBJECTS names nothing");
    objects
}

/// A gate of each object: the verifier takes its time, so one is enough.
static GATES: LazyLock<Vec<(String, Arc<Gate>)>> = LazyLock::new(|| {
    let (policy, tables) = read_policy(POLICY, &[]);
    let load = |(name, object): (String, Vec<u8>)| {
        let gate =
            Gate::load_object(&object, &policy, &tables).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, Arc::new(gate))
    };
    read_objects().into_iter().map(load).collect()
});

#[test]
fn every_compilers_object_passes_what_must_pass_and_drops_what_must_not() {
    for (name, gate) in &*GATES {
        println!("{name}"); // shown when what follows fails
        let gate = TestGate::of(Arc::clone(gate));
        in_both_families(|family| {
            gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
            gate.drops(&udp((family.ns, 40_000), (family.peer, 54)), Reason::NewFlow);
            gate.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
            gate.establish((family.web, 80), (family.peer, 51_000));
            gate.passes(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::Reply);
            gate.drops(&tcp((family.web, 80), (family.peer, 51_000), SYN), Reason::NewFlow);
            gate.drops(&tcp((family.unknown, 80), (family.peer, 51_000), SYN), Reason::UnknownSource);
        });
    }
}

#[test]
fn the_verifiers_work_stays_below_a_limit() {
    for (name, gate) in &*GATES {
        for (program, work) in gate.programs.verifier_work().expect("programs") {
            // scripts/vm makes its table of these lines
            println!("verifier: {} {program} {work}", name.rsplit('/').next().unwrap_or(name));
            assert!(work > 0, "the kernel does not say what {program} of {name} cost");
            assert!(work <= MOST_VERIFIED, "{program} of {name} costs the verifier {work} instructions");
        }
    }
}
