//! Runs the tests of a policy, and compares each answer of the programs with what its test expects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::cells::{Ports, Region, cut, ends_of, families_of, find_peers, find_rows, find_sports, match_of};
use super::outcome::{Decided, Expectation, Failure, FailureKind, PacketFacts, TestOutcome, TestReport};
use super::packets::{Judge, Judged, Packet, Sender, choose_client_port};
use crate::compile::{NeedRow, SportRow, Tables, Unpermitted, find_nearest};
use crate::gate::{GateError, PrivateGate, PrivateSizes, Verdict};
use crate::net::{find_icmp_answer, has_ports, is_icmp};
use crate::policy::{Direction, Families, Need, Peer, Policy, PolicyTest};

/// Packets of one need at most. A need with more should be several.
const MOST_PACKETS: usize = 100_000;
/// The ports that clients on Linux open from.
const EPHEMERAL: Ports = 32_768..=60_999;
/// Runs all tests of a policy. Nothing that any NIC uses is touched.
///
/// # Errors
/// When the process lacks the privilege, or the kernel refuses the programs, a map or a packet.
pub fn run_tests(policy: &Policy, tables: &Tables) -> Result<TestReport, GateError> {
    if policy.tests.is_empty() {
        return Ok(TestReport::new(policy, Vec::new()));
    }
    run_tests_in(&PrivateGate::load(policy, tables, PrivateSizes::Small)?, policy, tables)
}

/// As [`run_tests`], in a gate whose live policy is this one.
///
/// # Errors
/// When the kernel refuses a packet.
pub fn run_tests_in(gate: &PrivateGate, policy: &Policy, tables: &Tables) -> Result<TestReport, GateError> {
    let runner = Runner { policy, tables, judge: Judge::new(gate, tables) };
    let mut outcomes: BTreeMap<usize, TestOutcome> = BTreeMap::new();
    // What servers open comes first, for it leaves no trace. The tracker remembers what it sees.
    for about_services in [false, true] {
        let tests = policy.tests.iter().enumerate();
        for (index, test) in tests.filter(|(_, test)| test.is_about_services() == about_services) {
            outcomes.insert(index, runner.run_test(test)?);
        }
    }
    Ok(TestReport::new(policy, outcomes.into_values().collect()))
}

/// What all tests of a policy need.
pub(super) struct Runner<'p> {
    pub(super) policy: &'p Policy,
    pub(super) tables: &'p Tables,
    judge: Judge<'p>,
}

/// One server of a test, or one address.
pub(super) struct Subject<'p> {
    pub(super) name: String,
    /// Of each family an address, and another that is part of a prefix: the kernel keeps the two apart.
    pub(super) hosts: Vec<Sender<'p>>,
    /// The peers of a test about services. `None` in it: every peer.
    pub(super) services_for: Option<Option<Vec<IpNet>>>,
}

impl<'p> Runner<'p> {
    pub(super) fn gate(&self) -> &PrivateGate {
        self.judge.gate()
    }

    fn run_test(&self, test: &PolicyTest) -> Result<TestOutcome, GateError> {
        let mut outcome = TestOutcome {
            source: self.policy.locate(&test.place),
            test: test.to_string(),
            passed: true,
            packets: 0,
            failures: Vec::new(),
            notes: Vec::new(),
        };
        for subject in self.list_subjects(test) {
            let drop = Expectation { verdict: Verdict::Drop, reason: test.reason };
            let pass = Expectation { verdict: Verdict::Pass, reason: None };
            for need in &test.accept {
                self.check_need(&subject, need, FailureKind::Accept, pass, &mut outcome)?;
            }
            for need in &test.deny {
                self.check_need(&subject, need, FailureKind::Deny, drop, &mut outcome)?;
                self.note_openers(&subject, need, &mut outcome);
            }
            if test.only {
                self.check_only(&subject, test, &mut outcome)?;
            }
        }
        outcome.passed = outcome.failures.is_empty();
        Ok(outcome)
    }

