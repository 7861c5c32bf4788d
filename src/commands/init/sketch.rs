//! The policy that is begun from what a machine knows, as text. Whatever was only seen is marked as a guess, and the
//! policy observes, so that a wrong guess drops nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::show_mac;

/// The MACs of virtual routers (RFC 9568, 7.3), apart from their last byte.
const VIRTUAL_ROUTERS: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];

/// What a machine knows of an interface's link.
#[derive(Debug)]
pub(super) struct Sketch {
    /// The interface.
    pub interface: String,
    /// The name of this machine.
    pub host: String,
    /// The addresses of the interface.
    pub own: Vec<IpNet>,
    /// The machines that were seen there.
    pub machines: Vec<Machine>,
    /// The resolvers of this machine.
    pub resolvers: BTreeSet<IpAddr>,
    /// From where somebody has logged in.
    pub client: Option<IpAddr>,
}

/// A machine of the link.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its MAC.
    pub mac: [u8; 6],
    /// The addresses that the kernel has seen with it.
    pub addresses: BTreeSet<IpAddr>,
}

/// Whether the address is of a link alone.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl Machine {
    fn is_virtual_router(&self) -> bool {
        VIRTUAL_ROUTERS.iter().any(|front| self.mac.starts_with(front))
    }

    /// What a policy may have of its addresses.
    fn global(&self) -> Vec<IpAddr> {
        self.addresses.iter().copied().filter(|address| !is_link_local(*address)).collect()
    }

    /// A name that no other machine has, for each address has one MAC.
    fn name(addresses: &[IpAddr]) -> String {
        let first = addresses.first().map(ToString::to_string).unwrap_or_default();
        format!("host-{}", first.replace(['.', ':'], "-"))
    }
}

impl fmt::Display for Sketch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sketch { interface, host, .. } = self;
        writeln!(
            out,
            "# A policy for {interface} of {host}, begun by `portcullis init -i {interface}`.\n\
             #\n\
             # What says GUESS comes from what this machine has seen. Look at each of them. `portcullis init` prints an\n\
             # example with every key, and `man portcullis.toml` explains them. Then run: portcullis check FILE\n\
             \n\
             [policy]\n\
             mode = \"observe\"             # drops nothing. It counts and raises alarms. Later: \"enforce\""
        )?;
        self.write_management(out)?;
        self.write_sets(out)?;
        self.write_roles(out)?;
        self.write_servers(out)?;
        out.write_str(
            "\n# Alarms always go to standard error, which is the journal of a service.\n\
             [alarms]\n\
             # eve = \"/var/log/portcullis/eve.json\"    # drops and alarms as Suricata's EVE JSON\n",
        )
    }
}

impl Sketch {
    fn write_management(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (comment, end) = match self.client {
            Some(_) => ("", ""),
            None => ("# ", "    # write the set `bastion` first"),
        };
        writeln!(out, "# open on every server, also in quarantine:")?;
        writeln!(
            out,
            "{comment}management = [\"tcp/22 from @bastion\", \"icmp/echo-request from @bastion\"]{end}"
        )
    }

    fn write_sets(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\n[sets]")?;
        let bastion = match self.client {
            Some(client) => format!("bastion = [\"{client}\"]    # GUESS: your ssh session comes from there"),
            None => "# You did not come by ssh. From where do you log in to the servers?\n# bastion = [\"203.0.113.7\"]"
                .to_owned(),
        };
        writeln!(out, "{bastion}")?;
        if self.resolvers.is_empty() {
            return Ok(());
        }
        writeln!(out, "resolvers = [{}]    # GUESS: this machine asks them", quote(&self.resolvers))
    }

