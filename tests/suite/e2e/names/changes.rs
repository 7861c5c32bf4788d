//! Every lookup is followed at once by a connection, and none is dropped, whatever changes meanwhile.
//! `PORTCULLIS_LOOKUPS` makes these runs longer.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::sys::signal::Signal;

use super::resolvers::{NAMES, start_on_router};
use super::scene::{CLIENTS, Client, Done, LOOKUPS, Scene, lookups, policy_of_router, resolv_conf};
use crate::e2e::legitimate::site::Stop;
use crate::e2e::socket::udp;
use crate::e2e::testbed::{FAMILIES, V4, V6, ip};
use crate::support::chance::Chance;
use crate::support::dns::{A, Message};
use crate::support::patience::eventually;

/// How often something changes at least, in a run of the usual length.
const CHANGES: u32 = 12;
const RESTARTS: u32 = 4;
/// Questions of a neighbour at least: more than its share has room for.
const QUESTIONS: u32 = 30_000;

/// A longer run has more of them.
fn scaled(count: u32) -> u32 {
    (count * CLIENTS * lookups() / LOOKUPS).max(count)
}

/// Clients look names up and connect while `change` works, and so often as is asked for at least.
fn look_up_during(scene: &Scene, change: impl FnOnce()) -> Done {
    let go_on = scene.go_on();
    fs::write(&go_on, "").expect("a file");
    let done = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let family = FAMILIES[number as usize % 2];
                scope.spawn(move || {
                    let resolv_conf = resolv_conf(&[family.router], "");
                    scene.look_up(&Client::of(&resolv_conf), lookups(), &NAMES)
                })
            })
            .collect();
        let over = Over(&go_on);
        change();
        drop(over);
        clients.into_iter().map(|client| client.join().expect("a client")).fold(
            Done::default(),
            |sum, one| Done {
                lookups: sum.lookups + one.lookups,
                connections: sum.connections + one.connections,
            },
        )
    });
    assert!(done.lookups >= CLIENTS * lookups() && done.connections == 2 * done.lookups, "{done:?}");
    done
}

/// Lets the clients end, also when the change panics.
struct Over<'a>(&'a str);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
fn every_lookup_is_followed_by_a_connection_and_none_is_dropped() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    let done = look_up_during(&scene, || ());
    eprintln!("{done:?}");
    scene.prove_no_drop();
}

#[test]
fn none_is_dropped_while_policies_are_swapped() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    let same = policy_of_router();
    let texts = [
        same.clone(),
        // other servers and roles, other names before these, another order of sets
        same.replace("[servers.web1]", "[roles.more]\nin = [\"tcp/25\"]\n[servers.a]\naddresses = [\"192.0.2.99\"]\nroles = [\"more\"]\n[servers.web1]"),
        same.replace("mirrors = [", "mirrors = [\"a.first.example\", \"*.another.example\", "),
        same.replace("[sets]", "[sets]\nmore = [\"z.example.net\", \"cdn.vendor.example\"]")
            .replace("\"tcp/80 to @mirrors\"", "\"tcp/80 to @more\", \"tcp/80 to @mirrors\""),
        same.replace("pickup = 0", "pickup = 0\ntracking = \"strict\"")
            .replace("\"cdn.vendor.example\", ", "\"*.vendor.example\", \"CDN.vendor.example\", "),
    ];
    scene.testbed.attach(&same);
    let swaps = AtomicU32::new(0);
    let done = look_up_during(&scene, || {
        for number in 1..=scaled(CHANGES) {
            scene.testbed.apply(&texts[number as usize % texts.len()]);
            swaps.fetch_add(1, Ordering::Relaxed);
        }
    });
    eprintln!("{done:?} during {} swaps", swaps.into_inner());
    scene.prove_no_drop();
}

#[test]
fn none_is_dropped_while_the_daemon_is_killed_and_started() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    let policy = policy_of_router();
    let mut daemon = scene.testbed.daemon(&policy, &[]);
    let done = look_up_during(&scene, || {
        for signal in [Signal::SIGKILL, Signal::SIGTERM].into_iter().cycle().take(scaled(RESTARTS) as usize) {
            daemon.end(signal);
            daemon = scene.testbed.daemon(&policy, &[]);
        }
    });
    eprintln!("{done:?} during {} restarts", scaled(RESTARTS));
    assert!(daemon.find(&["alarm #"]).is_empty(), "{:#?}", daemon.said());
    scene.prove_no_drop();
}

#[test]
fn none_is_dropped_while_a_neighbour_floods_questions() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    // a resolver that never answers: unbound is not what this is about
    scene.testbed.router.ip("address add 192.0.2.2/32 dev lo\n");
    scene.testbed.dmz.ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:01 dev eth0 nud permanent\n");
    let _deaf = udp(&scene.testbed.router, "192.0.2.2", 53);
    scene.testbed.attach(&super::scene::policy(&[V4.router, V6.router, "192.0.2.2"], ""));
    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let done = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| flood_questions(&scene, &stop, &sent));
        look_up_during(&scene, || {
            eventually("the neighbour floods", || sent.load(Ordering::Relaxed) >= QUESTIONS);
        })
    });
    eprintln!("{done:?} during {} questions of a neighbour", sent.into_inner());
    scene.prove_no_drop();
}

/// Questions of one server about names of its needs, each with an id and a port of its own.
fn flood_questions(scene: &Scene, stop: &AtomicBool, sent: &AtomicU32) {
    let to = SocketAddr::new(ip("192.0.2.2"), 53);
    let sockets: Vec<_> = (0..64).map(|_| udp(&scene.testbed.dmz, V4.mail, 0)).collect();
    let mut chance = Chance::new(0x1234_5678);
    while !stop.load(Ordering::Relaxed) {
        let id = u16::try_from(chance.below(1 << 16)).expect("16 bits");
        let name = format!("f{}.mirror.example", chance.below(1 << 20));
        let question = Message::query(id, &name, A).bytes();
        if sockets[chance.below(sockets.len())].send_to(&question, to).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}
