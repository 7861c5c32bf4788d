//! The filters that are compared, each set up as its own documentation says.
//!
//! A server's SYN to tcp/80 is forbidden. Its answers from tcp/80 are permitted. Lists have 512 entries. The
//! policy of a gate has 256 servers with 16 needs each.

use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libbpf_rs::{MapCore as _, MapFlags, Object, TC_INGRESS, TcHookBuilder, Xdp, XdpFlags};
use portcullis::gate::{Gate, GatePlace};

use crate::environment::find_program;
use crate::network::{Lane, run};
use crate::policy::{Shape, write_policy};
use crate::tool;

/// What a filter must drop and pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Drops the forbidden packets and passes the permitted ones.
    Both,
    /// Drops everything.
    Drop,
    /// Passes everything.
    Pass,
}

/// One filter.
#[derive(Clone, Copy)]
pub struct Filter {
    pub name: &'static str,
    pub duty: Duty,
    /// Whether it drops forbidden packets of UDP and of any port, and not only those to the worm's port.
    pub knows_all: bool,
    set_up: fn(&Filters<'_>, &Lane) -> Result<Option<Listener>>,
}

pub const DROP: &str = "XDP, bare drop";
pub const PASS: &str = "XDP, bare pass";
pub const NONE: &str = "no filter, no XDP";
pub const XDP_FILTER: &str = "xdp-filter, ports";
pub const NFT: &str = "nft forward, conntrack + set";
pub const STRICT: &str = "portcullis, strict";
pub const SERVICE: &str = "portcullis, service";
/// A second lane of the same filter. The difference between the two is the noise.
pub const DROP_AGAIN: &str = "XDP, bare drop again (noise)";
pub const PASS_AGAIN: &str = "XDP, bare pass again (noise)";

pub const FILTERS: &[Filter] = &[
    Filter { name: DROP, duty: Duty::Drop, knows_all: true, set_up: |all, lane| all.xdp(lane, "bare_drop") },
    Filter { name: PASS, duty: Duty::Pass, knows_all: true, set_up: |all, lane| all.xdp(lane, "bare_pass") },
    Filter {
        name: DROP_AGAIN,
        duty: Duty::Drop,
        knows_all: true,
        set_up: |all, lane| all.xdp(lane, "bare_drop"),
    },
    Filter {
        name: PASS_AGAIN,
        duty: Duty::Pass,
        knows_all: true,
        set_up: |all, lane| all.xdp(lane, "bare_pass"),
    },
    Filter { name: NONE, duty: Duty::Pass, knows_all: true, set_up: |_, _| Ok(None) },
    both("XDP, parse only", |all, lane| all.xdp(lane, "parse_only")),
    both("XDP, one hash of 512 + counter", |all, lane| all.xdp(lane, "hash_ports")),
    both(XDP_FILTER, |_, lane| set_up_xdp_filter(lane, "tcp,udp")),
    both("xdp-filter, ports of TCP only", |_, lane| set_up_xdp_filter(lane, "tcp")),
    both("tc clsact, the same hash", |all, lane| all.tc(lane)),
    both("nft netdev ingress, set of 512", |_, lane| set_up_nft_ingress(lane)),
    both(NFT, |_, lane| set_up_nft_forward(lane)),
    both("iptables raw + ipset", |_, lane| set_up_iptables_raw(lane)),
    both("iptables forward, conntrack + ipset", |_, lane| set_up_iptables_forward(lane)),
    Filter { name: STRICT, duty: Duty::Both, knows_all: true, set_up: |all, lane| all.gate(lane, true) },
    Filter { name: SERVICE, duty: Duty::Both, knows_all: true, set_up: |all, lane| all.gate(lane, false) },
];

const fn both(name: &'static str, set_up: fn(&Filters<'_>, &Lane) -> Result<Option<Listener>>) -> Filter {
    Filter { name, duty: Duty::Both, knows_all: false, set_up }
}

/// The materials of filters.
pub struct Filters<'all> {
    pub reference: &'all Object,
    /// The folder for policies.
    pub folder: &'all Path,
}

impl Filter {
    /// Sets the filter up in a lane. The listener must live as long as the lane is used.
    pub fn set_up(&self, all: &Filters<'_>, lane: &Lane) -> Result<Option<Listener>> {
        (self.set_up)(all, lane).with_context(|| format!("could not set up: {}", self.name))
    }
}

impl Filters<'_> {
    fn xdp(&self, lane: &Lane, program: &str) -> Result<Option<Listener>> {
        let found = find_program(self.reference, program)?;
        let (fd, index) = (found.as_fd(), lane.router.index_of(&lane.nic)?);
        lane.router.enter(|| Ok(Xdp::new(fd).attach(index as i32, XdpFlags::DRV_MODE)?))?;
        Ok(None)
    }

    fn tc(&self, lane: &Lane) -> Result<Option<Listener>> {
        let program = find_program(self.reference, "hash_ports_tc")?;
        let (fd, index) = (program.as_fd(), lane.router.index_of(&lane.nic)?);
        lane.router.enter(|| {
            let mut hook = TcHookBuilder::new(fd);
            hook.ifindex(index as i32).replace(true).handle(1).priority(1);
            hook.hook(TC_INGRESS).create()?.attach()?;
            Ok(())
        })?;
        Ok(None)
    }

    /// A gate, attached by its own command, with a reader of its samples.
    fn gate(&self, lane: &Lane, strict: bool) -> Result<Option<Listener>> {
        let path = self.folder.join(if strict { "strict.toml" } else { "service.toml" });
        std::fs::write(&path, write_policy(&Shape { strict, ..Shape::default() }))?;
        tool::attach(&lane.router, &lane.nic, &path)?;
        lane.router.visit()?; // GatePlace takes the namespace of the main thread, which is this one
        let place = GatePlace::of(&lane.nic)?;
        Ok(Some(Listener::start(move || Ok(Gate::open(&place)?))))
    }
}

