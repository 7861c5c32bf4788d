//! What is around a gate, as the kernel has it: the other interfaces and their addresses, the routes to the servers,
//! and other programs in the way of packets. Facts alone; `doctor` judges them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkLayerType};
use netlink_packet_route::tc::{TcHandle, TcMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::caveats::{find_bond, has_vlans, is_vlan_interface};
use super::error::GateError;
use super::links::{Link, find_above, find_below, list_links};
use super::netlink::dump;
use super::nic::find_specific_route;
use super::orphans::list_folders;
use super::own_networks::list_addresses;
use super::pinned_links::PinnedLinks;
use super::place::GatePlace;
use super::resolvers::find_ways;
use super::routes::find_outward_interfaces;
use super::system::{self, TcxSide, clsact};
use crate::policy::Policy;

/// Of this process's network namespace.
const IPV4_SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// The parents of filters at clsact (linux/pkt_sched.h), with what people call the side.
const CLSACT_SIDES: [(u32, &str); 2] = [(0xffff_fff2, "ingress"), (0xffff_fff3, "egress")];
/// Places of the policy's servers that are looked up. A policy may have thousands.
const MOST_ROUTES: usize = 1024;

/// What an interface is, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NicKind {
    /// A bridge.
    Bridge,
    /// A bond or a team.
    Bond,
    /// One VLAN of another interface.
    Vlan,
    /// One of several MACs on another interface: macvlan, macvtap, ipvlan.
    Shared,
    /// The loopback device.
    Loopback,
    /// Anything else.
    #[default]
    Other,
}

/// An interface of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NicKind,
    /// The interface that it is made on.
    pub below: Option<u32>,
    /// The bridge or bond that it is a member of.
    pub member_of: Option<u32>,
    /// The prefixes on its link. Those of link-local addresses are left out.
    pub prefixes: Vec<IpNet>,
    /// It has a gate of its own.
    pub has_gate: bool,
}

/// The interfaces around a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Index of the gate's NIC.
    pub own: u32,
    /// Every interface of the namespace.
    pub nics: Vec<Nic>,
    /// The gate's NIC and those above it: what comes to them has passed the gate.
    pub above: BTreeSet<u32>,
    /// Those below it.
    pub below: BTreeSet<u32>,
    /// Those by which packets from anywhere outside come.
    pub outward: BTreeSet<u32>,
    /// The bond of which the NIC is a member.
    pub bond: Option<String>,
}

impl Around {
    /// The interface of this index.
    pub fn find(&self, index: u32) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.index == index)
    }

    /// The gate's NIC.
    pub fn own_nic(&self) -> Option<&Nic> {
        self.find(self.own)
    }
}

/// Where the routing table has a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRoute {
    /// Its name.
    pub server: String,
    /// One of its addresses.
    pub prefix: IpNet,
    /// The interface that leads there. `None`: none does but the default route.
    pub interface: Option<u32>,
}

/// What is known of VLAN tags at the gate's NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagFacts {
    /// A server may use its addresses in one VLAN only.
    pub has_vlans: bool,
    /// The NIC is the interface of one VLAN.
    pub is_vlan: bool,
    /// The NIC takes tags out of frames. `None`: it can't be asked.
    pub strips: Option<bool>,
}

/// A resolver of the policy whose answers open addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverFacts {
    /// The resolvers whose answers come by an interface that leads outside, with its name.
    pub forgeable: Vec<(IpAddr, String)>,
    /// The policy takes the risk.
    pub is_permitted: bool,
    /// The interfaces that lead outside, with rp_filter as it holds there.
    pub outward: Vec<(String, u8)>,
}

/// A program that is not the gate's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherProgram {
    /// The interface.
    pub interface: String,
    /// `xdp`, `ingress` or `egress`.
    pub hook: &'static str,
    /// Its name, or the kind of the filter.
    pub name: String,
}

/// Looks at the interfaces.
///
/// # Errors
/// When the kernel does not list them.
pub fn look_around(place: &GatePlace) -> Result<Around, GateError> {
    let failed = |error: io::Error| {
        GateError::from_io("could not list the interfaces of this machine".to_owned(), &error)
    };
    let links = list_links().map_err(failed)?;
    let mut prefixes: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for own in list_addresses().map_err(failed)? {
        if !is_link_local(&own.prefix) {
            prefixes.entry(own.interface).or_default().push(own.prefix);
        }
    }
    let socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
    let gates = list_own_programs();
    let nics = links
        .iter()
        .map(|link| to_nic(link, prefixes.remove(&link.index).unwrap_or_default(), &gates))
        .collect();
    Ok(Around {
        own: place.ifindex,
        nics,
        above: find_above(place.ifindex, &links),
        below: find_below(place.ifindex, &links),
        outward: find_outward_interfaces(&socket),
        bond: find_bond(&place.interface),
    })
}

