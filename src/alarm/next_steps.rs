//! What to do next: commands to type, and the line of the policy that would permit what was seen.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Alarm, GateTrouble, Kind, Likely, Part, Scope, Severity};
use crate::abi::Reason;
use crate::drops::DropVerdict;
use crate::net::has_ports;
use crate::net::tcp_flags::show_flags;

/// How the command that cuts off a server or a machine begins.
pub(crate) const QUARANTINE: &str = "portcullis quarantine ";
/// Machines of a prefix that get a command each.
const MAX_MACHINES: usize = 16;
/// Destinations that are named in a line of the policy.
const MAX_PERMITTED: usize = 4;
/// Parts that get such a line.
const MAX_PERMITTED_PARTS: usize = 4;

impl Alarm {
    /// What to do next, the most urgent first: commands to type, and lines for the policy.
    pub fn next_commands(&self) -> Vec<String> {
        let interface = quote(&self.interface);
        let lead = self.lead();
        if let Some((trouble, _)) = &lead.trouble {
            return advise_gate(*trouble, &interface);
        }
        if lead.scope == Scope::Answers {
            return self.advise_answers(&interface);
        }
        let mut next = Vec::new();
        let is_observed = lead.verdict == Some(DropVerdict::WouldDrop);
        let is_forgotten = match lead.likely {
            Likely::TimeServer | Likely::Resolver => true,
            Likely::MailQueue | Likely::Unknown => false,
        };
        if is_observed || lead.likely != Likely::Unknown {
            next.extend(self.permit());
        }
        if !is_forgotten {
            next.extend(self.quarantine(&interface));
        }
        next.extend(lead.explain(&interface));
        if next.is_empty() || lead.scope != Scope::Service || self.parts.len() > 1 {
            next.push(format!("portcullis show -i {interface} drops"));
        }
        next
    }

    /// About a name: what it opens, and the line that permits where it points. About a resolver: its way.
    fn advise_answers(&self, interface: &str) -> Vec<String> {
        let lead = self.lead();
        let status = format!("portcullis show -i {interface} status");
        if lead.kind == Kind::ForgedAnswer {
            let route = lead.sources.iter().next().map(|resolver| format!("ip route get {resolver}"));
            return route.into_iter().chain([status]).collect();
        }
        // no policy permits an IPv4-mapped address
        let is_mapped =
            |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        let prefixes: Vec<String> = lead
            .destinations
            .iter()
            .filter(|address| !is_mapped(address))
            .take(MAX_PERMITTED)
            .map(|address| format!("\"{address}\""))
            .collect();
        let names = format!("portcullis show -i {interface} names");
        if prefixes.is_empty() {
            return vec![names];
        }
        let permit = format!(
            "policy: if {} may point there, add private = [{}] to [names]",
            self.subject(),
            prefixes.join(", ")
        );
        vec![names, permit]
    }

    /// Cuts the server off; of a prefix, the machines that took part in what is severe.
    fn quarantine(&self, interface: &str) -> Vec<String> {
        let lead = self.lead();
        // The server is the victim of a forged address, or it is in quarantine already.
        let is_pointless = matches!(
            lead.reason.and_then(|reason| reason.known()),
            Some(Reason::Spoofed | Reason::Quarantined)
        );
        let Some(server) = self.server.as_ref().filter(|_| lead.kind != Kind::Stray && !is_pointless) else {
            return Vec::new();
        };
        let cut_off = |name: &str| format!("{QUARANTINE}-i {interface} {name}");
        let machines = self.list_machines();
        match self.has_machines && !machines.is_empty() {
            true => machines.iter().map(|address| cut_off(&address.to_string())).collect(),
            false => vec![cut_off(&quote(&server.name))],
        }
    }

    /// The machines of the parts that are as severe as the alarm, or high at least.
    fn list_machines(&self) -> Vec<IpAddr> {
        let least = self.severity().min(Severity::High);
        let mut machines: Vec<IpAddr> = Vec::new();
        for part in self.parts.iter().filter(|part| part.severity >= least) {
            for address in part.sources.iter() {
                if !machines.contains(address) {
                    machines.push(*address);
                }
            }
        }
        machines.truncate(MAX_MACHINES);
        machines
    }