    fn list_subjects(&self, test: &PolicyTest) -> Vec<Subject<'p>> {
        let services_for = test.is_about_services().then(|| match test.from.as_slice() {
            [] => None,
            peers => Some(peers.iter().flat_map(|peer| self.policy.resolve_peer(peer)).collect()),
        });
        let hosts = if test.is_about_services() { &test.to } else { &test.from };
        let subject = |peer: &Peer| Subject {
            name: peer.to_string(),
            hosts: self.pick_hosts(peer),
            services_for: services_for.clone(),
        };
        hosts.iter().map(subject).collect()
    }

    fn pick_hosts(&self, peer: &Peer) -> Vec<Sender<'p>> {
        let mut kinds = BTreeSet::new();
        let mut hosts = Vec::new();
        for prefix in self.policy.resolve_peer(peer) {
            let is_single = prefix.prefix_len() == prefix.max_prefix_len();
            if kinds.insert((prefix.addr().is_ipv4(), is_single)) {
                // the first address of a prefix is that of the network
                let address = prefix.hosts().next().unwrap_or_else(|| prefix.network());
                hosts.push(self.judge.find_sender(address));
            }
        }
        hosts
    }

    fn check_need(
        &self,
        subject: &Subject<'p>,
        need: &Need,
        kind: FailureKind,
        expected: Expectation,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        let place = &need.place;
        let mut failure = Failure {
            subject: subject.name.clone(),
            kind,
            need: need.to_string(),
            source: format!("{}:{}", self.policy.locate(place), place.column),
            packet: None,
            expected,
            verdict: None,
            reason: None,
            decided: None,
            more: 0,
            note: None,
        };
        let mut count = 0;
        let mut wrong = None;
        for host in &subject.hosts {
            let answered = self.plant(host, need)?;
            let Some(packets) = self.list_packets(subject, host, need, kind, &answered) else {
                failure.note =
                    Some(format!("this is more than {MOST_PACKETS} packets: write it as several needs"));
                outcome.failures.push(failure);
                return Ok(());
            };
            for packet in packets {
                let judged = self.judge(subject, packet)?;
                count += 1;
                let is_expected = match expected.verdict {
                    Verdict::Pass => judged.passes(),
                    Verdict::Drop | Verdict::WouldDrop => {
                        !judged.passes() && expected.reason.is_none_or(|reason| judged.reason == Some(reason))
                    }
                };
                match (is_expected, &wrong) {
                    (true, _) => {}
                    (false, None) => wrong = Some(judged),
                    (false, Some(_)) => failure.more += 1,
                }
            }
        }
        outcome.packets += count;
        match wrong {
            Some(judged) => {
                let sport = need.sport.is_some() || has_own_client_port(&judged.packet);
                self.note_judged(&judged, subject, sport, &mut failure);
                outcome.failures.push(failure);
            }
            None if count == 0 && kind == FailureKind::Accept => {
                failure.note = Some(
                    "there is no such packet: both ends have no family of addresses in common".to_owned(),
                );
                outcome.failures.push(failure);
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn judge(&self, subject: &Subject<'_>, packet: Packet) -> Result<Judged, GateError> {
        match subject.services_for {
            Some(_) => self.judge.judge_service(packet),
            None => self.judge.judge_opening(packet),
        }
    }

    /// Packets that stand for all of a need. `answered`: addresses of its names. `None`: there are too many.
    fn list_packets(
        &self,
        subject: &Subject<'_>,
        host: &Sender<'_>,
        need: &Need,
        kind: FailureKind,
        answered: &[IpAddr],
    ) -> Option<Vec<Packet>> {
        let must_drop = kind == FailureKind::Deny;
        let profile = host.row.map(|row| row.profile);
        let sports: Vec<_> = match profile {
            Some(profile) if need.direction == Direction::Out => {
                let has_ports = |row: &&SportRow| {
                    find_rows(self.tables, row.needs, need.protocol, &need.ports).next().is_some()
                };
                find_sports(self.tables, profile, need.protocol).filter(has_ports).collect()
            }
            _ => Vec::new(),
        };
        let profiles = profile.into_iter().chain(sports.iter().map(|row| row.needs));
        let rows: Vec<&NeedRow> = profiles
            .flat_map(|profile| find_rows(self.tables, profile, need.protocol, &need.ports))
            .collect();
        let named;
        let region = match &subject.services_for {
            Some(Some(peers)) => Region::Prefixes(peers),
            Some(None) => Region::Everybody { special: false },
            None if need.peers.is_empty() => Region::Everybody { special: must_drop },
            None => {
                let mut prefixes = need.resolve_peers(&self.policy.sets);
                prefixes.extend(answered.iter().map(|address| IpNet::from(*address)));
                named = prefixes;
                Region::Prefixes(&named)
            }
        };
        let families = families_of(&host.address).and(Families::of_protocol(need.protocol));
        let mut packets = Vec::new();
        for ports in cut_services(need, &rows, must_drop) {
            let holding = rows.iter().filter(|row| row.ports.contains(ports.start()));
            let borders: BTreeSet<IpNet> = holding
                .flat_map(|row| find_peers(self.tables, match_of(row, need.direction).set))
                .map(|row| row.prefix)
                .collect();
            let peers = region.pick(families, &borders, MOST_PACKETS)?;
            for port in ends_of(&ports) {
                let client_ports =
                    list_client_ports(need, port, sports.iter().map(|row| &row.ports), must_drop);
                for peer in peers.iter().copied().filter(|peer| *peer != host.address) {
                    let (source, destination) = match subject.services_for {
                        Some(_) => (peer, host.address),
                        None => (host.address, peer),
                    };
                    let packet = Packet::new(source, destination, need.protocol, port);
                    packets.extend(
                        client_ports.iter().map(|client_port| Packet { client_port: *client_port, ..packet }),
                    );
                }
                if packets.len() > MOST_PACKETS {
                    return None;
                }
            }
        }
        Some(packets)
    }

    /// Adds to a failure what the programs say about a packet.
    pub(super) fn note_judged(
        &self,
        judged: &Judged,
        subject: &Subject<'_>,
        sport: bool,
        failure: &mut Failure,
    ) {
        let Packet { source, destination, protocol, port, client_port } = judged.packet;
        let is_service = subject.services_for.is_some();
        let at_fault = if is_service && !judged.of_peer { destination } else { source };
        let sender = self.judge.find_sender(at_fault);
        failure.packet = Some(PacketFacts {
            from: source,
            to: destination,
            service: PacketFacts::service_of(protocol, port),
            sport: sport.then_some(client_port),
        });
        failure.verdict = Some(judged.verdict);
        failure.reason = judged.reason;
        failure.decided = self.find_decided(judged, &sender);
        failure.note = self.describe_stand_in(destination);
        if judged.of_peer {
            failure.note = Some("the peer is a server itself, and may not open this".to_owned());
        } else if !is_service && sender.row.is_none() && failure.kind == FailureKind::Accept {
            failure.note = Some(format!(
                "no server has {source}; to test a service of a server, name that server as `to`"
            ));
        }
    }

    fn find_decided(&self, judged: &Judged, sender: &Sender<'_>) -> Option<Decided> {
        let locate = |line: u32| format!("{}:{line}", self.policy.file);
        if let Some(rule) = self.tables.rules.get(judged.rule as usize).filter(|_| judged.rule != 0) {
            let (need, role) = (rule.need.clone(), rule.role.as_deref().map(str::to_owned));
            return Some(Decided { source: locate(rule.line), need: Some(need), role });
        }
        let server = sender.row.and_then(|row| self.policy.servers.get(row.server));
        let (need, line) = find_nearest(
            &Unpermitted {
                server,
                reason: judged.reason,
                protocol: judged.packet.protocol,
                port: judged.packet.port,
                source_mac: sender.mac(),
            },
            self.policy,
        );
        line.map(|line| Decided { source: locate(line), need, role: None })
    }
}

fn has_own_client_port(packet: &Packet) -> bool {
    has_ports(packet.protocol) && packet.client_port != choose_client_port(packet.port)
}

/// The ports of a need in ranges within which the rows say the same; of the ICMPs each type by itself.
fn cut_services(need: &Need, rows: &[&NeedRow], must_drop: bool) -> Vec<Ports> {
    if !is_icmp(need.protocol) {
        return cut(&need.ports, rows.iter().map(|row| row.ports.clone()));
    }
    let is_one = need.ports.start() == need.ports.end();
    let is_request = |kind: &u16| find_icmp_answer(need.protocol, *kind).is_some();
    let every = is_one || must_drop && need.direction == Direction::Out;
    need.ports.clone().filter(|kind| every || is_request(kind)).map(|kind| kind..=kind).collect()
}

/// The ports from which a server opens: those of the need, otherwise those that stand for any.
fn list_client_ports<'r>(
    need: &Need,
    port: u16,
    sports: impl Iterator<Item = &'r Ports>,
    must_drop: bool,
) -> Vec<u16> {
    let mut sports = sports.peekable();
    let range = match &need.sport {
        Some(sport) => sport.clone(),
        None if sports.peek().is_none() => return vec![choose_client_port(port)],
        None if must_drop => 1..=u16::MAX,
        None => EPHEMERAL,
    };
    cut(&range, sports.cloned()).iter().flat_map(ends_of).collect()
}
