//! A DMZ whose servers reach others by name: an authority beyond the router whose addresses change, a host that
//! has all of them, and the clients of a server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::RwLockReadGuard;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::e2e::legitimate::service::{ENOUGH, run_client};
use crate::e2e::policies::TABLES;
use crate::e2e::socket::{NEVER, tcp_talks, udp};
use crate::e2e::testbed::{FAMILIES, Namespace, Testbed, V4, V6, ip, share_machine};
use crate::support::authority::{Authority, PRIVATE, SRV_PORT};
use crate::support::patience::Wait;

/// Clients of a server, who run at the same time.
pub const CLIENTS: u32 = 2;
/// Lookups of a run, of all clients together: enough for each address, and quick.
pub const LOOKUPS: u32 = 400;
/// The port of needs on which the host echoes.
pub const ECHO: u16 = 443;
/// Addresses that names may have, and that no answer has.
const NEVER_ANSWERED: [&str; 2] = ["198.51.100.40", "2001:db8:51:ffff::1"];

/// How many lookups a client makes.
pub fn lookups() -> u32 {
    let all = std::env::var("PORTCULLIS_LOOKUPS");
    all.map_or(LOOKUPS, |text| text.parse().expect("a number")) / CLIENTS
}

/// A policy with these resolvers and settings of `[names]`, under which two servers have needs by name.
pub fn policy(resolvers: &[&str], settings: &str) -> String {
    let to = resolvers.join(", ");
    format!(
        r#"
[policy]
pickup = 0

[names]
resolvers = {resolvers:?}
private = {PRIVATE}
{settings}

[sets]
mirrors = ["cdn.vendor.example", "many.vendor.example", "alias.vendor.example", "four.vendor.example", "*.mirror.example"]

[roles.client]
out = ["udp/53 to {to}", "tcp/53 to {to}", "tcp/{ECHO} to @mirrors", "tcp/80 to @mirrors", "tcp/{SRV_PORT} to *.mirror.example"]

[servers.web1]
addresses = ["{}", "{}"]
roles = ["client"]

[servers.mx1]
addresses = ["{}", "{}"]
roles = ["client"]
{TABLES}
grants = 16384
"#,
        V4.web, V6.web, V4.mail, V6.mail
    )
}

/// A policy under which the router's own resolver counts.
pub fn policy_of_router() -> String {
    policy(&[V4.router, V6.router], "")
}

pub struct Scene {
    pub testbed: Testbed,
    pub authority: Authority,
    _host: Vec<Host>,
    _machine: RwLockReadGuard<'static, ()>,
}

impl Scene {
    /// Without a gate, and without a resolver.
    pub fn new() -> Scene {
        let machine = share_machine();
        let testbed = Testbed::new();
        // whatever an answer may have is an address of this host
        testbed.internet.ip("route add local 198.51.100.0/24 dev lo\n\
             route add local 2001:db8:50::/47 dev lo\n\
             route add local 2001:db8:64::/96 dev lo\n");
        // of all the servers that share a machine here, web1 is the one that asks and calls
        testbed.dmz.ip(&format!(
            "route replace default via {} src {}\n\
             route replace default via {} dev eth0 src {}\n\
             route replace 2001:db8:1::/64 dev eth0 proto kernel metric 256 src {}\n",
            V4.router, V4.web, V6.router, V6.web, V6.web
        ));
        let datagrams = FAMILIES.map(|family| udp(&testbed.internet, family.resolver, 53));
        let listeners = FAMILIES.map(|family| {
            let at = SocketAddr::new(ip(family.resolver), 53);
            testbed.internet.enter(|| TcpListener::bind(at)).expect("a free port")
        });
        let authority = Authority::start(datagrams.into(), listeners.into());
        let host = [(ECHO, echo as fn(TcpStream)), (80, serve_mirror), (SRV_PORT, serve_mirror)];
        let host = host.map(|(port, serve)| Host::start(&testbed, port, serve)).into();
        Scene { testbed, authority, _host: host, _machine: machine }
    }

    /// Has a client look up these names by a resolver at these addresses, and connect to what it is answered. What
    /// it printed: how many lookups and connections.
    #[track_caller]
    pub fn look_up(&self, client: &Client<'_>, count: u32, names: &[&str]) -> Done {
        let script = self.testbed.write("look_up.py", include_str!("look_up.py"));
        let (count, each) = (count.to_string(), client.each.to_string());
        let go_on = self.go_on();
        let (port, seconds) = (ECHO.to_string(), ENOUGH.duration().as_secs().to_string());
        let command =
            ["/usr/bin/python3", &script, &count, &each, client.family, &port, &seconds, &go_on].to_vec();
        let said = self.run_resolving(client.resolv_conf, &[command, names.to_vec()].concat());
        let said = said.unwrap_or_else(|| {
            let counts = [&self.testbed.dmz, &self.testbed.internet].map(count_tcp);
            panic!("the client failed; TCP: {counts:#?}; dropped: {:#?}", self.testbed.drops())
        });
        let mut numbers = said.split_whitespace().map(|word| word.parse().expect("a number"));
        Done { lookups: numbers.next().expect("a number"), connections: numbers.next().expect("a number") }
    }

