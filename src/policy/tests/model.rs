//! The model that a policy is read into, with the place of everything in it.

use crate::alarm::Kind;
use crate::policy::{QuarantineTime, Response, parse};

use super::{
    BASE, Detail, Direction, Mode, Policy, STARTER, Tracking, UnknownSources, describe, read, summarize,
};

const FULL: &str = r#"[policy]
mode = "observe"
tracking = "service"
unknown_sources = "quiet"
management = ["tcp/22 from @bastion"]
pickup = 60
dhcp = true

[sets]
bastion = ["203.0.113.7", "2001:db8:f::/64"]

[roles.web]
in  = ["tcp/80", "tcp/443"]
quiet = [
    "udp/137-138",
    "udp/5353", # mDNS
]

[servers.web1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
mac   = "02:00:00:00:00:10"
vlan  = 7
roles = ["web"]
mode = "enforce"

[servers.a]
addresses = ["192.0.2.128/26"]

[alarms]
eve = "/var/log/eve.json"

[tables]
established = 1000
"#;

#[test]
fn a_full_policy_is_read_as_it_is_written() {
    let policy = read(FULL);
    let settings = &policy.settings;
    assert_eq!(settings.mode.value, Mode::Observe);
    assert_eq!(settings.tracking.value, Tracking::Service);
    assert_eq!(settings.unknown_sources.value, UnknownSources::Quiet);
    assert_eq!((settings.pickup_s.value, settings.dhcp.value), (60, true));
    assert_eq!(settings.management[0].direction, Direction::In);
    assert_eq!(policy.sets["bastion"].members.len(), 2);
    let names: Vec<&str> = policy.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["web1", "a"], "servers keep the order of the file");
    assert_eq!(policy.servers[0].macs[0].0, [2, 0, 0, 0, 0, 0x10]);
    assert_eq!(policy.servers[0].vlan.unwrap().0, 7);
    assert_eq!(policy.alarms.eve.as_deref(), Some("/var/log/eve.json"));
    assert_eq!((policy.tables.established.value, policy.tables.half_open.value), (1000, 65_536));
}

#[test]
fn every_place_that_a_verdict_may_name_is_kept() {
    let policy = read(FULL);
    let line = |place: Option<super::Location>| place.map(|place| policy.locate(&place));
    let at = |number: u32| Some(format!("dmz.toml:{number}"));
    assert_eq!(line(policy.settings.mode.place), at(2));
    assert_eq!(line(policy.settings.unknown_sources.place), at(4));
    assert_eq!(line(Some(policy.settings.management[0].place)), at(5));
    let web = policy.find_role("web").unwrap();
    assert_eq!((web.inbound[1].place.line, web.inbound[1].place.column), (13, 19));
    assert_eq!((web.quiet[1].place.line, web.quiet[1].place.column), (16, 6));
    let server = policy.find_server("web1").unwrap();
    assert_eq!((server.place.line, server.addresses[1].1.line, server.addresses[1].1.column), (19, 20, 29));
    assert_eq!(line(Some(server.macs[0].1)), at(21));
    assert_eq!(line(server.vlan.map(|(_, place)| place)), at(22));
    assert_eq!(line(Some(server.roles_place)), at(23));
    assert_eq!(line(server.mode.map(|(_, place)| place)), at(24));
}

#[test]
fn a_server_without_roles_has_its_name_as_the_place_of_its_roles() {
    let policy = read(FULL);
    assert_eq!(policy.servers[1].roles_place, policy.servers[1].place);
}

#[test]
fn what_is_left_out_has_its_default_and_no_place() {
    let settings = read(BASE).settings;
    assert_eq!((settings.mode.value, settings.mode.place), (Mode::Enforce, None));
    assert_eq!(
        (settings.tracking.value, settings.unknown_sources.value),
        (Tracking::Strict, UnknownSources::Deny)
    );
    assert_eq!(
        (settings.unknown_sources.place, settings.pickup_s.value, settings.dhcp.value),
        (None, 120, false)
    );
}

#[test]
fn a_servers_own_mode_overrides_the_policys() {
    let policy = read(FULL);
    assert_eq!(policy.mode_of(&policy.servers[0]), Mode::Enforce);
    assert_eq!(policy.mode_of(&policy.servers[1]), Mode::Observe);
}

#[test]
fn inline_and_dotted_tables_are_tables_as_well() {
    let policy = read(
        "roles.web.in = [\"tcp/80\"]\nservers = { s = { addresses = [\"192.0.2.1\"], roles = [\"web\"] } }\n",
    );
    assert_eq!(policy.servers[0].name, "s");
    assert_eq!(policy.roles[0].inbound[0].to_string(), "tcp/80");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    let policy = read(&format!("\u{feff}{}", FULL.replace('\n', "\r\n")));
    assert_eq!(policy.servers[0].place.line, 19);
}

