//! Policies that several tests use.

/// Small tables: a gate is made for each test.
pub const TABLES: &str = "
[tables]
servers = 64
established = 4096
half_open = 4096
datagrams = 4096
icmp = 256
unlisted = 4096
fragments = 256
ledger = 4096
limits = 64
";

/// The servers that most tests have, and the peers that their needs name.
pub const SETS_AND_SERVERS: &str = r#"
[sets]
bastion  = ["203.0.113.7", "2001:db8:f::7"]
loghosts = ["198.51.100.20", "2001:db8:2::20"]
clocks   = ["198.51.100.30", "2001:db8:2::30"]

[servers.ns1]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["dns", "managed"]

[servers.mx1]
addresses = ["192.0.2.25", "2001:db8:1::25"]
roles = ["mail", "managed"]

[servers.web1]
addresses = ["192.0.2.80", "2001:db8:1::80"]
roles = ["web", "managed"]
"#;

/// What they need.
const NEEDS: &str = r#"
[policy]
management = ["tcp/22 from @bastion"]
pickup = 0

[roles.dns]
in  = ["udp/53", "tcp/53"]
out = ["udp/53", "tcp/53"]

[roles.mail]
in  = ["tcp/25", "tcp/113"]
out = ["tcp/25", "tcp/113"]

[roles.web]
in = ["tcp/80", "tcp/443"]

[roles.managed]
out = ["udp/514 to @loghosts", "udp/123 to @clocks"]
"#;

/// A name server, a mail server and a web server, as the documentation has them, with small tables.
pub fn dmz() -> String {
    format!("{NEEDS}{SETS_AND_SERVERS}{TABLES}")
}

/// [`dmz`] with settings in `[policy]`, as `mode = "observe"`.
pub fn dmz_with(settings: &str) -> String {
    dmz().replacen("pickup = 0\n", &format!("pickup = 0\n{settings}\n"), 1)
}

/// [`dmz`] with an event file.
pub fn dmz_with_eve(path: &str) -> String {
    format!("{}\n[alarms]\neve = \"{path}\"\n", dmz())
}

/// [`dmz`] with other `in` services of the web server.
pub fn dmz_with_web(services: &str) -> String {
    dmz().replacen(r#"in = ["tcp/80", "tcp/443"]"#, &format!("in = [{services}]"), 1)
}

/// Two policies that both let anyone ask the web server at udp/7000, let the mail server send to
/// udp/9000 and forbid that to the web server, and that differ in all else: servers and their
/// ids, the order of roles and so the numbers of profiles, ranges, sets. Whoever mixed the two
/// would judge one of the three wrong. What also tells them apart: the web server may open
/// tcp/9001 by the first, tcp/9002 by the second.
pub const TWINS: [&str; 2] = [
    r#"
[policy]
pickup = 0

[roles.answers]
in  = ["udp/7000", "tcp/1000-2000"]
out = ["tcp/9001"]

[roles.posts]
out = ["udp/9000"]

[servers.web1]
addresses = ["192.0.2.80", "2001:db8:1::80"]
roles = ["answers"]

[servers.mx1]
addresses = ["192.0.2.25", "2001:db8:1::25"]
roles = ["posts"]

[servers.first]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["posts", "answers"]
"#,
    r#"
[policy]
pickup = 0

[sets]
everyone = ["0.0.0.0/0", "::/0"]
peers    = ["198.51.100.0/24", "2001:db8:2::/48"]

[roles.posts]
out = ["udp/9000 to @peers", "udp/100-4000"]

[roles.serves]
in  = ["udp/7000 from @everyone"]

[roles.more]
in  = ["tcp/3000-4000", "tcp/80"]
out = ["tcp/9002"]

[servers.second]
addresses = ["192.0.2.53", "2001:db8:1::/112"]
roles = ["posts"]

[servers.mx1]
addresses = ["192.0.2.25", "2001:db8:1::25"]
roles = ["posts"]

[servers.web1]
addresses = ["192.0.2.80", "2001:db8:1::80"]
roles = ["serves", "more"]
"#,
];

/// One of [`TWINS`] with small tables.
pub fn twin(which: usize) -> String {
    format!("{}{TABLES}", TWINS[which % 2])
}