    /// A file: while it is there, clients go on.
    pub fn go_on(&self) -> String {
        self.testbed.folder.join("go-on").display().to_string()
    }

    /// Runs a command in the DMZ whose glibc has this /etc/resolv.conf.
    pub fn run_resolving(&self, resolv_conf: &str, command: &[&str]) -> Option<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let resolv = self.testbed.write(&format!("resolv-{number}.conf"), resolv_conf);
        let switch = self.testbed.write("nsswitch.conf", "hosts: files dns\n");
        let mounts = format!(
            "mount --bind {resolv} /etc/resolv.conf && mount --bind {switch} /etc/nsswitch.conf && exec \"$@\""
        );
        let shell = ["unshare", "--mount", "--", "sh", "-c", &mounts, "sh"];
        // a run takes as long as it takes; it ends by itself at the first failure
        run_client(&self.testbed.dmz, LONG, &[&shell[..], command].concat())
    }

    /// Nothing was dropped so far, and what nobody was answered is, from here on.
    #[track_caller]
    pub fn prove_no_drop(&self) {
        let drops = self.testbed.drops();
        assert!(drops.is_empty(), "permitted packets were dropped: {drops:#?}");
        let dropped = || self.testbed.dropped("web1", "tcp", ECHO, "destination");
        for (family, address) in FAMILIES.into_iter().zip(NEVER_ANSWERED) {
            let before = dropped();
            assert!(!tcp_talks(&self.testbed.dmz, ip(family.web), SocketAddr::new(ip(address), ECHO), NEVER));
            assert!(dropped() > before, "{address} was not dropped");
        }
    }
}

/// What TCP of a machine has counted, for a failure that is none of the gate's.
fn count_tcp(machine: &Namespace) -> String {
    let output = machine.command("cat").args(["/proc/net/netstat", "/proc/net/snmp"]).output().expect("cat");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp")).collect();
    let pairs = lines.chunks(2).filter(|pair| pair.len() == 2);
    let counts = pairs.flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()));
    let counts = counts.filter(|(_, count)| *count != "0").map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// How long a run of clients may take at most: the long form has 10,000 lookups.
const LONG: Wait = Wait::AtMost(Duration::from_secs(600));

/// What clients have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub lookups: u32,
    pub connections: u32,
}

/// How a client asks.
pub struct Client<'a> {
    pub resolv_conf: &'a str,
    /// `0` for both, `4` or `6`.
    pub family: &'a str,
    /// To how many addresses of each family it connects.
    pub each: u32,
}

impl Client<'_> {
    pub fn of(resolv_conf: &str) -> Client<'_> {
        Client { resolv_conf, family: "0", each: 1 }
    }
}

/// The /etc/resolv.conf of a client, patient enough for a busy machine.
pub fn resolv_conf(resolvers: &[&str], more: &str) -> String {
    let lines = resolvers.iter().map(|resolver| format!("nameserver {resolver}\n"));
    format!("{}options timeout:3 attempts:6\n{more}\n", lines.collect::<String>())
}

/// A TCP server for every address of the internet.
struct Host {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start(testbed: &Testbed, port: u16, serve: fn(TcpStream)) -> Host {
        let listener = testbed.internet.enter(|| TcpListener::bind(("::", port))).expect("a free port");
        let acceptor = listener.try_clone().expect("a socket");
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = acceptor.accept() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                std::thread::spawn(move || serve(stream));
            }
        });
        Host { listener, thread: Some(thread) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: no pointers. Wakes whoever waits in accept(2), with an error.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut word = [0; 4];
    while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
}

/// What the mirror of apt has.
pub const PACKAGES: &str = "Package: hello\nVersion: 1.0\nArchitecture: all\nFilename: ./hello.deb\nSize: 5\n\
     SHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\nDescription: hello\n";

/// A web server with one file, and nothing else.
fn serve_mirror(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 8192 || stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (status, body) = match head.split_whitespace().nth(1) {
        Some(path) if path.ends_with("/Packages") => ("200 OK", PACKAGES),
        Some("/") => ("200 OK", "hello\n"),
        _ => ("404 Not Found", ""),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes());
}