    fn write_roles(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "\n# Give each server the roles that it has, and write a role for each kind of server:\n\
             # [roles.web]\n\
             # in = [\"tcp/80\", \"tcp/443\"]\n\
             # [roles.mail]\n\
             # in = [\"tcp/25\"]\n\
             # out = [\"tcp/25 limit 20/s\"]"
        )?;
        writeln!(out, "\n# Every server has this role.\n[roles.managed]")?;
        if !self.resolvers.is_empty() {
            writeln!(out, "out = [\"udp/53 to @resolvers\", \"tcp/53 to @resolvers\"]")?;
        }
        writeln!(
            out,
            "quiet = [\n    \"udp/5353\",      # mDNS\n    \"udp/5355\",      # LLMNR\n    \"igmp\",          # multicast memberships\n]"
        )
    }

    /// The machines that are servers, with those of their addresses that are in the networks of the link.
    fn find_servers(&self) -> Vec<(&Machine, Vec<IpAddr>)> {
        let machines = self.machines.iter().filter(|machine| !machine.is_virtual_router());
        let mut servers: Vec<_> = machines.map(|machine| (machine, machine.global())).collect();
        servers.retain(|(_, addresses)| !addresses.is_empty());
        servers.sort_by(|one, other| one.1.cmp(&other.1));
        servers
    }

    fn write_servers(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        let own: Vec<String> = self.own.iter().map(ToString::to_string).collect();
        match own.is_empty() {
            true => writeln!(out, "\n# This machine has no address on {interface}.")?,
            false => writeln!(out, "\n# This machine is {} on {interface}.", own.join(" and "))?,
        }
        for machine in self.machines.iter().filter(|machine| machine.is_virtual_router()) {
            let addresses = join(&machine.addresses);
            let mac = show_mac(&machine.mac);
            writeln!(
                out,
                "# GUESS: {addresses} with {mac} is a virtual router. If it is not yours, see [routers.NAME]."
            )?;
        }
        let servers = self.find_servers();
        if servers.is_empty() {
            return writeln!(
                out,
                "# It has seen no neighbour there. EXAMPLE: put in your own.\n\
                 [servers.web1]\n\
                 addresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\n\
                 roles = [\"managed\"]"
            );
        }
        writeln!(
            out,
            "# GUESS: the neighbours that it has seen there. Is one of them a router? Then take it out."
        )?;
        for (machine, addresses) in &servers {
            let mac = show_mac(&machine.mac);
            writeln!(
                out,
                "\n[servers.{name}]\naddresses = [{addresses}]    # GUESS\nmac = \"{mac}\"    # GUESS\nroles = [\"managed\"]",
                name = Machine::name(addresses),
                addresses = quote(addresses),
            )?;
        }
        let names: Vec<String> =
            servers.iter().map(|(_, addresses)| format!("\"{}\"", Machine::name(addresses))).collect();
        writeln!(
            out,
            "\n# What must hold, whatever else changes: `portcullis test FILE` runs this.\n\
             [[tests]]\nfrom = [{}]\ndeny = [\"tcp/22\", \"tcp/80\", \"tcp/443\", \"tcp/445\"]",
            names.join(", ")
        )
    }
}

fn quote<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
    addresses.into_iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
}

fn join(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::policy::{Mode, Policy, parse};

    fn machine(mac: [u8; 6], addresses: &[&str]) -> Machine {
        Machine { mac, addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() }
    }

    fn sketch() -> Sketch {
        Sketch {
            interface: "dmz0".into(),
            host: "router1".into(),
            own: vec!["192.0.2.1/24".parse().unwrap(), "2001:db8:1::1/64".parse().unwrap()],
            machines: vec![
                machine([2, 0, 0, 0, 0, 0x25], &["192.0.2.25"]),
                machine([2, 0, 0, 0, 0, 0x10], &["192.0.2.10", "2001:db8:1::10", "fe80::10"]),
                machine([2, 0, 0, 0, 0, 0x99], &["fe80::99"]),
                machine([0, 0, 0x5e, 0, 1, 7], &["192.0.2.254"]),
            ],
            resolvers: ["192.0.2.1".parse().unwrap()].into(),
            client: Some("203.0.113.7".parse().unwrap()),
        }
    }

    fn read(sketch: &Sketch) -> Policy {
        let text = sketch.to_string();
        let policy = parse(&text, "dmz0.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        compile(&policy).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        policy
    }

    #[test]
    fn the_sketch_is_a_policy_that_observes_with_a_server_for_each_neighbour() {
        let sketch = sketch();
        let policy = read(&sketch);
        assert_eq!(policy.settings.mode.value, Mode::Observe);
        let names: Vec<&str> = policy.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["host-192-0-2-10", "host-192-0-2-25"]);
        let text = sketch.to_string();
        assert!(text.contains("addresses = [\"192.0.2.10\", \"2001:db8:1::10\"]    # GUESS\nmac = \"02:00:00:00:00:10\"    # GUESS"));
        assert!(text.contains("192.0.2.254 with 00:00:5e:00:01:07 is a virtual router"), "{text}");
        assert!(text.contains("# This machine is 192.0.2.1/24 and 2001:db8:1::1/64 on dmz0."), "{text}");
    }

    #[test]
    fn every_value_that_was_only_seen_is_marked_as_a_guess() {
        let text = sketch().to_string();
        let seen =
            ["203.0.113.7", "\"192.0.2.1\"", "192.0.2.10", "192.0.2.25", "02:00:00:00:00:", "192.0.2.254"];
        let lines = text.lines().filter(|line| seen.iter().any(|value| line.contains(value)));
        let unmarked: Vec<&str> = lines.filter(|line| !line.contains("GUESS")).collect();
        assert!(unmarked.is_empty(), "{unmarked:?}");
    }

    #[test]
    fn a_machine_that_knows_nothing_gets_a_valid_policy_as_well() {
        let nothing =
            Sketch { own: vec![], machines: vec![], resolvers: BTreeSet::new(), client: None, ..sketch() };
        let policy = read(&nothing);
        let names: Vec<&str> = policy.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["web1"], "a policy without a server is refused");
        let text = nothing.to_string();
        assert!(text.contains("EXAMPLE: put in your own"), "{text}");
        assert!(text.contains("# bastion = ") && text.contains("# management = "), "{text}");
        read(&Sketch { resolvers: BTreeSet::new(), ..sketch() });
        read(&Sketch { client: None, ..sketch() });
    }
}
