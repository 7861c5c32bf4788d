//! A router for each filter, between one DMZ and one outside.
//!
//! ```text
//!   dmz  s0 ------- dmz0 router 0 out0 ------- o0  outside
//!        s1 ------- dmz0 router 1 out0 ------- o1
//! ```
//!
//! All hosts are network namespaces of this run. Each router keeps its filter for the whole run, so filters can
//! take turns within a millisecond and nothing is attached or detached in between. A packet that leaves a
//! router is dropped as soon as it is outside.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{TC_INGRESS, TcHookBuilder};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use std::os::fd::BorrowedFd;

use crate::traffic::Macs;

const NAMESPACES: &str = "/run/netns";
/// The beginning of every namespace's name. The process id follows.
const PREFIX: &str = "pc-bench";

const SERVER_MAC: &str = "02:00:00:00:00:01";
const DMZ0_MAC: &str = "02:00:00:00:00:02";
const OUT0_MAC: &str = "02:00:00:00:00:03";
const OUTSIDE_MAC: &str = "02:00:00:00:00:04";

/// The MAC addresses of frames from the servers.
pub const FROM_SERVERS: Macs = Macs { destination: [2, 0, 0, 0, 0, 2], source: [2, 0, 0, 0, 0, 1] };
/// The MAC addresses of frames from outside.
pub const FROM_OUTSIDE: Macs = Macs { destination: [2, 0, 0, 0, 0, 3], source: [2, 0, 0, 0, 0, 4] };

