use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::carry::{find_carried, list_carried};
use super::holders::Holders;
use super::orders::{AddressOrders, Order};
use super::saved::{self, Left, Saved, SavedAddress, SavedServer, Span};
use crate::clock::Clock;

const S: u64 = 1_000_000_000;

fn net(text: &str) -> IpNet {
    match text.contains('/') {
        true => text.parse().unwrap(),
        false => IpNet::from(text.parse::<std::net::IpAddr>().unwrap()),
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

/// From lines `NAME PREFIX PREFIX…`.
fn holders(lines: &[&str]) -> Holders {
    Holders::new(lines.iter().flat_map(|line| {
        let mut words = line.split(' ');
        let name: Arc<str> = words.next().unwrap().into();
        words.map(move |word| (net(word), Arc::clone(&name)))
    }))
}

fn until(until_ns: u64) -> Order {
    Order { until_ns, since_ns: 1, ..Order::default() }
}

#[test]
fn a_server_has_its_prefixes_without_what_others_have_in_them() {
    let policy = holders(&["farm 192.0.2.128/29", "web1 192.0.2.130 2001:db8:1::10", "mail 192.0.2.132/31"]);
    assert_eq!(
        policy.addresses_of("farm"),
        nets(&["192.0.2.128/31", "192.0.2.131", "192.0.2.134/31"]),
        "the longest prefix wins"
    );
    assert_eq!(policy.addresses_of("web1"), nets(&["192.0.2.130", "2001:db8:1::10"]));
    let find = |address: &str| policy.find(address.parse().unwrap());
    assert_eq!(find("192.0.2.129"), Some("farm"));
    assert_eq!(find("192.0.2.133"), Some("mail"));
    assert_eq!(find("192.0.2.136"), None);
    let parts: Vec<_> = policy.divide(net("192.0.2.128/28"));
    let of = |name: &str| -> Vec<IpNet> {
        parts.iter().filter(|(_, holder)| *holder == Some(name)).map(|(part, _)| *part).collect()
    };
    assert_eq!(of("mail"), nets(&["192.0.2.132/31"]));
    assert_eq!(of("farm"), nets(&["192.0.2.128/31", "192.0.2.131", "192.0.2.134/31"]));
    assert!(parts.contains(&(net("192.0.2.136/29"), None)));
}

#[test]
fn a_server_loses_what_another_policy_gives_to_others_or_to_nobody() {
    let old = holders(&["farm 192.0.2.128/29", "web1 192.0.2.130", "ns1 192.0.2.53"]);
    let renamed = holders(&["pool 192.0.2.128/29", "web1 192.0.2.130"]);
    // web1 was never cut off with the farm
    assert_eq!(old.lost_by("farm", &renamed), nets(&["192.0.2.128/31", "192.0.2.131", "192.0.2.132/30"]));
    assert_eq!(old.lost_by("ns1", &renamed), nets(&["192.0.2.53"]));
    let carved = holders(&["farm 192.0.2.128/29", "new 192.0.2.133"]);
    assert_eq!(old.lost_by("farm", &carved), nets(&["192.0.2.133"]));
    let wider = holders(&["farm 192.0.2.0/24"]);
    assert_eq!(old.lost_by("farm", &wider), []);
}

#[test]
fn a_large_prefix_with_many_servers_in_it_is_compared_by_what_differs() {
    let single = |number: u32| -> IpNet { format!("2001:db8:1:a::{number:x}/128").parse().unwrap() };
    let others = (0..4_000).map(|number| (single(number * 16), Arc::<str>::from(format!("s{number}"))));
    let around = || [(net("2001:db8:1:a::/64"), Arc::<str>::from("farm"))].into_iter();
    let old = Holders::new(others.clone().chain(around()));
    let new = Holders::new(others.skip(1).chain([(single(1), "new".into())]).chain(around()));
    assert_eq!(old.lost_by("farm", &new), [single(1)]);
    assert_eq!(new.lost_by("farm", &old), [single(0)]);
    assert_eq!(old.lost_by("farm", &old), []);
    assert!(old.addresses_of("farm").len() > 4_000);
}

#[test]
fn a_longer_prefix_never_ends_before_one_around_it() {
    let (machine, farm) = (net("192.0.2.130"), net("192.0.2.128/26"));
    let mut orders = AddressOrders::default();
    orders.set(machine, until(10));
    orders.carry(farm, until(20));
    assert_eq!(orders.0[&machine].until_ns, 20, "it would hide the farm's order after its own end");
    orders.carry(farm, until(15));
    assert_eq!(orders.0[&farm].until_ns, 20, "an order that is carried shortens nothing");
    orders.carry(farm, until(0));
    assert_eq!((orders.0[&farm].until_ns, orders.0[&machine].until_ns), (0, 0), "for good");
    orders.set(net("192.0.2.131"), until(10));
    assert_eq!(orders.0[&net("192.0.2.131")].until_ns, 0);
    orders.set(net("192.0.2.1"), until(10));
    orders.set(net("192.0.2.1"), until(5));
    assert_eq!(orders.0[&net("192.0.2.1")].until_ns, 5, "the last word about just this address");
}

#[test]
fn an_order_keeps_the_mac_that_was_seen_before() {
    let mut orders = AddressOrders::default();
    orders.set(net("192.0.2.130"), Order { mac: 7, ..until(10) });
    orders.set(net("192.0.2.130"), until(20));
    assert_eq!(orders.0[&net("192.0.2.130")], Order { mac: 7, ..until(20) });
    orders.carry(net("192.0.2.130"), Order { server: 3, ..until(30) });
    assert_eq!(orders.0[&net("192.0.2.130")], Order { mac: 7, ..until(30) });
}

#[test]
fn a_release_takes_out_just_the_addresses_that_it_names() {
    let mut orders = AddressOrders::default();
    orders.carry(net("192.0.2.128/30"), Order { server: 3, ..until(0) });
    orders.set(net("192.0.2.1"), until(0));
    assert_eq!(orders.remove(&nets(&["192.0.2.129"])), nets(&["192.0.2.129"]));
    let left: Vec<IpNet> = orders.0.keys().copied().collect();
    assert_eq!(left, nets(&["192.0.2.1", "192.0.2.128", "192.0.2.130/31"]));
    assert_eq!(orders.0[&net("192.0.2.130/31")].server, 3);
    assert_eq!(orders.find(net("192.0.2.131")).map(|(row, _)| *row), Some(net("192.0.2.130/31")));
    assert_eq!(orders.find(net("192.0.2.129")), None);
    assert_eq!(orders.remove(&nets(&["198.51.100.0/24"])), []);
    assert_eq!(orders.remove(&nets(&["192.0.2.0/24"])).len(), 3);
}

#[test]
fn a_policy_that_moves_addresses_says_which_stay_cut_off_and_which_come_to_it() {
    let old = holders(&["web1 192.0.2.10 192.0.2.12", "ns1 192.0.2.53", "farm 192.0.2.128/26"]);
    let new = holders(&["web9 192.0.2.10", "web1 192.0.2.11 192.0.2.53", "pool 192.0.2.128/26"]);
    let mut single = AddressOrders::default();
    single.set(net("192.0.2.130"), until(0));
    single.set(net("192.0.2.9"), until(0));
    let carried = find_carried(&old, &new, &["web1".to_owned()], &single);
    assert_eq!(
        list_carried(&carried),
        "! 192.0.2.10 stays in quarantine: it was web1's, and web9 has it now\n\
         ! 192.0.2.11 comes into quarantine: web1 has it now, and is in quarantine\n\
         ! 192.0.2.12 stays in quarantine: it was web1's, and no server has it now\n\
         ! 192.0.2.130 stays in quarantine: it was farm's, and pool has it now\n\
         ! 192.0.2.53 comes into quarantine: web1 has it now, and is in quarantine\n"
    );
    assert_eq!(find_carried(&old, &old, &["web1".to_owned()], &single), []);
    assert_eq!(find_carried(&old, &new, &[], &AddressOrders::default()), []);
}

// ---- the file ------------------------------------------------------------------------------

fn clock(mono_s: u64, wall: &str) -> Clock {
    Clock { mono_ns: mono_s * S, wall: wall.parse().unwrap() }
}

#[test]
fn a_quarantine_goes_on_after_a_reboot_for_what_is_left_of_its_time() {
    let before = clock(5_000, "2026-11-22T15:00:00Z");
    let span = Span::of(4_900 * S, 8_600 * S, &before);
    assert_eq!(span.until, Some("2026-11-22T16:00:00Z".parse().unwrap()));
    // the router was off for ten minutes, and its clock of ticks begins anew
    let (since_ns, until_ns) = span.to_mono_ns(&clock(30, "2026-11-22T15:10:00Z")).unwrap();
    assert_eq!((since_ns, until_ns), (0, (30 + 3_000) * S));
    assert_eq!(span.to_mono_ns(&clock(30, "2026-11-22T16:00:00Z")), None, "over");
    assert_eq!(span.to_mono_ns(&clock(30, "2026-11-23T14:50:00Z")), None, "over");
    let for_good = Span::of(4_900 * S, 0, &before);
    assert_eq!(for_good.to_mono_ns(&clock(30, "2027-01-01T00:00:00Z")).unwrap().1, 0);
}

#[test]
fn a_clock_that_is_not_set_yet_makes_no_quarantine_longer_than_it_was() {
    let span = Span::of(4_900 * S, 8_500 * S, &clock(5_000, "2026-11-22T15:00:00Z"));
    let boot = clock(30, "1970-01-01T00:00:30Z");
    assert_eq!(span.to_mono_ns(&boot), Some((30 * S, (30 + 3_600) * S)));
    // one that is ahead shortens none to nothing, and the last picture says what was left
    let late = Span::of(4_900 * S, 8_500 * S, &clock(7_000, "2026-11-22T15:33:20Z"));
    for wall in ["2026-11-24T00:00:00Z", "2038-01-19T03:14:07Z", "2106-02-07T06:28:15Z"] {
        let wall: Timestamp = wall.parse().unwrap();
        assert_eq!(late.find_left(wall), Left::InDoubt(1_800 * S), "{wall}");
        assert_eq!(Span { left_s: None, ..late }.find_left(wall), Left::InDoubt(3_600 * S), "{wall}");
    }
    assert_eq!(late.find_left("2026-11-22T18:00:00Z".parse().unwrap()), Left::Over);
    // a long one that is not over ends when it was to end
    let long = Span::of(0, 30 * 86_400 * S, &clock(0, "2026-11-22T15:00:00Z"));
    assert_eq!(long.find_left("2026-12-20T15:00:00Z".parse().unwrap()), Left::For(2 * 86_400 * S));
    // and the next picture has the same length
    let next = Span::of(30 * S, (30 + 3_600) * S, &boot);
    assert_eq!(next.until.unwrap().as_second() - next.since.as_second(), 3_600);
}

#[test]
fn two_readings_of_the_clocks_give_the_same_span() {
    let first = clock(5_000, "2026-11-22T15:00:00Z");
    let mut second = clock(5_001, "2026-11-22T15:00:01Z");
    second.mono_ns += 700;
    assert_eq!(Span::of(4_900 * S, 8_500 * S, &first), Span::of(4_900 * S, 8_500 * S, &second));
}

fn example() -> Saved {
    let span = Span {
        since: "2026-11-22T15:00:00Z".parse().unwrap(),
        until: Some("2026-11-22T16:00:00Z".parse().unwrap()),
        left_s: None,
    };
    let farm = SavedServer {
        name: "farm".to_owned(),
        addresses: nets(&["192.0.2.128/30", "2001:db8:1:a::/64"]),
        except: nets(&["192.0.2.129"]),
        macs: vec!["02:00:00:00:00:30".to_owned()],
        span: Span { until: None, ..span },
    };
    let machine = SavedAddress {
        address: net("192.0.2.10"),
        mac: Some("02:00:00:00:00:10".to_owned()),
        server: None,
        span,
    };
    let lost = SavedAddress {
        address: net("198.51.100.0/25"),
        mac: None,
        server: Some("farm".to_owned()),
        span: Span { until: None, ..span },
    };
    Saved::new(vec![farm], vec![machine, lost])
}

/// A folder of the test's own, gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pc-{}-quarantines-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state").join("quarantines.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_saved_is_read_again_and_is_for_root_alone() {
    let folder = Folder::new("saved");
    let path = folder.file();
    assert_eq!(saved::read(&path).unwrap(), Saved::default(), "no file");
    saved::write(&path, &Saved::new(Vec::new(), Vec::new())).unwrap();
    assert!(!path.exists(), "nothing to keep");
    saved::write(&path, &example()).unwrap();
    assert_eq!(saved::read(&path).unwrap(), example());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
    let others: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(others.len(), 1, "{others:?}");
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    saved::write(&path, &Saved::default()).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_damaged_file_is_put_aside_and_said() {
    let folder = Folder::new("damaged");
    let path = folder.file();
    saved::write(&path, &example()).unwrap();
    let whole = fs::read(&path).unwrap();
    let newer = String::from_utf8(whole.clone()).unwrap().replace("\"version\": 1", "\"version\": 2");
    for damaged in [&whole[..whole.len() / 2], b"", b"\xff\xfe", b"[]", newer.as_bytes()] {
        fs::write(&path, damaged).unwrap();
        let mut warnings = Vec::new();
        assert_eq!(saved::take(&path, &mut warnings), (Saved::default(), true));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("quarantines.json.damaged now"), "{warnings:?}");
        assert!(!path.exists());
        assert_eq!(fs::read(path.with_added_extension("damaged")).unwrap(), damaged);
    }
    // what a death left behind is in nobody's way
    fs::write(path.with_added_extension("new"), "half").unwrap();
    saved::write(&path, &example()).unwrap();
    assert_eq!(saved::take(&path, &mut Vec::new()), (example(), true));
    // what can't be read just now is not damaged
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mut warnings = Vec::new();
    assert_eq!(saved::take(&path, &mut warnings), (Saved::default(), false));
    assert!(warnings[0].contains("it stays as it is") && path.exists(), "{warnings:?}");
}

#[test]
fn a_bad_row_costs_no_other_and_an_address_needs_no_length() {
    let folder = Folder::new("rows");
    let path = folder.file();
    let row = |address: &str| format!("{{\"address\": \"{address}\", \"since\": \"2026-11-22T15:00:00Z\"}}");
    let rows = ["192.0.2.10", "192.0.2.300", "2001:db8::/64"].map(row).join(", ");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("{{\"version\": 1, \"addresses\": [{rows}]}}")).unwrap();
    let mut warnings = Vec::new();
    let (saved, is_kept) = saved::take(&path, &mut warnings);
    assert_eq!((saved.names(), is_kept), (vec!["192.0.2.10".to_owned(), "2001:db8::/64".to_owned()], true));
    assert!(
        warnings[0].starts_with("1 of the quarantines") && warnings[0].contains("192.0.2.300"),
        "{warnings:?}"
    );
    assert!(path.exists() && path.with_added_extension("damaged").exists());
    assert!(saved::read(&path).is_err());
    // without a copy nobody may write over it
    let aside = path.with_added_extension("damaged");
    fs::remove_file(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("full"), "").unwrap();
    assert!(!saved::take(&path, &mut warnings).1);
    fs::write(&path, "{").unwrap();
    assert_eq!(saved::take(&path, &mut warnings), (Saved::default(), false));
    assert!(path.exists() && warnings.last().unwrap().contains("it stays as it is"), "{warnings:?}");
}