/// Removes filters that would outlive their namespace.
pub fn tear_down(lane: &Lane) {
    if [STRICT, SERVICE].contains(&lane.name) {
        tool::detach(&lane.router, &lane.nic);
    } else if lane.name.starts_with("xdp-filter") {
        let _ = run(lane.router.command("xdp-filter").args(["unload", &lane.nic]));
    }
}

/// Fills the list of ports that the reference programs look up.
pub fn fill_ports(reference: &Object) -> Result<()> {
    let map = reference.maps().find(|map| map.name() == "ports").context("no map `ports`")?;
    for port in 1..=512u16 {
        let [high, low] = port.to_be_bytes();
        map.update(&[libc::IPPROTO_TCP as u8, 0, high, low], &[0; 8], MapFlags::ANY)?;
    }
    Ok(())
}

/// Reads the samples of a gate in a thread, as its daemon would.
pub struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(open: impl FnOnce() -> Result<Gate> + Send + 'static) -> Listener {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let listen = move || -> Result<()> {
            let gate = open()?;
            let consumer = gate.consume_samples()?;
            while !stopped.load(Ordering::Relaxed) {
                consumer.poll(Duration::from_millis(50))?;
            }
            Ok(())
        };
        let thread = std::thread::spawn(move || {
            if let Err(error) = crate::cpu::avoid_pinned().and_then(|()| listen()) {
                eprintln!("warning: nobody reads the samples: {error:#}");
            }
        });
        Listener { stop, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn set_up_xdp_filter(lane: &Lane, features: &str) -> Result<Option<Listener>> {
    let arguments = ["load", &lane.nic, "-m", "native", "-p", "allow", "-f", features];
    run(lane.router.command("xdp-filter").args(arguments))?;
    run(lane.router.command("xdp-filter").args(["port", "80", "-p", "tcp", "-m", "dst"]))?;
    Ok(None)
}

/// 512 ports, the worm's among them.
fn list_ports() -> String {
    (1..=512).map(|port| port.to_string()).collect::<Vec<_>>().join(", ")
}

/// 512 ports that servers may call, without the worm's.
fn list_needs() -> String {
    (0..511).fold("587".to_owned(), |mut text, number| {
        let _ = write!(text, ", {}", 65_024 + number);
        text
    })
}

fn set_up_nft_ingress(lane: &Lane) -> Result<Option<Listener>> {
    let rules = format!(
        "table netdev bench {{\n\
           set bad {{ type inet_service; elements = {{ {} }} }}\n\
           chain in {{ type filter hook ingress device {} priority 0; policy accept; tcp dport @bad drop; }}\n\
         }}\n",
        list_ports(),
        lane.nic
    );
    lane.router.feed("nft", &["-f", "-"], &rules)?;
    Ok(None)
}

fn set_up_nft_forward(lane: &Lane) -> Result<Option<Listener>> {
    let rules = format!(
        "table inet bench {{\n\
           set services {{ type inet_service; elements = {{ {} }} }}\n\
           set needs {{ type inet_service; elements = {{ {} }} }}\n\
           chain forward {{\n\
             type filter hook forward priority 0; policy drop;\n\
             ct state established,related accept\n\
             iifname out0 tcp dport @services ct state new accept\n\
             iifname {} tcp dport @needs ct state new accept\n\
           }}\n\
         }}\n",
        list_ports(),
        list_needs(),
        lane.nic
    );
    lane.router.feed("nft", &["-f", "-"], &rules)?;
    Ok(None)
}

fn fill_ipset(lane: &Lane, name: &str, ports: &str) -> Result<()> {
    let mut lines = format!("create {name} bitmap:port range 0-65535\n");
    for port in ports.split(", ") {
        let _ = writeln!(lines, "add {name} {port}");
    }
    lane.router.feed("ipset", &["restore"], &lines)
}

fn set_up_iptables_raw(lane: &Lane) -> Result<Option<Listener>> {
    fill_ipset(lane, "bad", &list_ports())?;
    let rules =
        format!("*raw\n-A PREROUTING -i {} -p tcp -m set --match-set bad dst -j DROP\nCOMMIT\n", lane.nic);
    lane.router.feed("iptables-restore", &[], &rules)?;
    Ok(None)
}

fn set_up_iptables_forward(lane: &Lane) -> Result<Option<Listener>> {
    fill_ipset(lane, "services", &list_ports())?;
    fill_ipset(lane, "needs", &list_needs())?;
    let rules = format!(
        "*filter\n:FORWARD DROP\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -i out0 -p tcp -m set --match-set services dst -m conntrack --ctstate NEW -j ACCEPT\n\
         -A FORWARD -i {} -p tcp -m set --match-set needs dst -m conntrack --ctstate NEW -j ACCEPT\n\
         COMMIT\n",
        lane.nic
    );
    lane.router.feed("iptables-restore", &[], &rules)?;
    Ok(None)
}
