//! Policies of any size.

use std::fmt::Write as _;

/// The size of a policy.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub servers: u32,
    /// IPv4 addresses of each server, one after the other. With one, it also has one IPv6 address.
    pub addresses_each: u32,
    /// Needs of each server.
    pub needs_each: u32,
    /// Whether each server has a role of its own. Otherwise all share one.
    pub own_roles: bool,
    pub strict: bool,
    /// Whether conntrack is asked for flows that no table has.
    pub handover: bool,
    /// Room for established flows.
    pub established: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            servers: 256,
            addresses_each: 1,
            needs_each: 16,
            own_roles: false,
            strict: true,
            handover: false,
            established: 65_536,
        }
    }
}

/// Writes a policy in which every server offers tcp/80 and may open tcp/587. Its other needs only take room. They
/// are SCTP ports, which no benchmark uses, with gaps, so that none are merged into ranges.
pub fn write_policy(shape: &Shape) -> String {
    let tracking = if shape.strict { "strict" } else { "service" };
    let handover = if shape.handover { "conntrack" } else { "none" };
    let mut text = format!("[policy]\npickup = 0\ntracking = \"{tracking}\"\nhandover = \"{handover}\"\n");
    let roles = if shape.own_roles { shape.servers } else { 1 };
    for role in 0..roles {
        let more = shape.needs_each.saturating_sub(2);
        let list = |first: u32, count: u32| {
            (0..count).fold(String::new(), |mut text, number| {
                let _ = write!(text, ", \"sctp/{}\"", first + role + 2 * number);
                text
            })
        };
        let _ = writeln!(text, "[roles.r{role}]\nin = [\"tcp/80\"{}]", list(1000, more - more / 2));
        let _ = writeln!(text, "out = [\"tcp/587\"{}]", list(20_000, more / 2));
    }
    for server in 0..shape.servers {
        let role = if shape.own_roles { server } else { 0 };
        let _ = write!(text, "[servers.s{server}]\nroles = [\"r{role}\"]\naddresses = [");
        for address in server * shape.addresses_each..(server + 1) * shape.addresses_each {
            let _ = write!(text, "\"198.18.{}.{}\", ", address >> 8, address & 255);
        }
        if shape.addresses_each == 1 {
            let _ = write!(text, "\"2001:db8:5::{:x}\"", server + 1);
        }
        text.push_str("]\n");
    }
    let _ = write!(text, "[tables]\nestablished = {}\n", shape.established);
    text
}
