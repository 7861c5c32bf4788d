//! Objects that other compilers have made. `PORTCULLIS_OBJECTS` names them, with colons in between;
//! without it the one that is built in has to do.

use std::env;
use std::fs;

use portcullis::gate::{Gate, OBJECT};
use portcullis::reason::Reason;

use crate::support::bench::{Bench, read_policy};
use crate::support::dmz::{FAMILIES, POLICY};
use crate::support::frame::{ACK, SYN, tcp, udp};

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

#[test]
fn every_compilers_object_passes_what_must_pass_and_drops_what_must_not() {
    let (policy, tables) = read_policy(POLICY, &[]);
    for (name, object) in read_objects() {
        println!("{name}"); // shown when what follows fails
        let gate =
            Gate::load_object(&object, &policy, &tables).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bench = Bench::of(gate);
        for family in FAMILIES {
            bench.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
            bench.drops(&udp((family.ns, 40_000), (family.peer, 54)), Reason::NewFlow);
            bench.drops(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::NoFlow);
            bench.establish((family.web, 80), (family.peer, 51_000));
            bench.passes(&tcp((family.web, 80), (family.peer, 51_000), ACK), Reason::Reply);
            bench.drops(&tcp((family.web, 80), (family.peer, 51_000), SYN), Reason::NewFlow);
            bench.drops(&tcp((family.unknown, 80), (family.peer, 51_000), SYN), Reason::UnknownSource);
        }
    }
}
