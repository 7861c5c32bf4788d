//! Captures of conversations, and what is learnt from them.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use portcullis::learn::{Learned, Request, Servers, learn};
use portcullis::policy_file::{CompiledPolicy, read_and_compile};
use tempfile::TempDir;

use crate::support::capture::{ETHERNET, Timed, pcap, write};
use crate::support::dmz::ip;
use crate::support::frame::{
    ACK, PSH, ROUTER_MAC, SYN, UDP, ethernet, packet, patched, tcp_numbered, udp_datagram,
};

/// Frames with their times, milliseconds. Servers are in 192.0.2.0/24, each with a MAC of its own.
#[derive(Clone, Default)]
pub(super) struct Capture {
    frames: Vec<Timed>,
    ports: u16,
}

fn is_server(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[..3] == [192, 0, 2])
}

fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(v4) if is_server(address) => [2, 0, 0, 0, 0, v4.octets()[3]],
        _ => ROUTER_MAC,
    }
}

impl Capture {
    fn put(&mut self, at_ms: u64, from: IpAddr, to: IpAddr, frame: &[u8]) {
        let frame = patched(&patched(frame, 0, &mac_of(to)), 6, &mac_of(from));
        self.frames.push((at_ms, frame));
    }

    fn port(&mut self) -> u16 {
        self.ports = (self.ports + 1) % 30_000;
        20_000 + self.ports
    }

    /// A SYN without an answer.
    pub(super) fn attempt(&mut self, at_ms: u64, from: &str, to: &str, port: u16) {
        let (from, to) = ((ip(from), self.port()), (ip(to), port));
        self.put(at_ms, from.0, to.0, &tcp_numbered(from, to, SYN, (at_ms as u32, 0)));
    }

    /// A whole connection.
    pub(super) fn connect(&mut self, at_ms: u64, from: &str, to: &str, port: u16) {
        let own = self.port();
        self.connect_from(at_ms, (from, own), to, port);
    }

    pub(super) fn connect_from(&mut self, at_ms: u64, (from, own): (&str, u16), to: &str, port: u16) {
        let (from, to, number) = ((ip(from), own), (ip(to), port), at_ms as u32);
        self.put(at_ms, from.0, to.0, &tcp_numbered(from, to, SYN, (number, 0)));
        self.put(at_ms, to.0, from.0, &tcp_numbered(to, from, SYN | ACK, (7, number + 1)));
        self.put(at_ms, from.0, to.0, &tcp_numbered(from, to, ACK, (number + 1, 8)));
        self.put(at_ms, from.0, to.0, &tcp_numbered(from, to, ACK | PSH, (number + 1, 8)));
        self.put(at_ms, to.0, from.0, &tcp_numbered(to, from, ACK, (8, number + 2)));
    }

    /// A connection whose opener has the MAC of somebody else.
    pub(super) fn connect_by(&mut self, at_ms: u64, mac: [u8; 6], from: &str, to: &str, port: u16) {
        let before = self.frames.len();
        self.connect(at_ms, from, to, port);
        for (_, frame) in &mut self.frames[before..] {
            if frame[6..12] == mac_of(ip(from)) {
                frame[6..12].copy_from_slice(&mac);
            }
        }
    }

    /// Segments of a connection whose begin nobody saw.
    pub(super) fn go_on(&mut self, at_ms: u64, from: &str, to: &str, port: u16) {
        let (from, to) = ((ip(from), self.port()), (ip(to), port));
        self.put(at_ms, from.0, to.0, &tcp_numbered(from, to, ACK | PSH, (50, 60)));
        self.put(at_ms, to.0, from.0, &tcp_numbered(to, from, ACK, (60, 51)));
    }

    fn datagram(&mut self, at_ms: u64, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) {
        let frame = ethernet(&packet(from.0, to.0, UDP, &udp_datagram(from, to, payload)));
        self.put(at_ms, from.0, to.0, &frame);
    }

    /// A datagram without an answer.
    pub(super) fn send(&mut self, at_ms: u64, from: &str, to: &str, port: u16) {
        let own = self.port();
        self.datagram(at_ms, (ip(from), own), (ip(to), port), b"datagram");
    }

    /// A datagram and its answer.
    pub(super) fn exchange(&mut self, at_ms: u64, from: &str, to: &str, port: u16) {
        let own = self.port();
        self.exchange_from(at_ms, (from, own), to, port);
    }

    pub(super) fn exchange_from(&mut self, at_ms: u64, (from, own): (&str, u16), to: &str, port: u16) {
        let (from, to) = ((ip(from), own), (ip(to), port));
        self.datagram(at_ms, from, to, b"question");
        self.datagram(at_ms, to, from, b"answer");
    }

    /// A DNS question with its answer.
    pub(super) fn look_up(&mut self, at_ms: u64, from: &str, resolver: &str, name: &str, addresses: &[&str]) {
        let (from, to) = ((ip(from), self.port()), (ip(resolver), 53));
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
        let question: Vec<u8> = labels.chain([0, 0, 1, 0, 1]).collect();
        let head = |flags: u16, answers: u16| -> Vec<u8> {
            [7, flags, 1, answers, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
        };
        let records = addresses.iter().flat_map(|address| {
            let IpAddr::V4(address) = ip(address) else { panic!("an IPv4 address") };
            [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &address.octets()].concat()
        });
        let answer: Vec<u8> =
            head(0x8180, addresses.len() as u16).into_iter().chain(question.clone()).chain(records).collect();
        self.datagram(at_ms, from, to, &[head(0x0100, 0), question].concat());
        self.datagram(at_ms, to, from, &answer);
    }

    /// Forgets all other frames.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&[u8]) -> bool) {
        self.frames.retain(|(_, frame)| is_kept(frame));
    }

