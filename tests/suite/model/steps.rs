//! Steps 8 to 18: what a server that is what it says it is may send.

use portcullis::abi::Reason;
use portcullis::policy::Direction;

use super::Model;
use super::coverage::Rule as Covered;
use super::decide::{Case, Decision, Effect, VRRP, is_dhcp};
use super::flows::{FlowKey, Table, answered_flow};
use super::heard::{HeardKey, Memory};
use super::limits::{BucketKey, by_generosity};
use super::names::has_unlimited;
use super::needs::{self, Rule, Subject};
use super::packet::{ICMP, ICMPV6, IcmpKind, Piece, RST, SYN, TCP, Transport, UDP, icmp_kind};
use super::questions::{judge, name_reason};
use super::quote::{QuotedEnds, read_quote};

impl Model {
    pub fn decide_server(&self, case: &Case<'_>) -> Decision {
        let mut decision = self.follow_steps(case);
        let answers = self.answers_in_takeover(case);
        decision.others.iter_mut().for_each(|other| quiet_takeover(other, answers));
        quiet_takeover(&mut decision, answers);
        decision
    }

    /// Whether somebody who may use the service is answered, while the router takes over.
    fn answers_in_takeover(&self, case: &Case<'_>) -> bool {
        let Some((key, service)) = answered_flow(case.packet) else { return false };
        let subject = Subject::service(key.protocol, service, key.peer);
        case.now_ns < self.takeover_until_ns
            && case.packet.transport.is_some()
            && !case.tcp().is_some_and(|tcp| tcp.is_bare_syn())
            && !needs::matching(case.policy, &case.inbound, subject).is_empty()
    }

    /// A flow of another router, or of before the gate, that conntrack has.
    pub fn find_handover(&self, case: &Case<'_>) -> Option<Decision> {
        let (key, service) = answered_flow(case.packet)?;
        let has_end = case.tcp().is_some_and(|tcp| tcp.has(SYN) || tcp.has(RST));
        if !super::has_handover(case.policy) || ![TCP, UDP].contains(&key.protocol) || has_end {
            return None;
        }
        if matches!(case.packet.piece, Piece::Later(_)) {
            return None;
        }
        let subject = Subject::service(key.protocol, service, key.peer);
        let rules = needs::matching(case.policy, &case.inbound, subject);
        let edited = self.find_edits(&case.server.name, Direction::In, subject, case.now_ns);
        if edited.denied || (rules.is_empty() && edited.allowed_until.is_none()) {
            return None;
        }
        // what the server may open itself is no proof that a peer did
        let opening = case.opening();
        let own = self.find_edits(&case.server.name, Direction::Out, opening, case.now_ns);
        if own.allowed_until.is_some()
            || !needs::matching(case.policy, &case.outbound, opening).is_empty()
            || self.comes_from_named(case.policy, case.server, opening)
        {
            return None;
        }
        if self.flows.is_known(&key, case.now_ns, self.takeover_ns) {
            return None;
        }
        if !self.conntrack.get(&key).copied().unwrap_or(false) {
            return None;
        }
        let mut decision = Decision::pass(Reason::Handover).with(Effect::HandOver(key));
        decision.management = rules.iter().any(|rule| rule.role.is_none());
        decision.edit_until = edited.until(!rules.is_empty());
        Some(decision.by(&rules))
    }

    fn follow_steps(&self, case: &Case<'_>) -> Decision {
        let mut permitted = false;
        let decision = self
            .decide_fragment(case)
            // no need covers it, so it is no question
            .or_else(|| self.find_handover(case))
            .or_else(|| {
                let found = self.find_reply(case).or_else(|| self.find_need(case));
                let found = found.or_else(|| self.find_own_connection(case))?;
                let judged = judge(case, found);
                permitted = judged.is_none();
                judged
            })
            .or_else(|| self.find_flow_error(case))
            .or_else(|| self.find_unlisted_service(case))
            .or_else(|| self.find_noise(case))
            .or_else(|| {
                let opened = answered_flow(case.packet).is_some_and(|(key, _)| self.is_opened(case, &key));
                let denied = (opened || !case.is_strict()) && self.has_crossed(case);
                find_no_flow(case).map(|found| found.meeting_if(denied, Covered::CrossedSynDenied))
            })
            .or_else(|| self.find_late_answer(case))
            .unwrap_or_else(|| decide_new(case));
        if permitted { name_reason(case, decision) } else { decision }
    }

