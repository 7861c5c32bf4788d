//! What clients do: the ways in which glibc asks, curl, and apt, which asks for the place of a service.

use std::fs;

use super::resolvers::{NAMES, start_on_router};
use super::scene::{Client, PACKAGES, Scene, policy_of_router, resolv_conf};
use crate::e2e::testbed::FAMILIES;

const FEW: u32 = 40;

#[test]
fn glibc_may_ask_in_every_way_it_has() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    let ways = [
        "",
        "options edns0 trust-ad",
        "options use-vc",
        "options single-request",
        "options single-request-reopen",
        "options use-vc edns0",
    ];
    for family in FAMILIES {
        for way in ways {
            let resolv_conf = resolv_conf(&[family.router], way);
            let client = Client { each: 8, ..Client::of(&resolv_conf) };
            let mixed = ["CDN.vendor.EXAMPLE", "N%d.MIRROR.example"];
            let done = scene.look_up(&client, FEW, &[&NAMES[..], &mixed].concat());
            assert!(done.connections > 2 * done.lookups, "{way}: {done:?}");
        }
    }
    scene.prove_no_drop();
}

#[test]
fn a_name_is_found_by_a_search_list() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    for family in FAMILIES {
        let resolv_conf = resolv_conf(
            &[family.router],
            "search corp.example vendor.example mirror.example\noptions ndots:2",
        );
        let done = scene.look_up(&Client::of(&resolv_conf), FEW, &["cdn", "n%d", "cdn.vendor.example"]);
        assert_eq!(done.connections, 2 * done.lookups);
    }
    scene.prove_no_drop();
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_over_tcp_and_all_of_it_is_open() {
    let scene = Scene::new();
    // the longest that unbound sends in a datagram, so that this one is cut for every client
    let _unbound = start_on_router(&scene, "    max-udp-size: 512\n");
    scene.testbed.attach(&policy_of_router());
    for family in FAMILIES {
        for way in ["", "options edns0"] {
            let resolv_conf = resolv_conf(&[family.router], way);
            let client = Client { each: 100, ..Client::of(&resolv_conf) };
            let done = scene.look_up(&client, 4, &["many.vendor.example"]);
            assert_eq!(done.connections, 200 * done.lookups);
        }
    }
    scene.prove_no_drop();
}

#[test]
fn curl_reaches_what_it_was_answered() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    for family in FAMILIES {
        let resolv_conf = resolv_conf(&[family.router], "");
        for flag in ["-4", "-6", "-s"] {
            let urls: Vec<String> = (0..20)
                .map(|number| format!("http://c{number}-{flag}-{}.mirror.example/", family.router.len()))
                .collect();
            let urls = urls.iter().map(String::as_str).chain(["http://cdn.vendor.example/"]);
            let command: Vec<&str> = ["curl", "-sS", "--fail", flag].into_iter().chain(urls).collect();
            let said = scene.run_resolving(&resolv_conf, &command);
            assert_eq!(said, Some("hello\n".repeat(21)), "{:#?}", scene.testbed.drops());
        }
    }
    scene.prove_no_drop();
}

#[test]
fn apt_finds_its_mirror_by_the_place_of_the_service() {
    let scene = Scene::new();
    let _unbound = start_on_router(&scene, "");
    scene.testbed.attach(&policy_of_router());
    for (number, family) in (0..).zip(FAMILIES) {
        let root = scene.testbed.folder.join(format!("apt{number}"));
        for folder in ["state/lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let source = "deb [trusted=yes allow-insecure=yes] http://deb.vendor.example ./\n";
        fs::write(root.join("etc/sources.list"), source).expect("a file");
        fs::write(root.join("status"), "").expect("a file");
        let at = |path: &str| root.join(path).display().to_string();
        // nothing of this machine's, and no other user
        let settings = [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("etc/sources.list")),
            format!("Dir::Etc::sourceparts={}", at("none")),
            format!("Dir::Etc::parts={}", at("none")),
            format!("Dir::Etc::main={}", at("none")),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::http::Proxy=DIRECT".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::GzipIndexes=false".to_owned(),
        ];
        let settings = settings.iter().flat_map(|setting| ["-o", setting]);
        let command: Vec<&str> = ["apt-get"].into_iter().chain(settings).chain(["update"]).collect();
        let resolv_conf = resolv_conf(&[family.router], "");
        let said = scene.run_resolving(&resolv_conf, &command).expect("apt-get, of the package apt");
        let lists = fs::read_dir(root.join("state/lists")).expect("a folder").flatten();
        let list = lists.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("Packages"));
        let list = list.map(|path| fs::read_to_string(path).expect("a file"));
        assert_eq!(list.as_deref(), Some(PACKAGES), "{said}");
    }
    assert!(scene.authority.asked("_http._tcp.deb.vendor.example") >= 1);
    scene.prove_no_drop();
}