/// A network namespace, deleted on drop.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    pub fn make(name: &str) -> Result<Namespace> {
        let name = format!("{PREFIX}-{}-{name}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let file = File::open(Path::new(NAMESPACES).join(&name))?;
        Ok(Namespace { name, file })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a function in a thread of its own, inside the namespace.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let joined = std::thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("could not enter a namespace")?;
                act()
            };
            scope.spawn(inside).join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves this thread into the namespace.
    pub fn visit(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("could not enter a namespace")
    }

    /// A command inside the namespace. `ip netns exec` would mount another /sys, which hides the pins.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMESPACES}/{}", self.name)).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program inside the namespace, with lines on its standard input.
    pub fn feed(&self, program: &str, arguments: &[&str], lines: &str) -> Result<()> {
        feed(self.command(program).args(arguments), lines)
    }

    /// Sets a key below `/proc/sys/net`.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| {
            fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("sysctl {key}"))
        })
    }

    pub fn index_of(&self, interface: &str) -> Result<u32> {
        self.enter(|| if_nametoindex(interface).with_context(|| format!("no NIC {interface}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// Runs a command that must succeed. Returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("could not run {command:?}"))?;
    if !output.status.success() {
        bail!("failed: {command:?}\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, lines: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not run {command:?}"))?;
    child.stdin.take().context("no standard input")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("failed: {command:?}\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// One router and its two links.
pub struct Lane {
    pub name: &'static str,
    pub router: Namespace,
    /// The router's NIC that faces the servers.
    pub nic: String,
    /// Index of the NIC in the DMZ that sends to `nic`.
    pub from_servers: u32,
    /// Index of the NIC outside that sends to `out0`.
    pub from_outside: u32,
    counters: std::cell::RefCell<File>,
}

/// Packet counters of a router's two NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub came_in: u64,
    pub went_out: u64,
}

impl Lane {
    /// Packets that came in from the servers, and packets that left at `out0`.
    pub fn count(&self) -> Result<Count> {
        let mut text = String::new();
        let mut file = self.counters.borrow_mut();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        let field = |interface: &str, number: usize| {
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface));
            let field = line.and_then(|line| line.split_whitespace().nth(number)?.parse().ok());
            field.with_context(|| format!("no counters of {interface} in /proc/net/dev"))
        };
        Ok(Count { came_in: field(&format!("{}:", self.nic), 1)?, went_out: field("out0:", 9)? })
    }
}

/// The DMZ, the outside, and a lane for each filter between them.
pub struct Network {
    pub dmz: Namespace,
    pub outside: Namespace,
    pub lanes: Vec<Lane>,
}

impl Network {
    /// Makes a router for each name. `sink` drops the packets that arrive outside.
    pub fn make(names: &[&'static str], sink: BorrowedFd<'_>) -> Result<Network> {
        delete_leftovers()?;
        let (dmz, outside) = (Namespace::make("dmz")?, Namespace::make("outside")?);
        for space in [&dmz, &outside] {
            silence(space)?;
        }
        let mut network = Network { dmz, outside, lanes: Vec::new() };
        for (number, name) in names.iter().enumerate() {
            let lane = network.make_lane(number, name, sink)?;
            network.lanes.push(lane);
        }
        Ok(network)
    }

    fn make_lane(&self, number: usize, name: &'static str, sink: BorrowedFd<'_>) -> Result<Lane> {
        let router = Namespace::make(&format!("router{number}"))?;
        // xdp-filter pins by the name of the NIC alone, so two of them need different names
        let nic = format!("dmz{}", if name.starts_with("xdp-filter") { number } else { 0 });
        silence(&router)?;
        let (dmz, outside, here) = (self.dmz.name(), self.outside.name(), router.name());
        let cables = format!(
            "link add s{number} address {SERVER_MAC} netns {dmz} \
             type veth peer name {nic} address {DMZ0_MAC} netns {here}\n\
             link add out0 address {OUT0_MAC} netns {here} \
             type veth peer name o{number} address {OUTSIDE_MAC} netns {outside}\n"
        );
        feed(Command::new("ip").args(["-batch", "-"]), &cables)?;
        for (space, nic) in [
            (&self.dmz, format!("s{number}")),
            (&router, nic.clone()),
            (&router, "out0".to_owned()),
            (&self.outside, format!("o{number}")),
        ] {
            let lines = format!("link set {nic} addrgenmode none\nlink set {nic} up\n");
            feed(Command::new("ip").args(["-n", space.name(), "-batch", "-"]), &lines)?;
        }
        feed(
            Command::new("ip").args(["-n", here, "-batch", "-"]),
            &format!(
                "link set lo up\n\
                 address add 192.0.2.1/30 dev {nic}\naddress add 192.0.2.5/30 dev out0\n\
                 address add 2001:db8:a::1/64 dev {nic} nodad\n\
                 address add 2001:db8:b::1/64 dev out0 nodad\n\
                 neigh add 192.0.2.2 lladdr {SERVER_MAC} dev {nic} nud permanent\n\
                 neigh add 192.0.2.6 lladdr {OUTSIDE_MAC} dev out0 nud permanent\n\
                 neigh add 2001:db8:a::2 lladdr {SERVER_MAC} dev {nic} nud permanent\n\
                 neigh add 2001:db8:b::2 lladdr {OUTSIDE_MAC} dev out0 nud permanent\n\
                 route add 198.18.0.0/16 via 192.0.2.2\nroute add 198.19.0.0/16 via 192.0.2.6\n\
                 route add 2001:db8:5::/64 via 2001:db8:a::2\n\
                 route add 2001:db8:6::/64 via 2001:db8:b::2\n"
            ),
        )?;
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            (&format!("ipv4/conf/{nic}/rp_filter"), "0"),
            ("ipv4/conf/out0/rp_filter", "0"),
        ] {
            router.set(key, value)?;
        }
        // A veth takes redirected frames only while NAPI is on: with an XDP program, or with GRO.
        for nic in [nic.as_str(), "out0"] {
            run(router.command("ethtool").args(["-K", nic, "gro", "on"]))?;
        }
        let index = self.outside.index_of(&format!("o{number}"))?;
        self.outside.enter(|| {
            let mut hook = TcHookBuilder::new(sink);
            hook.ifindex(index as i32).replace(true).handle(1).priority(1);
            let mut hook = hook.hook(TC_INGRESS);
            hook.create()?.attach()?;
            Ok(())
        })?;
        let counters = router.enter(|| Ok(File::open("/proc/thread-self/net/dev")?))?;
        let from_servers = self.dmz.index_of(&format!("s{number}"))?;
        Ok(Lane { name, router, nic, from_servers, from_outside: index, counters: counters.into() })
    }
}

/// Keeps the kernel from sending packets of its own.
fn silence(space: &Namespace) -> Result<()> {
    space.set("ipv6/conf/default/router_solicitations", "0")?;
    space.set("ipv6/conf/default/accept_ra", "0")
}

/// Deletes the namespaces of runs that were killed.
fn delete_leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.trim_start_matches('-').split('-').next());
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if !PathBuf::from(format!("/proc/{owner}")).exists() {
            // pins outlive a namespace
            let lane = name.rsplit_once("router").map_or("", |(_, number)| number);
            let inside = |program: &str, arguments: &[&str]| {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={NAMESPACES}/{name}")).arg("--").arg(program).args(arguments);
                let _ = run(&mut command);
            };
            inside(env!("CARGO_BIN_EXE_portcullis"), &["detach", "-i", "dmz0"]);
            inside("xdp-filter", &["unload", &format!("dmz{lane}")]);
            run(Command::new("ip").args(["netns", "delete", &name]))?;
        }
    }
    Ok(())
}