    /// What comes of a packet that some rule lets pass, where it goes to a resolver.
    pub fn judge_question(case: &Case<'_>, found: Decision) -> Option<Decision> {
        judge(case, found)
    }

    /// Whether the peer may have opened something whose ports could not be read.
    fn recall_unread(&self, case: &Case<'_>) -> Vec<Memory> {
        if !case.is_strict() {
            return vec![Memory::Never];
        }
        self.heard.recall_unread(&case.server.name, case.packet.destination, case.now_ns)
    }

    /// Step 15 for datagrams: the answer of an `in` service to a peer that asked a while ago.
    fn find_late_answer(&self, case: &Case<'_>) -> Option<Decision> {
        let (flow, service) = answered_flow(case.packet)?;
        if !case.is_strict() || case.tcp().is_some() || !case.comes_from_service() || is_renewal(case) {
            return None;
        }
        let subject = Subject::service(flow.protocol, service, flow.peer);
        let services = needs::having_port(&case.inbound, subject);
        // decided: of ICMP, the service is the type of the request.
        let asked = Some((flow.protocol, service));
        let key = HeardKey { server: case.server.name.clone(), peer: flow.peer, service: asked };
        let unread = HeardKey { service: None, ..key.clone() };
        let late = || Decision::drop(Reason::NoFlow).by(&services).at_own_port(service);
        let kind = if case.icmp_kind().is_some() { Covered::LateIcmpReply } else { Covered::LateDatagram };
        let recalled = self.heard.recall(&key, case.now_ns).into_iter().map(|memory| match memory {
            Memory::Heard => late()
                .meeting(kind)
                .meeting_if(self.heard.is_old(&key, case.now_ns), Covered::LateByOldMemory)
                .meeting_if(!self.heard.has(&key, case.now_ns), Covered::LateByUnreadOpening),
            Memory::ByChance => Decision { by_chance: true, ..late() },
            Memory::Presumed => Decision { presumed: true, ..late() }.meeting(Covered::Presumed),
            Memory::Never => {
                let forgotten = [&key, &unread].iter().any(|key| self.heard.has_forgotten(key, case.now_ns));
                decide_new(case).meeting_if(forgotten, Covered::Forgotten)
            }
        });
        Decision::one_of(recalled)
    }

    /// Step 9: an answer in a flow that a peer opened to a service that is still one.
    pub fn find_reply(&self, case: &Case<'_>) -> Option<Decision> {
        let (key, service) = answered_flow(case.packet)?;
        if case.tcp().is_some_and(|tcp| tcp.is_bare_syn()) {
            return None;
        }
        let subject = Subject::service(key.protocol, service, key.peer);
        let rules = needs::matching(case.policy, &case.inbound, subject);
        let edited = self.find_edits(&case.server.name, Direction::In, subject, case.now_ns);
        if rules.is_empty() && edited.allowed_until.is_none() {
            return None;
        }
        let mut decision = if !case.is_strict() {
            Decision::pass(Reason::Reply)
        } else {
            let found = self.flows.find(&key, case.now_ns);
            let taken_over = case.tcp().filter(|tcp| !tcp.has(SYN) && case.now_ns < self.pickup_until_ns);
            match (found, taken_over) {
                // The tracker was there before the filter, which has not seen the SYN+ACK.
                (Some(Table::HalfOpen), Some(tcp)) if !tcp.has(RST) && self.flows.is_unanswered(&key) => {
                    Decision::pass(Reason::Pickup).with(Effect::PickUp(key))
                }
                (Some(table), _) => Decision::pass(Reason::Reply).with(Effect::Answer(table, key)),
                // What a reset ends needs no flow.
                (None, Some(tcp)) if tcp.has(RST) => Decision::pass(Reason::Pickup),
                (None, Some(_)) => Decision::pass(Reason::Pickup).with(Effect::PickUp(key)),
                (None, None) => return None,
            }
        };
        if edited.denied {
            return Some(Decision::drop(Reason::Denied).at_own_port(service).meeting(Covered::DeniedReply));
        }
        decision.management = rules.iter().any(|rule| rule.role.is_none());
        decision.edit_until = edited.until(!rules.is_empty());
        let by_edit = decision.edit_until.is_some();
        Some(decision.by(&rules).meeting_if(by_edit, Covered::ReplyByEdit))
    }