fn is_link_local(prefix: &IpNet) -> bool {
    match prefix.addr() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn to_nic(link: &Link, prefixes: Vec<IpNet>, gates: &BTreeSet<u32>) -> Nic {
    let kind = match (&link.layer, &link.kind) {
        (LinkLayerType::Loopback, _) => NicKind::Loopback,
        (_, Some(InfoKind::Bridge)) => NicKind::Bridge,
        (_, Some(InfoKind::Bond)) => NicKind::Bond,
        (_, Some(InfoKind::Vlan)) => NicKind::Vlan,
        (_, Some(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap)) => {
            NicKind::Shared
        }
        _ => NicKind::Other,
    };
    Nic {
        index: link.index,
        name: link.name.clone(),
        kind,
        below: link.below,
        member_of: link.member_of,
        prefixes,
        has_gate: find_xdp(link.index).is_some_and(|id| gates.contains(&id)),
    }
}

/// The id of the XDP program on an interface.
fn find_xdp(ifindex: u32) -> Option<u32> {
    system::query_xdp(ifindex).ok().flatten().map(|(id, _)| id)
}

/// The programs of all gates, by what is pinned: anybody may give a program a name.
fn list_own_programs() -> BTreeSet<u32> {
    let folders = list_folders().unwrap_or_default();
    let links = folders.iter().filter_map(|folder| PinnedLinks::read(folder));
    links.flat_map(|links| links.program_ids().collect::<Vec<_>>()).collect()
}

fn name(program: u32) -> String {
    system::name_program(program)
        .ok()
        .flatten()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| program.to_string())
}

/// Where the routing table has the servers of a policy.
pub fn find_server_routes(policy: &Policy) -> Vec<ServerRoute> {
    let Ok(socket) = Socket::new(NETLINK_ROUTE) else {
        return Vec::new();
    };
    let addresses = policy
        .servers
        .iter()
        .flat_map(|server| server.addresses.iter().map(move |(prefix, _)| (&server.name, *prefix)));
    let find = |(server, prefix): (&String, IpNet)| ServerRoute {
        server: server.clone(),
        prefix,
        interface: find_specific_route(&socket, prefix.addr()).map(|route| route.interface),
    };
    addresses.take(MOST_ROUTES).map(find).collect()
}

/// What becomes of VLAN tags.
pub fn find_tag_facts(place: &GatePlace, policy: &Policy) -> TagFacts {
    TagFacts {
        has_vlans: has_vlans(policy),
        is_vlan: is_vlan_interface(&place.interface),
        strips: system::strips_vlan_tags(&place.interface),
    }
}

/// Whose answers can be forged. `None`: no answer opens anything.
pub fn find_resolver_facts(policy: &Policy, around: &Around) -> Option<ResolverFacts> {
    let sources = policy.name_sources();
    if sources.names.is_empty() || sources.resolvers.is_empty() {
        return None;
    }
    let outward = around.outward.iter().filter_map(|index| around.find(*index));
    Some(ResolverFacts {
        forgeable: find_ways(&sources).list_forgeable(),
        is_permitted: sources.forgeable,
        outward: outward.map(|nic| (nic.name.clone(), read_rp_filter(&nic.name))).collect(),
    })
}

/// The larger one of the setting for all interfaces and of its own holds (Documentation/networking/ip-sysctl.rst).
fn read_rp_filter(interface: &str) -> u8 {
    let read = |name: &str| -> Option<u8> {
        let text = fs::read_to_string(Path::new(IPV4_SETTINGS).join(name).join("rp_filter")).ok()?;
        text.trim().parse().ok()
    };
    read("all").unwrap_or(0).max(read(interface).unwrap_or(0))
}

/// Programs that are not the gate's, where they may take packets past it: XDP on the NIC and below it, TC on the NIC.
pub fn list_other_programs(around: &Around) -> Vec<OtherProgram> {
    let gates = list_own_programs();
    let mut others = Vec::new();
    for nic in around.nics.iter().filter(|nic| nic.index == around.own || around.below.contains(&nic.index)) {
        if let Some(id) = find_xdp(nic.index).filter(|id| !gates.contains(id)) {
            others.push(OtherProgram { interface: nic.name.clone(), hook: "xdp", name: name(id) });
        }
    }
    let Some(nic) = around.own_nic() else {
        return others;
    };
    for (side, hook) in [(TcxSide::Ingress, "ingress"), (TcxSide::Egress, "egress")] {
        let ids = system::list_tcx(nic.index, side).into_iter().filter(|id| !gates.contains(id));
        others.extend(ids.map(|id| OtherProgram { interface: nic.name.clone(), hook, name: name(id) }));
    }
    for (parent, hook) in CLSACT_SIDES {
        let names = list_filters(nic.index, parent).into_iter();
        others.extend(names.map(|name| OtherProgram { interface: nic.name.clone(), hook, name }));
    }
    others
}

/// The kinds of the filters at clsact, without the gate's own.
fn list_filters(ifindex: u32, parent: u32) -> Vec<String> {
    let (Ok(socket), Ok(index)) = (Socket::new(NETLINK_ROUTE), i32::try_from(ifindex)) else {
        return Vec::new();
    };
    let mut question = TcMessage::with_index(index);
    question.header.parent = TcHandle::from(parent);
    let mut kinds = Vec::new();
    // without a qdisc there are none
    let _ = dump(&socket, RouteNetlinkMessage::GetTrafficFilter(question), |answer| {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
            let handle = u32::from(filter.header.handle);
            // a filter's head has no handle
            if handle != 0 && handle != clsact::HANDLE {
                kinds.extend(filter.attributes.iter().find_map(|attribute| match attribute {
                    netlink_packet_route::tc::TcAttribute::Kind(kind) => Some(kind.clone()),
                    _ => None,
                }));
            }
        }
    });
    kinds
}

/// Whether the kernel keeps the clock with a source of time. `None`: it does not say.
pub fn is_clock_synchronised() -> Option<bool> {
    system::is_clock_synchronised()
}