    /// The file, in the order of the times.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut frames = self.frames.clone();
        frames.sort_by_key(|(at_ms, _)| *at_ms);
        pcap(ETHERNET, &frames)
    }
}

/// Needs that are proposed, as "web1 out tcp/80 to 198.51.100.80", sorted.
pub(super) fn needs(learned: &Learned) -> Vec<String> {
    let of_servers = learned.proposed.iter().flat_map(|need| {
        let servers: Vec<&str> = match need.direction {
            "management" => vec!["all"],
            _ => need.servers.iter().map(String::as_str).collect(),
        };
        servers
            .into_iter()
            .map(|server| format!("{server} {} {}", need.direction, need.need))
            .collect::<Vec<_>>()
    });
    let mut needs: Vec<String> = of_servers.collect();
    needs.sort();
    needs
}

/// A folder for captures and policies.
pub(super) struct Scene {
    folder: TempDir,
}

impl Scene {
    pub(super) fn new() -> Scene {
        Scene { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> String {
        write(self.folder.path(), name, bytes);
        self.path(name)
    }

    #[track_caller]
    pub(super) fn policy(&self, name: &str, text: &str) -> CompiledPolicy {
        let path = self.write(name, text.as_bytes());
        read_and_compile(path.as_ref()).expect("a file").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
    }

    #[track_caller]
    pub(super) fn learn(&self, capture: &Capture) -> Learned {
        self.learn_with(capture, |_| ())
    }

    /// The servers are those of 192.0.2.0/24, unless the request is changed.
    #[track_caller]
    pub(super) fn learn_with(&self, capture: &Capture, change: impl FnOnce(&mut Request<'_>)) -> Learned {
        let files = [PathBuf::from(self.write("dmz.pcap", &capture.bytes()))];
        let networks = vec!["192.0.2.0/24".parse().expect("a network")];
        let mut request = Request {
            files: &files,
            servers: Servers::Networks { networks, except: Vec::new() },
            is_increment: false,
            unused: None,
            aggregate: false,
        };
        change(&mut request);
        learn(&request).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What a policy lacks.
    #[track_caller]
    pub(super) fn learn_against(
        &self,
        capture: &Capture,
        policy: &CompiledPolicy,
        unused: Option<std::time::Duration>,
    ) -> Learned {
        let files = [PathBuf::from(self.write("dmz.pcap", &capture.bytes()))];
        let servers = Servers::Policy(policy);
        let request = Request { files: &files, servers, is_increment: true, unused, aggregate: false };
        learn(&request).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The program itself: status, standard output, standard error.
    pub(super) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        let output = command.args(arguments).current_dir(self.folder.path()).output().expect("a run");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// Lets the program read so many packets, each of another connection and peer, and returns the most memory that it had,
/// KiB.
pub(super) fn learn_from_a_flood(packets: u32) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["learn", "-j", "--servers", "192.0.2.0/24", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a run");
    let pid = child.id();
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).map(|_| text)
    });
    let mut seed = Capture::default();
    seed.connect(0, "198.51.100.9", "192.0.2.80", 443);
    seed.exchange(0, "192.0.2.80", "198.51.100.9", 53);
    let bytes = seed.bytes();
    input.write_all(&bytes).expect("the begin");
    let syn = seed.frames[0].1.clone();
    let answer = seed.frames[1].1.clone();
    let end = seed.frames[2].1.clone();
    let mut block = Vec::new();
    for number in 0..packets.div_ceil(3) {
        let seconds = (crate::support::capture::BEGIN_NS / 1_000_000_000) as u32 + number / 1000;
        for (frame, client_at, port_at) in [(&syn, 26, 34), (&answer, 30, 36), (&end, 26, 34)] {
            let mut frame = frame.clone();
            let client = 0x0a00_0000_u32 + number;
            frame[client_at..client_at + 4].copy_from_slice(&client.to_be_bytes());
            frame[port_at..port_at + 2].copy_from_slice(&(number as u16).to_be_bytes());
            // many servers and many services
            let (server_at, service_at) = if client_at == 26 { (30, 36) } else { (26, 34) };
            frame[server_at + 3] = (number % 250) as u8 + 1;
            frame[service_at..service_at + 2].copy_from_slice(&((number / 64) as u16).to_be_bytes());
            let length = frame.len() as u32;
            block.extend([seconds, number % 1000 * 1_000_000, length, length].map(u32::to_le_bytes).concat());
            block.extend(&frame);
        }
        if block.len() > 1 << 20 {
            input.write_all(&block).expect("packets");
            block.clear();
        }
    }
    input.write_all(&block).expect("packets");
    drop(input);
    let mut high = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        high = high.max(now.unwrap_or(0));
        match child.try_wait().expect("a child") {
            Some(status) => {
                let text = reader.join().expect("a thread").expect("an output");
                assert!(status.success(), "{status}");
                let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                let notes = found["notes"].to_string();
                assert!(notes.contains("openings were of services that found no room"), "{notes}");
                assert!(found["packets"].as_u64() >= Some(u64::from(packets)), "all packets are read");
                return high;
            }
            None => std::thread::yield_now(),
        }
    }
}