    /// Step 10: what the server may open. A need without a limit goes first, then each in turn that has room.
    fn find_need<'case>(&self, case: &Case<'case>) -> Option<Decision> {
        if case.tcp().is_some_and(|tcp| !tcp.is_bare_syn()) {
            return None;
        }
        let opening = case.opening();
        let rules = needs::matching(case.policy, &case.outbound, opening);
        // A peer's SYN may cross it.
        let key = answered_flow(case.packet).filter(|_| case.asks()).map(|(key, _)| key);
        let mark = |mut decision: Decision, rules: &[Rule<'_>]| {
            decision.effects.extend(key.map(Effect::Open));
            decision
                .by(rules)
                .meeting_if(rules.iter().all(|rule| rule.need.sport.is_some()), Covered::SportNeed)
                .meeting_if(needs::is_peer_by_name(rules, opening.peer), Covered::PeerByName)
                .meeting_if(opening.protocol == VRRP, Covered::VrrpByNeed)
        };
        let edited = self.find_edits(&case.server.name, Direction::Out, opening, case.now_ns);
        // decided: what a need permits without a limit and without names uses no grant
        let (name, outbound) = (&case.server.name, case.outbound.as_slice());
        let named = (!has_unlimited(&rules))
            .then(|| self.find_grant(case.policy, name, outbound, opening, case.now_ns))
            .flatten();
        if rules.is_empty() && named.is_none() && edited.allowed_until.is_none() {
            return None;
        }
        if edited.denied {
            return Some(Decision::drop(Reason::Denied));
        }
        let unlimited = |rules: &[Rule<'case>]| -> Vec<Rule<'case>> {
            rules.iter().copied().filter(|rule| rule.need.limit.is_none()).collect()
        };
        if has_unlimited(&rules) {
            return Some(mark(Decision::pass(Reason::Need), &unlimited(&rules)));
        }
        let flow = answered_flow(case.packet).map(|(flow, _)| flow).filter(|flow| flow.protocol == TCP);
        let pass = || {
            let decision = Decision::pass(Reason::Need);
            match &named {
                None => decision,
                Some(opened) => decision
                    .with(Effect::UseGrant(opened.key.clone(), flow))
                    .meeting(Covered::NameNeed)
                    .meeting_if(opened.key.0.is_none(), Covered::CommonGrant),
            }
        };
        let of_name: &[Rule<'_>] = named.as_ref().map_or(&[], |opened| &opened.rules);
        if has_unlimited(of_name) {
            return Some(mark(pass(), &unlimited(of_name)));
        }
        // decided: it has no limit, and goes before needs that have one
        if edited.allowed_until.is_some() {
            let mut decision = Decision::pass(Reason::Need).meeting(Covered::NeedByEdit);
            decision.effects.extend(key.map(Effect::Open));
            decision.edit_until = edited.allowed_until;
            return Some(decision);
        }
        if named.is_some() {
            // decided: which of several is asked first where one is a name's is open
            let all: Vec<Rule<'_>> = of_name.iter().chain(&rules).copied().collect();
            let limited = by_generosity(&all);
            let buckets =
                limited.iter().map(|(rule, limit)| (rule, *limit, BucketKey::new(&case.server.name, rule)));
            let open = buckets.filter(|(_, limit, bucket)| self.buckets.allows(bucket, *limit, case.now_ns));
            let decisions =
                open.map(|(rule, limit, bucket)| mark(pass().with(Effect::Spend(bucket, limit)), &[*rule]));
            let none = || Some(Decision::drop(Reason::Rate).by(&all).meeting(Covered::NameLimit));
            return Decision::one_of(decisions).or_else(none);
        }
        let limited = by_generosity(&rules);
        for (place, (rule, limit)) in limited.iter().enumerate() {
            let bucket = BucketKey::new(&case.server.name, rule);
            if self.buckets.allows(&bucket, *limit, case.now_ns) {
                let decision = Decision::pass(Reason::Need).with(Effect::Spend(bucket, *limit));
                return Some(mark(decision, &[*rule]).meeting_if(place > 0, Covered::FurtherLimit));
            }
        }
        Some(Decision::drop(Reason::Rate).by(&rules))
    }

    /// Step 11: other segments of what the server may open.
    fn find_own_connection(&self, case: &Case<'_>) -> Option<Decision> {
        let tcp = case.tcp().filter(|tcp| !tcp.is_bare_syn())?;
        let (key, _) = answered_flow(case.packet)?;
        let mut rules = needs::matching(case.policy, &case.outbound, case.opening());
        // decided: what a need without names permits is none of the connection's
        let (name, outbound) = (&case.server.name, case.outbound.as_slice());
        let carrying = match has_unlimited(&rules) {
            true => Vec::new(),
            false => self.find_carrying(case.policy, name, outbound, case.opening(), &key, case.now_ns),
        };
        let carries = !carrying.is_empty();
        rules.extend(carrying);
        let crossed = self.has_crossed(case);
        let is_opened = tcp.is_syn_ack() && self.is_opened(case, &key);
        let edited = self.find_edits(&case.server.name, Direction::Out, case.opening(), case.now_ns);
        if (rules.is_empty() && edited.allowed_until.is_none()) || (is_opened && !crossed) {
            return None;
        }
        let by_sport = !rules.is_empty() && rules.iter().all(|rule| rule.need.sport.is_some());
        // decided: a need with a limit permits it as well, but an edit goes before that
        let by_policy = rules.iter().any(|rule| rule.need.limit.is_none());
        let mut own = Decision::pass(Reason::OwnConnection).by(&rules);
        own.edit_until = edited.until(by_policy);
        if own.edit_until.is_some() {
            own.needs.clear();
        } else if carries {
            own = own.with(Effect::TouchConnection(key)).meeting(Covered::NameConnection);
        }
        let own = match edited.denied {
            true => Decision::drop(Reason::Denied),
            false => own.meeting_if(by_sport, Covered::SportOwnConnection),
        };
        if !tcp.is_syn_ack() || crossed {
            return Some(own.meeting_if(is_opened, Covered::CrossedSyn));
        }
        // decided: a peer whose opening could not be read may have opened this
        match self.recall_unread(case).as_slice() {
            [Memory::Heard] => None,
            [Memory::Never] => Some(own),
            _ => {
                let opened = find_listener(case).or_else(|| find_no_flow(case))?;
                Decision::one_of([own, Decision { by_chance: true, ..opened }])
            }
        }
    }

    /// Whether it is the answer to a SYN that crossed the server's own.
    pub fn has_crossed(&self, case: &Case<'_>) -> bool {
        case.accepts()
            && answered_flow(case.packet)
                .is_some_and(|(key, _)| self.flows.is_own(&case.server.name, &key, case.now_ns))
    }

    /// Whether a peer is known to have opened the flow; service tracking knows nothing.
    fn is_opened(&self, case: &Case<'_>, key: &FlowKey) -> bool {
        case.is_strict() && self.flows.is_opened(key, case.now_ns)
    }

    /// Step 12: an ICMP error about a packet of a flow of 9 or 10, to whom sent that packet.
    /// decided: from the address that the packet was sent to, and never about a flow that could only
    /// be picked up.
    fn find_flow_error(&self, case: &Case<'_>) -> Option<Decision> {
        let packet = case.packet;
        let Some(Transport::Icmp(icmp)) = &packet.transport else { return None };
        let ipv6 = packet.source.is_ipv6();
        if icmp_kind(ipv6, icmp.kind) != IcmpKind::Error {
            return None;
        }
        let quote = read_quote(&icmp.body, ipv6)?;
        if quote.source != packet.destination || quote.destination != packet.source {
            return None;
        }
        // The quoted packet came from the peer: to a service (its ports, or its request's type) ..
        let (ports, service, asked) = match quote.ends {
            QuotedEnds::Ports { source, destination } => {
                (Some((destination, source)), Some(destination), Some(source))
            }
            QuotedEnds::Icmp { kind, identifier } => match icmp_kind(ipv6, kind) {
                IcmpKind::Request => (Some((identifier, u16::from(kind))), Some(u16::from(kind)), None),
                // .. or as an answer to what the server asked.
                IcmpKind::Reply(request) => (None, None, Some(u16::from(request))),
                _ => (None, None, None),
            },
            QuotedEnds::Portless => (Some((0, 0)), Some(0), Some(0)),
        };
        let subject = |port| Subject::service(quote.protocol, port, quote.source);
        let mut rules: Vec<Rule<'_>> = Vec::new();
        let mut edit_until = None;
        let mut by_name = false;
        if let (Some((server_port, peer_port)), Some(service)) = (ports, service) {
            let key = FlowKey {
                server: packet.source,
                peer: packet.destination,
                protocol: quote.protocol,
                server_port,
                peer_port,
            };
            if !case.is_strict() || self.flows.find(&key, case.now_ns).is_some() {
                let found = needs::matching(case.policy, &case.inbound, subject(service));
                let edited = self.find_edits(&case.server.name, Direction::In, subject(service), case.now_ns);
                if edited.permits(!found.is_empty()) {
                    edit_until = edited.until(!found.is_empty());
                    rules.extend(found);
                }
            }
        }
        if let Some(port) = asked {
            let own_port = match quote.ends {
                QuotedEnds::Ports { destination, .. } => Some(destination),
                QuotedEnds::Icmp { .. } | QuotedEnds::Portless => None,
            };
            let subject = Subject { own_port, ..subject(port) };
            let mut found = needs::matching(case.policy, &case.outbound, subject);
            if found.is_empty() {
                found = self.find_quoted_name(case, quote.protocol, ports, subject);
                by_name = !found.is_empty();
            }
            let edited = self.find_edits(&case.server.name, Direction::Out, subject, case.now_ns);
            // what a peer has opened goes first
            if rules.is_empty() && edit_until.is_none() && edited.permits(!found.is_empty()) {
                edit_until = edited.until(!found.is_empty());
                rules.extend(found);
            }
        }
        let by_sport = !rules.is_empty() && rules.iter().all(|rule| rule.need.sport.is_some());
        (!rules.is_empty() || edit_until.is_some()).then(|| {
            let mut decision = Decision::pass(Reason::FlowError).by(&rules);
            decision.edit_until = edit_until;
            decision.meeting_if(by_sport, Covered::SportFlowError).meeting_if(by_name, Covered::NameFlowError)
        })
    }

    /// The rules by which the server may send what a quoted packet answers, to an address that a name has.
    fn find_quoted_name<'p>(
        &self,
        case: &Case<'p>,
        protocol: u8,
        ports: Option<(u16, u16)>,
        subject: Subject,
    ) -> Vec<Rule<'p>> {
        let (name, outbound) = (&case.server.name, case.outbound.as_slice());
        if protocol != TCP {
            let opened = self.find_grant(case.policy, name, outbound, subject, case.now_ns);
            return opened.map_or_else(Vec::new, |opened| opened.rules);
        }
        let Some((server_port, peer_port)) = ports else { return Vec::new() };
        let (server, peer) = (case.packet.source, case.packet.destination);
        let key = FlowKey { server, peer, protocol, server_port, peer_port };
        self.find_carrying(case.policy, name, outbound, subject, &key, case.now_ns)
    }

    /// Step 13: something listens that should not. A peer whose SYN could not be read may have opened it.
    fn find_unlisted_service(&self, case: &Case<'_>) -> Option<Decision> {
        let (key, _) = answered_flow(case.packet)?;
        let decision = find_listener(case)?;
        let Some(tcp) = case.tcp() else {
            return match case.accepts() {
                // decided: as a SYN+ACK, in service tracking too; but an `out` need goes before
                true if !case.is_strict() || self.is_opened(case, &key) => {
                    let service = case.packet.source_port().unwrap_or(0);
                    Some(match self.has_crossed(case) {
                        true => Decision::drop(Reason::NoFlow).at_own_port(service),
                        false => decision.meeting(Covered::UnlistedAssociation),
                    })
                }
                true => None,
                false => {
                    let answers = key.protocol == UDP && self.is_opened(case, &key) && !is_renewal(case);
                    answers.then_some(decision)
                }
            };
        };
        if !tcp.is_syn_ack() || self.has_crossed(case) {
            return None;
        }
        if !case.is_strict() || self.is_opened(case, &key) {
            return Some(decision);
        }
        match self.recall_unread(case).as_slice() {
            [Memory::Heard] => {
                let opening = needs::matching(case.policy, &case.outbound, case.opening());
                let refused = !opening.is_empty();
                let decision = decision.meeting(Covered::UnlistedByUnreadOpening);
                Some(decision.meeting_if(refused, Covered::OwnConnectionRefused))
            }
            [Memory::Never] => None,
            _ => {
                let none = find_no_flow(case).unwrap_or_else(|| decide_new(case));
                Decision::one_of([none, Decision { by_chance: true, ..decision }])
            }
        }
    }

    /// Step 14: how a healthy server answers the noise.
    fn find_noise(&self, case: &Case<'_>) -> Option<Decision> {
        if case.resets() {
            let port = case.packet.source_port().unwrap_or(0);
            let decision = Decision::drop(Reason::Backscatter).at_own_port(port);
            return Some(decision.meeting_if(case.tcp().is_none(), Covered::ResetAssociation));
        }
        if case.icmp_kind() == Some(IcmpKind::Error) {
            return Some(Decision::drop(Reason::Backscatter).answering());
        }
        // decided: the answer to a request that is a service, but not for this peer, is to a stranger. In
        // strict tracking that to a request which is a service for the peer is the next step's.
        if let Some(IcmpKind::Reply(request)) = case.icmp_kind() {
            let packet = case.packet;
            let subject = Subject::service(packet.protocol, request.into(), packet.destination);
            let services = needs::having_port(&case.inbound, subject);
            let permitted = !needs::matching(case.policy, &case.inbound, subject).is_empty();
            if permitted && case.is_strict() {
                return None;
            }
            let reason =
                if services.is_empty() || permitted { Reason::Backscatter } else { Reason::Stranger };
            return Some(Decision::drop(reason).answering());
        }
        // decided: in strict tracking only what a peer is known to have opened has an answer, whatever
        // segment or datagram it is; in service tracking a SYN+ACK from a service's port is one.
        let (key, service) = answered_flow(case.packet)?;
        let answers = match case.tcp() {
            Some(tcp) if case.is_strict() => !tcp.is_bare_syn() && self.is_opened(case, &key),
            Some(tcp) => tcp.is_syn_ack(),
            None if case.accepts() => !case.is_strict() || self.is_opened(case, &key),
            None => key.protocol == UDP && self.is_opened(case, &key) && !is_renewal(case),
        };
        let subject = Subject::service(key.protocol, service, key.peer);
        let services = needs::having_port(&case.inbound, subject);
        // decided: also where the policy has come to permit it since, for then it is no alarm either
        (answers && !services.is_empty())
            .then(|| Decision::drop(Reason::Stranger).by(&services).at_own_port(service))
    }
}