fn starter() -> Policy {
    parse(STARTER, "starter.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_starter_policy_is_valid() {
    let policy = starter();
    let mut roles: Vec<&str> = policy.roles.iter().map(|role| role.name.as_str()).collect();
    roles.sort_unstable();
    assert_eq!(roles, ["dns", "mail", "managed", "web"]);
    assert!(policy.find_role("web").unwrap().outbound.is_empty());
    assert!(["bastion", "loghosts", "ntp"].iter().all(|name| policy.sets.contains_key(*name)));
    assert!(crate::compile::compile(&policy).is_ok());
}

#[test]
fn a_description_says_what_each_server_may_do() {
    assert_eq!(
        describe(&read(FULL), Detail::Full),
        "\
mode observe, tracking service, unknown sources quiet
open flows are taken over for 60 s, DHCP is allowed
every server accepts tcp/22 from @bastion

web1  192.0.2.10, 2001:db8:1::10  mac 02:00:00:00:00:10  vlan 7  mode enforce
  roles    web
  accepts  tcp/80
           tcp/443
  opens    nothing
  quiet    udp/137-138
           udp/5353

a  192.0.2.128/26
  roles    none
  accepts  nothing
  opens    nothing

sets
  @bastion  203.0.113.7, 2001:db8:f::/64
"
    );
}

#[test]
fn a_summary_is_json() {
    let json = serde_json::to_value(summarize(&read(FULL))).unwrap();
    assert_eq!(json["servers"][0]["accepts"], serde_json::json!(["tcp/80", "tcp/443"]));
    assert_eq!(json["servers"][0]["mac"], "02:00:00:00:00:10");
    assert_eq!(json["servers"][1]["mode"], "observe");
    assert_eq!(json["management"], serde_json::json!(["tcp/22 from @bastion"]));
}

#[test]
fn every_sink_has_a_key_and_without_any_there_is_only_standard_error() {
    use crate::policy::{Alarms, Endpoint, SyslogTarget};
    let alarms = |lines: &str| {
        parse(&format!("[servers.a]\naddresses = [\"192.0.2.1\"]\n[alarms]\n{lines}"), "x").unwrap().alarms
    };
    assert_eq!(alarms(""), Alarms::default());
    let all = alarms(
        "eve = \"/e\"\necs = \"/f\"\ncef = \"/c\"\npcapng = \"/p\"\nrotate_mib = 0\nrotate_keep = 9\n\
         journald = true\nsyslog = \"tls://[2001:db8::5]\"\nalertmanager = \"https://am:9093/prefix/\"\n\
         command = [\"/bin/page\", \"-x y\"]\ncommand_timeout = 5\ntls_ca = \"/ca.pem\"\n",
    );
    assert_eq!(all.syslog, Some(SyslogTarget::Tls(Endpoint { host: "2001:db8::5".into(), port: 6514 })));
    assert_eq!(all.alertmanager.0, ["https://am:9093/prefix"]);
    let words: Vec<String> = all.entries().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        words.join(" "),
        "eve=/e ecs=/f cef=/c pcapng=/p rotate_mib=0 rotate_keep=9 journald=true \
         syslog=tls://[2001:db8::5]:6514 alertmanager=https://am:9093/prefix alertmanager_user=none \
         alertmanager_password_file=none alertmanager_token_file=none mail_server=none mail_from=none \
         mail_to=none mail_user=none mail_password_file=none command=/bin/page -x y \
         command_timeout=5 tls_ca=/ca.pem"
    );
    for (text, shown) in [
        ("unix:/dev/log", "unix:/dev/log"),
        ("udp://loghost", "udp://loghost:514"),
        ("tcp://198.51.100.20:1514", "tcp://198.51.100.20:1514"),
    ] {
        let parsed = alarms(&format!("syslog = \"{text}\"")).syslog;
        assert_eq!(parsed.map(|syslog| syslog.to_string()).as_deref(), Some(shown));
    }
}

#[test]
fn the_daemon_does_nothing_by_itself_unless_it_is_asked_to() {
    let response = |lines: &str| {
        let text = format!("{BASE}[alarms]\n{lines}\n");
        parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}")).response
    };
    assert_eq!(response(""), Response::default());
    assert!(response("").quarantine_on.is_empty());
    assert_eq!((response("").quarantine_for.seconds(), response("").history_days), (Some(3600), 90));
    let asked =
        response("quarantine_on = [\"spread\", \"scan\"]\nquarantine_for = \"10m\"\nhistory_days = 7");
    assert_eq!(asked.quarantine_on, [Kind::Spread, Kind::Scan]);
    assert_eq!((asked.quarantine_for.seconds(), asked.history_days), (Some(600), 7));
    assert_eq!(response("quarantine_for = \"released\"").quarantine_for, QuarantineTime::UntilReleased);
}
