//! The ends of all chains: what is refused is dropped, or only logged in mode observe.

use std::fmt::Write as _;

use super::names::quote;
use super::sets::{Family, Sets};
use crate::policy::{Mode, Policy, Server};

/// Where drops go.
pub(super) const REFUSE: &str = "refuse";
pub(super) const REFUSE_QUIETLY: &str = "refuse_quietly";
pub(super) const REFUSE_UNKNOWN: &str = "refuse_unknown";
pub(super) const REFUSE_UNKNOWN_QUIETLY: &str = "refuse_unknown_quietly";
const WOULD_DROP: &str = "would_drop";

/// Writes a chain.
pub(super) fn write_chain(name: &str, comment: &str, rules: &[String], out: &mut String) {
    let _ = write!(out, "    chain {name} {{\n{}", Sets::describe_chain(comment));
    for rule in rules {
        let _ = writeln!(out, "        {rule}");
    }
    out.push_str("    }\n");
}

/// Where all drops go, by the mode of the server or of the policy.
pub(super) fn write_ends(policy: &Policy, interface: &str, sets: &mut Sets<'_>, out: &mut String) {
    let whole = policy.settings.mode.value;
    let differs = |server: &Server| policy.mode_of(server) != whole;
    let loud = |word: &str| {
        format!("limit rate 10/second burst 50 packets log prefix \"portcullis {interface} {word}: \"")
    };
    let verdict = |mode: Mode| match mode {
        Mode::Enforce => "counter drop",
        Mode::Observe => "counter accept",
    };
    let end = |mode: Mode| match mode {
        Mode::Enforce => vec![loud("drop"), verdict(mode).to_owned()],
        Mode::Observe => vec![format!("goto {WOULD_DROP}")],
    };
    let other = match whole {
        Mode::Enforce => Mode::Observe,
        Mode::Observe => Mode::Enforce,
    };
    let (mut refuse, mut quietly) = (Vec::new(), Vec::new());
    if policy.servers.iter().any(differs) {
        // a frame with a server's address, but from another MAC or VLAN, has the mode of the policy
        for family in Family::ALL {
            let header = family.header();
            for (key, field, has) in [
                (
                    "mac",
                    "ether saddr",
                    policy.servers.iter().any(|server| has_family(server, family) && !server.macs.is_empty()),
                ),
                (
                    "vlan",
                    "iifname",
                    policy.servers.iter().any(|server| has_family(server, family) && server.vlan.is_some()),
                ),
            ] {
                if has {
                    let suffix = family.suffix();
                    let spoofed = format!(
                        "{header} saddr @with_{key}_{suffix} {header} saddr . {field} != @{key}s_{suffix}"
                    );
                    refuse.push(format!("{spoofed} goto {REFUSE_UNKNOWN}"));
                    quietly.push(format!("{spoofed} goto {REFUSE_UNKNOWN_QUIETLY}"));
                }
            }
            let Some(servers) = sets.define_servers("of_other_mode", family, differs) else {
                continue;
            };
            let mode_end = match other {
                Mode::Observe => format!("goto {WOULD_DROP}"),
                Mode::Enforce => "goto refuse_in_observe".to_owned(),
            };
            refuse.push(format!("{header} saddr {servers} {mode_end}{}", quote("mode of the server")));
            quietly.push(format!(
                "{header} saddr {servers} {}{}",
                verdict(other),
                quote("mode of the server")
            ));
        }
    }
    refuse.extend(end(whole));
    quietly.push(verdict(whole).to_owned());
    write_chain(REFUSE, "refused, and logged", &refuse, out);
    write_chain(REFUSE_QUIETLY, "refused", &quietly, out);
    write_chain(REFUSE_UNKNOWN, "refused by the mode of [policy], and logged", &end(whole), out);
    write_chain(REFUSE_UNKNOWN_QUIETLY, "refused by the mode of [policy]", &[verdict(whole).to_owned()], out);
    write_chain(WOULD_DROP, "mode observe", &[loud("would_drop"), verdict(Mode::Observe).to_owned()], out);
    if whole == Mode::Observe {
        write_chain("refuse_in_observe", "of servers in mode enforce", &end(Mode::Enforce), out);
    }
}

fn has_family(server: &Server, family: Family) -> bool {
    server.addresses.iter().any(|(net, _)| Family::of(net) == family)
}