/// Its peer goes on to ask.
fn quiet_takeover(decision: &mut Decision, answers: bool) {
    if answers && [Reason::NoFlow, Reason::NewFlow].contains(&decision.reason) {
        decision.quiet = true;
        decision.met.push(Covered::QuietTakeover);
    }
}

/// What answers from a port that is no `in` service, if it is an answer.
fn find_listener(case: &Case<'_>) -> Option<Decision> {
    let (key, service) = answered_flow(case.packet)?;
    let subject = Subject::service(key.protocol, service, key.peer);
    let listed = !needs::having_port(&case.inbound, subject).is_empty();
    (!listed).then(|| Decision::drop(Reason::UnlistedService).at_own_port(service))
}

/// Step 15: a segment of nothing.
fn find_no_flow(case: &Case<'_>) -> Option<Decision> {
    let tcp = case.tcp().filter(|tcp| !tcp.is_bare_syn())?;
    let subject = Subject::service(TCP, tcp.source, case.packet.destination);
    let decision = Decision::drop(Reason::NoFlow);
    Some(match needs::having_port(&case.inbound, subject) {
        services if services.is_empty() => decision,
        services => decision.by(&services).at_own_port(tcp.source),
    })
}

/// Steps 16 to 18: something new.
/// decided: another protocol is `protocol` unless an `out` need has protocol and port.
fn decide_new(case: &Case<'_>) -> Decision {
    let opening = case.opening();
    let elsewhere = needs::having_port(&case.outbound, opening);
    let own_family = if case.packet.source.is_ipv6() { ICMPV6 } else { ICMP };
    let reason = if !elsewhere.is_empty() {
        Reason::Destination
    } else if opening.protocol == VRRP {
        // a server that claims a router's address takes over the traffic of the link
        Reason::RogueRouter
    } else if [TCP, UDP, own_family].contains(&opening.protocol) {
        Reason::NewFlow
    } else {
        Reason::Protocol
    };
    let quiet = needs::matching(case.policy, &needs::quiet(case.policy, case.server), opening);
    let renewal = case.packet.piece == Piece::Whole && is_renewal(case);
    let lessors = || case.lessors.iter().flatten();
    // decided: service tracking does not see who leases. More than four are not kept apart.
    let everybody = lessors().any(|known| known.len() > 4);
    let leased = lessors().any(|known| known.contains(&case.packet.destination));
    let expected = renewal && (!case.is_strict() || everybody || leased);
    let rules: Vec<Rule<'_>> = elsewhere.iter().chain(&quiet).copied().collect();
    let by_sport = !elsewhere.is_empty() && elsewhere.iter().all(|rule| rule.need.sport.is_some());
    Decision::drop(reason)
        .by(&rules)
        .quiet_if(!quiet.is_empty() || expected)
        .meeting_if(expected && leased, Covered::Renewal)
        .meeting_if(expected && everybody && !leased, Covered::RenewalPresumed)
        .meeting_if(renewal && !expected, Covered::RenewalElsewhere)
        .meeting_if(reason == Reason::RogueRouter, Covered::VrrpOfServer)
        .meeting_if(by_sport, Covered::SportOtherDestination)
}

/// A DHCP client that renews by unicast: it will broadcast.
fn is_renewal(case: &Case<'_>) -> bool {
    case.policy.settings.dhcp.value
        && case.packet.protocol == UDP
        && matches!(&case.packet.transport, Some(Transport::Ports { source, destination })
            if is_dhcp(case.packet, *source, *destination))
}
