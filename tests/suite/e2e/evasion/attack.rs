//! A run of a tool, and the proof that it sends what the gate keeps in.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::catch::Catch;
use crate::e2e::policies::dmz;
use crate::e2e::socket::{ARRIVES, TcpServer, UdpServer, tcp_talks, udp_talks};
use crate::e2e::testbed::{FAMILIES, Plug, Testbed, V4, V6, ip};
use crate::support::patience::{Wait, eventually, within};

/// One line of a table of tools.
pub struct Attack {
    /// Program and arguments; WEB, DNS, PEER, OTHER and their like with a 6 are addresses.
    pub line: &'static str,
    pub shows: &'static str,
}

/// Longer than any of them needs; the floods among them never end by themselves.
const DEADLINE: Duration = Duration::from_secs(3);

/// A process that is ended with its scope.
pub struct Tool(Child);

impl Tool {
    pub fn start(mut command: Command) -> Tool {
        Tool(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the tool"))
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// Waits for its end, or makes one.
    pub fn end_within(mut self, patience: Duration) {
        within(patience, || !self.is_running());
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
            if !within(Duration::from_secs(2), || !self.is_running()) {
                let _ = self.0.kill();
            }
        }
        let _ = self.0.wait();
    }
}

impl Attack {
    fn run(&self, testbed: &Testbed) {
        let mut words = self.line.split(' ').map(|word| {
            [("WEB6", V6.web), ("DNS6", V6.dns), ("PEER6", V6.peer), ("OTHER6", V6.resolver), ("WEB", V4.web)]
                .into_iter()
                .chain([("DNS", V4.dns), ("PEER", V4.peer), ("OTHER", V4.resolver), ("_", " ")])
                .fold(word.to_owned(), |word, (name, address)| word.replace(name, address))
        });
        let mut command = testbed.dmz.command(words.next().expect("a program"));
        command.args(words).current_dir(&testbed.folder);
        Tool::start(command).end_within(DEADLINE);
    }
}

/// A testbed in which something permitted can be tried.
pub struct Stage {
    pub testbed: Testbed,
    beyond: Catch,
    inside: Catch,
    _log: Vec<UdpServer>,
    _web: TcpServer,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::plugged(Plug::Cable)
    }

    pub fn plugged(plug: Plug) -> Stage {
        let testbed = Testbed::plugged(plug);
        // a router that follows source routes, as those that one would attack do
        testbed.router.enter(|| {
            for nic in ["all", "dmz0", "wan0"] {
                let path = format!("/proc/sys/net/ipv4/conf/{nic}/accept_source_route");
                std::fs::write(path, "1").expect("a knob");
            }
        });
        let (beyond, inside) = (Catch::beyond(&testbed), Catch::inside(&testbed));
        let log = FAMILIES.map(|family| UdpServer::start(&testbed.internet, family.loghost, 514)).into();
        let web = TcpServer::start(&testbed.dmz, 80);
        Stage { testbed, beyond, inside, _log: log, _web: web }
    }

    /// What the web server has to do goes on.
    #[track_caller]
    pub fn prove_service(&self) {
        for family in FAMILIES {
            let (log, web) = (SocketAddr::new(ip(family.loghost), 514), SocketAddr::new(ip(family.web), 80));
            eventually("the server logs", || {
                udp_talks(&self.testbed.dmz, family.web, log, Wait::AtMost(Duration::from_secs(1)))
            });
            assert!(
                tcp_talks(&self.testbed.internet, ip(family.exchanger), web, ARRIVES),
                "the web server answers"
            );
        }
    }

    /// Does something, and tells how many frames the servers sent meanwhile and how many got out.
    pub fn watch(&self, act: impl FnOnce()) -> (usize, usize) {
        self.beyond.settle(&self.testbed);
        self.inside.settle(&self.testbed);
        self.beyond.forget();
        self.inside.forget();
        act();
        let got_out = self.beyond.settle(&self.testbed);
        (self.inside.settle(&self.testbed), got_out)
    }

    /// The longest frames meanwhile, inside and beyond.
    pub fn longest(&self) -> (usize, usize) {
        (self.inside.longest(), self.beyond.longest())
    }

    pub fn count_drops(&self) -> u64 {
        self.testbed.drops().iter().map(crate::e2e::command::Row::packets).sum()
    }

    /// Does something that the gate must keep in: nothing gets out, and drops are counted.
    #[track_caller]
    pub fn prove_kept_in(&self, what: &str, act: impl FnOnce()) -> usize {
        let before = self.count_drops();
        let (sent, got_out) = self.watch(act);
        assert_eq!(got_out, 0, "{what}: frames got out, of {sent}: {:02x?}", self.beyond.heads());
        assert!(sent > 0, "{what}: nothing was sent");
        assert!(self.count_drops() > before, "{what}: {sent} frames, and no drop");
        sent
    }

    pub fn detach(&self) {
        self.testbed.detach();
        self.testbed.wait_for_detach();
    }
}

/// Plays a table: without the gate each tool's packets arrive, with it none does, and what is
/// permitted passes before, meanwhile and afterwards.
#[track_caller]
pub fn play(list: &[Attack]) {
    let stage = Stage::new();
    stage.prove_service();
    let mut harmless = Vec::new();
    let (mut arrived_before, mut sent_behind) = (0, 0);
    for attack in list {
        let (sent, arrived) = stage.watch(|| attack.run(&stage.testbed));
        println!("without the gate: {sent} sent, {arrived} arrived: {}", attack.line);
        arrived_before += arrived;
        if arrived == 0 {
            harmless.push(attack.line);
        }
    }
    assert!(harmless.is_empty(), "nothing of these arrives even without a gate: {harmless:#?}");

    stage.testbed.attach(&dmz());
    stage.prove_service();
    for attack in list {
        let sent = stage.prove_kept_in(attack.line, || attack.run(&stage.testbed));
        println!("with the gate: {sent} sent, none arrived: {}", attack.line);
        sent_behind += sent;
    }
    stage.prove_service();

    stage.detach();
    stage.prove_service();
    let (_, arrived) = stage.watch(|| list[0].run(&stage.testbed));
    assert!(arrived > 0, "it passes again");
    println!(
        "{} lines: {arrived_before} frames arrived without the gate; with it {sent_behind} were sent, none arrived",
        list.len()
    );
}