#[test]
fn a_quarantine_that_waits_for_the_next_attach_can_be_released() {
    let mut all = example();
    assert!(!all.release("web1") && !all.release("192.0.2.11"));
    let with = |target: &str| example().find_server_of(target);
    assert_eq!(with("192.0.2.130").as_deref(), Some("farm"));
    assert_eq!(with("2001:db8:1::/48").as_deref(), Some("farm"));
    assert_eq!([with("192.0.2.129"), with("192.0.2.10"), with("farm")], [None, None, None]);
    assert_eq!(all, example());
    assert!(all.release("192.0.2.10"));
    assert_eq!(all.names(), ["farm", "198.51.100.0/25"]);
    assert!(all.release("198.51.100.127"));
    assert_eq!(all.addresses.len(), 7, "all of the prefix but one address");
    assert!(all.release("farm"));
    assert!(all.is_empty(), "with what the farm had lost: {all:?}");

    let mut all = example();
    all.prune("2026-11-22T15:59:59Z".parse().unwrap());
    assert_eq!(all, example());
    all.prune("2026-11-22T16:00:00Z".parse().unwrap());
    assert_eq!(all.names(), ["farm", "198.51.100.0/25"]);
}

#[test]
fn the_addresses_of_a_saved_server_are_those_that_no_other_had() {
    assert_eq!(
        example().servers[0].holders().addresses_of("farm"),
        nets(&["192.0.2.128", "192.0.2.130/31", "2001:db8:1:a::/64"])
    );
}