    /// The lines of the policy that would permit what its parts did, the first part first.
    fn permit(&self) -> Vec<String> {
        let subject = self.subject();
        let line = |part: &Part| {
            if part.reason.and_then(|reason| reason.known()) == Some(Reason::Question) {
                return Some(format!(
                    "policy: if {subject} may ask this, give a need its name, or leave dns = \"named\" out of its roles"
                ));
            }
            let (key, need) = part.permitting_need()?;
            Some(format!("policy: if {subject} may do this, give one of its roles {key} = [\"{need}\"]"))
        };
        let mut lines: Vec<String> = Vec::new();
        for line in self.parts.iter().filter_map(line) {
            if lines.len() < MAX_PERMITTED_PARTS && !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

impl Part {
    /// The need that would permit it, and the list that it belongs to. `None`: no need could.
    fn permitting_need(&self) -> Option<(&'static str, String)> {
        let sample = self.sample.as_ref().filter(|_| self.scope == Scope::Service)?;
        let service = sample.service();
        let to_places = || {
            let places: Vec<String> =
                self.destinations.iter().take(MAX_PERMITTED).map(IpAddr::to_string).collect();
            match places.is_empty() {
                true => service.clone(),
                false => format!("{service} to {}", places.join(", ")),
            }
        };
        match self.reason.and_then(|reason| reason.known())? {
            Reason::NewFlow | Reason::Destination | Reason::Protocol => Some(("out", to_places())),
            Reason::UnlistedService => Some(("in", service)),
            Reason::LinkLayer
            | Reason::Neighbour
            | Reason::Dhcp
            | Reason::UnknownAllowed
            | Reason::LaterFragment
            | Reason::Reply
            | Reason::Pickup
            | Reason::Need
            | Reason::OwnConnection
            | Reason::FlowError
            | Reason::Router
            | Reason::Handover
            | Reason::Ethertype
            | Reason::Malformed
            | Reason::SourceRoute
            | Reason::RogueRouter
            | Reason::UnknownSource
            | Reason::Spoofed
            | Reason::Quarantined
            | Reason::Fragment
            | Reason::Rate
            | Reason::Backscatter
            | Reason::Stranger
            | Reason::NoFlow
            | Reason::Denied
            | Reason::Question
            | Reason::Elsewhere => None,
        }
    }

    /// `explain` for the packet of the sample; `None` for a packet that `explain` can't be asked about.
    fn explain(&self, interface: &str) -> Option<String> {
        let drop = self.sample.as_ref()?;
        let (from, to) = (drop.source?, drop.destination?);
        if drop.any_protocol || matches!(drop.reason.known(), Some(Reason::Malformed)) {
            return None;
        }
        let mut command = format!("portcullis explain -i {interface} --from {from} --to {to} ");
        if !has_ports(drop.protocol) {
            command.push_str(&drop.service());
            return Some(command);
        }
        let port = drop.destination_port.filter(|_| drop.own_port);
        let port = port.unwrap_or(if drop.own_port { 0 } else { drop.port });
        command.push_str(&format!("{}/{port}", drop.protocol_name()));
        if drop.own_port {
            command.push_str(&format!(" --sport {}", drop.port));
        }
        if drop.own_port
            && let Some(flags) = drop.tcp_flags
        {
            command.push_str(&format!(" --flags {}", show_flags(flags)));
        }
        Some(command)
    }
}

fn advise_gate(trouble: GateTrouble, interface: &str) -> Vec<String> {
    let status = format!("portcullis show -i {interface} status");
    match trouble {
        GateTrouble::Detached | GateTrouble::TrackerMissing => {
            vec![format!("portcullis attach -i {interface} -p POLICY"), status]
        }
        GateTrouble::ModeChanged => vec![status],
        GateTrouble::Observing => vec![format!("portcullis apply -i {interface} POLICY"), status],
        GateTrouble::PolicyRefused => vec!["portcullis check POLICY".to_owned(), status],
        GateTrouble::HistoryDamaged => vec![status],
        GateTrouble::Canary => {
            vec![
                format!("portcullis doctor -i {interface}"),
                format!("portcullis attach -i {interface} -p POLICY"),
            ]
        }
        GateTrouble::Found { .. } => vec![format!("portcullis doctor -i {interface}")],
        GateTrouble::Test => Vec::new(),
    }
}

/// A word that a shell takes as one, whatever is in it: people paste these commands.
fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@%+,/-".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_to_the_shell() {
        assert_eq!(quote("web-1.dmz"), "web-1.dmz");
        assert_eq!(quote("#7"), "'#7'");
        assert_eq!(quote("a'; reboot"), r"'a'\''; reboot'");
        assert_eq!(quote("-rf"), "'-rf'");
        assert_eq!(quote(""), "''");
    }
}
