//! The cases that are measured by test run: which traffic meets which programs.

use crate::policy::Shape;
use crate::traffic::{Kind, Traffic, Version};

/// The verdict that every frame of a case must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Pass,
    /// Some frames pass, some are dropped.
    Either,
}

/// One kind of traffic, the programs that get it, and the program that they are compared with.
pub struct Case {
    pub key: &'static str,
    pub title: &'static str,
    pub traffic: Traffic,
    pub verdict: Verdict,
    /// Names of gates or of reference programs. The first is the gate that the case is about.
    pub programs: &'static [&'static str],
    /// The program whose cost ratios refer to.
    pub beside: &'static str,
}

impl Case {
    /// Its programs, preceded by the variant if the case has the main gate.
    pub fn programs(&self, has_variant: bool) -> Vec<&'static str> {
        let variant = has_variant && self.programs.contains(&MAIN);
        variant.then_some(VARIANT).into_iter().chain(self.programs.iter().copied()).collect()
    }
}

/// A gate, its policy, and its open flows.
pub struct GateCase {
    pub name: &'static str,
    pub shape: Shape,
    /// Number of open flows, IPv4 and IPv6.
    pub flows: [u32; 2],
}

pub const MAIN: &str = "portcullis, strict";
/// The main gate, loaded from the object that `--variant` names.
pub const VARIANT: &str = "portcullis, variant";
pub const SERVICE: &str = "portcullis, service";
pub const HANDOVER: &str = "portcullis, handover";
pub const PARSE: &str = "parse only";
pub const HASH: &str = "one hash of 512 + counter";
pub const ADDRESSES: &str = "one hash of 65,536";
pub const LRU: &str = "one LRU lookup";
pub const XDP_FILTER: &str = "xdp-filter, ports";
pub const XDP_FILTER_DENY: &str = "xdp-filter, all but ports";

pub const MILLION: u32 = 1_000_000;
pub const WARM: u32 = 1000;
pub const SERVERS: u32 = 256;

/// The gate that most cases are about.
pub fn main_gate(name: &'static str) -> GateCase {
    let shape = Shape { established: 1 << 21, ..Shape::default() };
    GateCase { name, shape, flows: [MILLION, WARM] }
}

/// All gates. Each differs from the main one in one respect.
pub fn gates() -> Vec<GateCase> {
    let sized = |name, servers, addresses_each, needs_each, own_roles| GateCase {
        name,
        shape: Shape { servers, addresses_each, needs_each, own_roles, ..Shape::default() },
        flows: [WARM, 0],
    };
    vec![
        main_gate(MAIN),
        GateCase { name: HANDOVER, shape: Shape { handover: true, ..Shape::default() }, flows: [WARM, 0] },
        GateCase { name: SERVICE, shape: Shape { strict: false, ..Shape::default() }, flows: [0, 0] },
        sized("4 servers", 4, 1, 16, true),
        sized("4,096 servers", 4096, 1, 16, true),
        sized("65,536 addresses", 4096, 16, 16, false),
        sized("4 needs", 4, 1, 4, true),
        sized("4,096 needs", 4, 1, 4096, true),
    ]
}

