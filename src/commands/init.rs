//! `portcullis init`: a policy to begin with. Without an interface that is the commented example; with one it has what
//! this machine knows of its DMZ.

mod sketch;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use ipnet::IpNet;

use self::sketch::{Machine, Sketch};
use super::shared::write_new;
use crate::audit::find_ssh_client;
use crate::exit::Exit;
use crate::gate::list_machines;
use crate::host::host_name;
use crate::output::Output;
use crate::policy::STARTER;

/// Where the addresses of the resolvers stand. systemd-resolved has its upstream servers in the second one.
const RESOLVER_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Prints a policy to begin with, or writes it to a new file.
///
/// # Errors
/// When there is no such interface, the file is there already, or can't be written.
pub fn run(interface: Option<&str>, file: Option<&Path>, output: &Output) -> anyhow::Result<Exit> {
    if let Some(path) = file
        && path.symlink_metadata().is_ok()
    {
        bail!("{} exists, and init replaces nothing\nhelp: choose another name", path.display());
    }
    let text = match interface {
        Some(interface) => look_around(interface)?.to_string(),
        None => STARTER.to_owned(),
    };
    match file {
        Some(path) => {
            write_new(path, &text)?;
            let next = format!("{path}: read it, then type portcullis check {path}\n", path = path.display());
            output.either(&serde_json::json!({ "policy": text }), || next)?;
        }
        None => output.either(&serde_json::json!({ "policy": text }), || text.clone())?,
    }
    Ok(Exit::Done)
}

/// What this machine knows of an interface's link.
fn look_around(interface: &str) -> anyhow::Result<Sketch> {
    let machines = list_machines(interface).with_context(|| {
        format!("could not list the neighbours on {interface}\nhelp: `ip link` lists the interfaces")
    })?;
    let own = list_own_addresses(interface)?;
    let machines = machines.into_iter().map(|(mac, addresses)| Machine { mac, addresses }).collect();
    let files = RESOLVER_FILES.map(|file| fs::read_to_string(file).unwrap_or_default());
    Ok(Sketch {
        interface: interface.to_owned(),
        host: host_name().to_owned(),
        resolvers: pick_resolvers(&files, &own),
        own,
        machines,
        client: find_ssh_client(),
    })
}

/// The addresses of an interface with their networks, apart from link-local ones.
fn list_own_addresses(interface: &str) -> anyhow::Result<Vec<IpNet>> {
    let all = nix::ifaddrs::getifaddrs().context("could not list the addresses of this machine")?;
    let networks = all.filter(|entry| entry.interface_name == interface).filter_map(|entry| {
        let read = |address: Option<nix::sys::socket::SockaddrStorage>| {
            let address = address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        };
        IpNet::with_netmask(read(entry.address)?, read(entry.netmask)?).ok()
    });
    Ok(networks.filter(|network| !sketch::is_link_local(network.addr())).collect())
}

/// The resolvers of the first file that names some which others can reach. If this machine asks itself, that is the
/// address that the DMZ has of it.
fn pick_resolvers(files: &[String], own: &[IpNet]) -> BTreeSet<IpAddr> {
    for text in files {
        let words =
            text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
        let addresses: Vec<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
        let reachable: BTreeSet<IpAddr> =
            addresses.iter().copied().filter(|ip| !ip.is_loopback() && !sketch::is_link_local(*ip)).collect();
        if !reachable.is_empty() {
            return reachable;
        }
        // 127.0.0.53 is the stub of systemd-resolved, which answers this machine alone
        let is_stub = |ip: &IpAddr| *ip == IpAddr::from([127, 0, 0, 53]);
        if !addresses.is_empty() && !addresses.iter().any(is_stub) {
            return own.iter().map(IpNet::addr).collect();
        }
    }
    BTreeSet::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(files: [&str; 2]) -> Vec<String> {
        let own = ["192.0.2.1/24".parse().unwrap(), "2001:db8:1::1/64".parse().unwrap()];
        pick_resolvers(&files.map(str::to_owned), &own).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn the_resolvers_are_those_of_the_first_file_that_others_can_reach() {
        assert_eq!(
            pick(["# x\nsearch a\nnameserver 198.51.100.53 # y\n", "nameserver 192.0.2.9\n"]),
            ["198.51.100.53"]
        );
        assert_eq!(pick(["nameserver 127.0.0.53\n", "nameserver 2001:db8:2::53\n"]), ["2001:db8:2::53"]);
        assert_eq!(pick(["nameserver fe80::1%eth0\nnameserver 198.51.100.53\n", ""]), ["198.51.100.53"]);
        assert!(pick(["nameserver 127.0.0.53\n", ""]).is_empty() && pick(["", ""]).is_empty());
    }

    #[test]
    fn a_machine_that_asks_itself_is_the_resolver_by_its_address_in_the_dmz() {
        assert_eq!(pick(["nameserver 127.0.0.1\n", ""]), ["192.0.2.1", "2001:db8:1::1"]);
        assert_eq!(pick(["nameserver ::1\n", ""]), ["192.0.2.1", "2001:db8:1::1"]);
    }
}
