//! Resolvers: unbound and dnsmasq, on the router, beyond it, and on a server that asks the router's.

use super::scene::{Client, Scene, policy, policy_of_router, resolv_conf};
use crate::e2e::legitimate::names::COMMON;
use crate::e2e::legitimate::service::Service;
use crate::e2e::testbed::{FAMILIES, Family, Namespace, Testbed, V4, V6};

/// A few lookups: enough to see that a resolver is followed.
const FEW: u32 = 60;
/// The name of each of these has other addresses in each answer.
pub const NAMES: [&str; 3] = ["cdn.vendor.example", "n%d.mirror.example", "alias.vendor.example"];

/// Listens at these addresses, and forwards what is below `example` to these.
pub fn start_unbound(
    testbed: &Testbed,
    machine: &Namespace,
    at: &[&str],
    forward_to: &[&str],
    settings: &str,
) -> Service {
    let interfaces: String = at.iter().map(|at| format!("    interface: {at}\n")).collect();
    let forwards: String = forward_to.iter().map(|to| format!("    forward-addr: {to}\n")).collect();
    // a module-config of the settings comes last, and the last one counts
    let text =
        format!("server:{COMMON}{interfaces}{settings}\nforward-zone:\n    name: \"example.\"\n{forwards}");
    let name = format!("unbound-{}", at[0].replace(':', "-"));
    let path = testbed.write(&format!("{name}.conf"), &text);
    let listens: Vec<_> = at.iter().flat_map(|at| [("udp", *at, 53), ("tcp", *at, 53)]).collect();
    Service::start(testbed, machine, &name, &["unbound", "-d", "-c", &path], &listens)
}

/// Unbound on the router, which asks the authority.
pub fn start_on_router(scene: &Scene, settings: &str) -> Service {
    let (at, to) = (FAMILIES.map(|family| family.router), FAMILIES.map(|family| family.resolver));
    start_unbound(&scene.testbed, &scene.testbed.router, &at, &to, settings)
}

/// dnsmasq, likewise.
fn start_dnsmasq(testbed: &Testbed, machine: &Namespace, at: &[&str], forward_to: &[&str]) -> Service {
    let name = format!("dnsmasq-{}", at[0].replace(':', "-"));
    let listens: Vec<_> = at.iter().flat_map(|at| [("udp", *at, 53), ("tcp", *at, 53)]).collect();
    let mut command = vec![
        "dnsmasq".to_owned(),
        "-k".to_owned(),
        "-C".to_owned(),
        "/dev/null".to_owned(),
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        "--bind-interfaces".to_owned(),
        "--user=root".to_owned(),
        "--log-facility=-".to_owned(),
        "--pid-file=".to_owned(),
        "--dns-forward-max=1000".to_owned(),
    ];
    command.extend(at.iter().map(|at| format!("--listen-address={at}")));
    command.extend(forward_to.iter().map(|to| format!("--server={to}")));
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    Service::start(testbed, machine, &name, &command, &listens)
}

/// Looks a few names up by each of these resolvers.
#[track_caller]
fn look_up_by(scene: &Scene, resolvers: &[&str]) {
    for resolver in resolvers {
        let resolv_conf = resolv_conf(&[resolver], "");
        let done = scene.look_up(&Client { each: 8, ..Client::of(&resolv_conf) }, FEW, &NAMES);
        assert!(done.connections > done.lookups, "{done:?}");
    }
}

fn of_router(family: Family) -> &'static str {
    family.router
}

#[test]
fn what_dnsmasq_on_the_router_answers_is_open() {
    let scene = Scene::new();
    let (at, to) = (FAMILIES.map(of_router), FAMILIES.map(|family| family.resolver));
    let _dnsmasq = start_dnsmasq(&scene.testbed, &scene.testbed.router, &at, &to);
    scene.testbed.attach(&policy_of_router());
    look_up_by(&scene, &at);
    scene.prove_no_drop();
}

#[test]
fn what_a_resolver_beyond_the_router_answers_is_open() {
    let scene = Scene::new();
    // a host of the internet that asks the authority
    let at = ["203.0.113.7", "2001:db8:f::7"];
    let to = FAMILIES.map(|family| family.resolver);
    let _unbound = start_unbound(&scene.testbed, &scene.testbed.internet, &at, &to, "");
    scene.testbed.attach(&policy(&at, "forgeable = true"));
    look_up_by(&scene, &at);
    scene.prove_no_drop();
}

#[test]
fn a_resolver_on_the_server_may_mix_the_case_of_its_questions_and_ask_over_tcp() {
    let scene = Scene::new();
    let at = FAMILIES.map(of_router);
    let _router = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    // 0x20: what comes back in another case is refused there
    let mixed = "    use-caps-for-id: yes\n    outgoing-interface: 192.0.2.80\n    outgoing-interface: 2001:db8:1::80\n";
    for settings in [mixed.to_owned(), format!("{mixed}    tcp-upstream: yes\n")] {
        let _local = start_unbound(&scene.testbed, &scene.testbed.dmz, &["127.0.0.1"], &at, &settings);
        look_up_by(&scene, &["127.0.0.1"]);
    }
    scene.prove_no_drop();
}

#[test]
fn a_dnsmasq_on_the_server_is_followed() {
    let scene = Scene::new();
    let _router = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    for to in FAMILIES.map(of_router) {
        let _local = start_dnsmasq(&scene.testbed, &scene.testbed.dmz, &["127.0.0.1"], &[to]);
        look_up_by(&scene, &["127.0.0.1"]);
    }
    scene.prove_no_drop();
}

#[test]
fn an_address_of_nat64_that_dns64_makes_is_open() {
    let scene = Scene::new();
    let dns64 = "    module-config: \"dns64 iterator\"\n    dns64-prefix: 2001:db8:64::/96\n";
    let _unbound = start_on_router(&scene, dns64);
    scene.testbed.attach(&policy(&[V4.router, V6.router], "nat64 = [\"2001:db8:64::/96\"]"));
    for resolver in FAMILIES.map(of_router) {
        let resolv_conf = resolv_conf(&[resolver], "");
        let client = Client { family: "6", each: 8, ..Client::of(&resolv_conf) };
        let done = scene.look_up(&client, FEW, &["four.vendor.example"]);
        assert_eq!(done.connections, 8 * done.lookups);
    }
    scene.prove_no_drop();
}