/// All cases of the filter.
pub fn cases() -> Vec<Case> {
    let base = Traffic { servers: SERVERS, flows: WARM, ..Traffic::default() };
    let of = |kind| Traffic { kind, ..base };
    let with = |kind, servers| Traffic { kind, servers, ..base };
    let v6 = |traffic: Traffic| Traffic { version: Version::V6, ..traffic };
    let case = |key, title, traffic, verdict, programs, beside| Case {
        key,
        title,
        traffic,
        verdict,
        programs,
        beside,
    };
    const DROPPING: &[&str] = &[MAIN, PARSE, HASH, XDP_FILTER];
    const PASSING: &[&str] = &[MAIN, PARSE, HASH, XDP_FILTER];
    // without the parser, which drops every SYN
    const CALLING: &[&str] = &[MAIN, HASH, XDP_FILTER];
    use Verdict::{Drop, Either, Pass};
    vec![
        case(
            "worm",
            "a worm's SYNs from one server",
            with(Kind::Worm, 1),
            Drop,
            &[MAIN, SERVICE, PARSE, HASH, XDP_FILTER],
            XDP_FILTER,
        ),
        case("worms", "a worm's SYNs from all of 256", of(Kind::Worm), Drop, DROPPING, XDP_FILTER),
        case(
            "scatter",
            "UDP to any port, from all",
            of(Kind::Scatter),
            Drop,
            &[MAIN, XDP_FILTER_DENY],
            XDP_FILTER_DENY,
        ),
        case(
            "ports",
            "SYNs to random ports, from all",
            of(Kind::RandomPort),
            Drop,
            &[MAIN, XDP_FILTER_DENY],
            XDP_FILTER_DENY,
        ),
        case(
            "reply 1",
            "replies of 1 flow",
            Traffic { flows: 1, ..of(Kind::Reply) },
            Pass,
            PASSING,
            XDP_FILTER,
        ),
        case(
            "reply 1k",
            "replies of 1,000 flows",
            of(Kind::Reply),
            Pass,
            &[MAIN, HANDOVER, SERVICE, PARSE, HASH, XDP_FILTER, LRU],
            LRU,
        ),
        case(
            "reply 1m",
            "replies of 1,000,000 flows",
            Traffic { flows: MILLION, ..of(Kind::Reply) },
            Pass,
            &[MAIN, LRU],
            LRU,
        ),
        case("outbound", "SYNs that are permitted", of(Kind::Outbound), Pass, CALLING, XDP_FILTER),
        case("mix", "95 % replies, 5 % worm", of(Kind::Mix), Either, &[MAIN, HASH, XDP_FILTER], XDP_FILTER),
        case(
            "worm v6",
            "IPv6: a worm's SYNs from one server",
            v6(with(Kind::Worm, 1)),
            Drop,
            DROPPING,
            XDP_FILTER,
        ),
        case(
            "worms v6",
            "IPv6: a worm's SYNs from all of 256",
            v6(of(Kind::Worm)),
            Drop,
            DROPPING,
            XDP_FILTER,
        ),
        case(
            "ports v6",
            "IPv6: SYNs to random ports, from all",
            v6(of(Kind::RandomPort)),
            Drop,
            &[MAIN, XDP_FILTER_DENY],
            XDP_FILTER_DENY,
        ),
        case(
            "scatter v6",
            "IPv6: UDP to any port, from all",
            v6(of(Kind::Scatter)),
            Drop,
            &[MAIN, XDP_FILTER_DENY],
            XDP_FILTER_DENY,
        ),
        case(
            "mix v6",
            "IPv6: 95 % replies, 5 % worm",
            v6(of(Kind::Mix)),
            Either,
            &[MAIN, HASH, XDP_FILTER],
            XDP_FILTER,
        ),
        case("reply v6", "IPv6: replies of 1,000 flows", v6(of(Kind::Reply)), Pass, PASSING, XDP_FILTER),
        case(
            "outbound v6",
            "IPv6: SYNs that are permitted",
            v6(of(Kind::Outbound)),
            Pass,
            CALLING,
            XDP_FILTER,
        ),
        case(
            "worms 4",
            "a worm's SYNs from all of 4 servers",
            with(Kind::Worm, 4),
            Drop,
            &["4 servers", ADDRESSES],
            ADDRESSES,
        ),
        case(
            "worms 4096",
            "a worm's SYNs from all of 4,096 servers",
            with(Kind::Worm, 4096),
            Drop,
            &["4,096 servers", ADDRESSES],
            ADDRESSES,
        ),
        case(
            "worms 65536",
            "a worm's SYNs from all of 65,536 addresses",
            with(Kind::Worm, 65536),
            Drop,
            &["65,536 addresses", ADDRESSES],
            ADDRESSES,
        ),
        case("reply 4", "replies, 4 servers", with(Kind::Reply, 4), Pass, &["4 servers"], "4 servers"),
        case(
            "reply 4096",
            "replies, 4,096 servers",
            with(Kind::Reply, 4096),
            Pass,
            &["4,096 servers"],
            "4,096 servers",
        ),
        case(
            "outbound 4",
            "permitted SYNs, 4 servers",
            with(Kind::Outbound, 4),
            Pass,
            &["4 servers", ADDRESSES],
            ADDRESSES,
        ),
        case(
            "outbound 4096",
            "permitted SYNs, 4,096 servers",
            with(Kind::Outbound, 4096),
            Pass,
            &["4,096 servers", ADDRESSES],
            ADDRESSES,
        ),
        case(
            "outbound 65536",
            "permitted SYNs, 65,536 addresses",
            with(Kind::Outbound, 65536),
            Pass,
            &["65,536 addresses", ADDRESSES],
            ADDRESSES,
        ),
        case(
            "worms 4 needs",
            "a worm's SYNs, 4 needs each",
            with(Kind::Worm, 4),
            Drop,
            &["4 needs"],
            "4 needs",
        ),
        case(
            "worms 4096 needs",
            "a worm's SYNs, 4,096 needs each",
            with(Kind::Worm, 4),
            Drop,
            &["4,096 needs"],
            "4,096 needs",
        ),
        case("reply 4 needs", "replies, 4 needs each", with(Kind::Reply, 4), Pass, &["4 needs"], "4 needs"),
        case(
            "reply 4096 needs",
            "replies, 4,096 needs each",
            with(Kind::Reply, 4),
            Pass,
            &["4,096 needs"],
            "4,096 needs",
        ),
        case(
            "outbound 4 needs",
            "permitted SYNs, 4 needs each",
            with(Kind::Outbound, 4),
            Pass,
            &["4 needs"],
            "4 needs",
        ),
        case(
            "outbound 4096 needs",
            "permitted SYNs, 4,096 needs each",
            with(Kind::Outbound, 4),
            Pass,
            &["4,096 needs"],
            "4,096 needs",
        ),
    ]
}
