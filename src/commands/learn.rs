//! `portcullis learn`: from captures or from a gate to a policy that a person can sign.

mod gate;

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use ipnet::IpNet;

use super::shared::{load_policy, write_new};
use crate::cli::LearnArgs;
use crate::exit::Exit;
use crate::learn::{Learned, Request, Servers, learn, suggest_servers};
use crate::output::Output;
use crate::stderr;

/// Learns a policy, or what a policy lacks.
///
/// # Errors
/// When it is not known which addresses are servers, a file can't be read, or there is nothing to propose.
pub fn run(arguments: &LearnArgs, output: &Output) -> anyhow::Result<Exit> {
    if let Some(path) = &arguments.output
        && path.exists()
    {
        bail!("{} exists, and learn replaces nothing\nhelp: choose another name", path.display());
    }
    let known = arguments.against.as_ref().or(arguments.policy.as_ref());
    let policy = known.map(|path| load_policy(path, output)).transpose()?;
    if let (Some(interface), true) = (&arguments.interface, arguments.files.is_empty()) {
        let found = gate::learn(interface, arguments, policy, output)?;
        return print(&found, arguments, output);
    }
    if arguments.interface.is_some() && policy.is_some() {
        bail!("the servers are those of the policy, or those of an interface\nhelp: leave -i out");
    }
    let servers = match &policy {
        Some(policy) => Servers::Policy(policy),
        None => find_networks(arguments)?,
    };
    let found = learn(&Request {
        files: &arguments.files,
        servers,
        is_increment: arguments.against.is_some(),
        unused: arguments.unused,
        aggregate: arguments.aggregate,
    })?;
    print(&found, arguments, output)
}

fn print(found: &Learned, arguments: &LearnArgs, output: &Output) -> anyhow::Result<Exit> {
    match &arguments.output {
        Some(path) => {
            write_new(path, &found.text)?;
            output.either(found, || summarise(found, path))?;
        }
        None => output.either(found, || found.text.clone())?,
    }
    for damage in &found.damages {
        stderr::notice(format_args!("portcullis: {damage}\nhelp: what comes before was learnt from"));
    }
    Ok(if found.damages.is_empty() { Exit::Done } else { Exit::Failed })
}

fn find_networks(arguments: &LearnArgs) -> anyhow::Result<Servers<'static>> {
    if !arguments.servers.is_empty() {
        return Ok(Servers::Networks { networks: arguments.servers.clone(), except: Vec::new() });
    }
    if let Some(interface) = &arguments.interface {
        return list_networks(interface);
    }
    let file = arguments.files.first().map(|file| file.display().to_string()).unwrap_or_default();
    let help = match suggest_servers(&arguments.files) {
        Some(networks) => format!("hosts of these networks have MACs of their own: --servers {networks}"),
        None => "name them: --servers 192.0.2.0/24, or -i with the DMZ-facing interface".to_owned(),
    };
    bail!("{file} does not say which addresses are servers\nhelp: {help}");
}

/// The networks of an interface of this machine. Its own addresses are the router's.
fn list_networks(interface: &str) -> anyhow::Result<Servers<'static>> {
    let all = nix::ifaddrs::getifaddrs().context("could not list the addresses of this machine")?;
    let (mut networks, mut except) = (Vec::new(), Vec::new());
    for entry in all.filter(|entry| entry.interface_name == interface) {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        let mask = entry.netmask.and_then(|mask| {
            let v4 = mask.as_sockaddr_in().map(|mask| IpAddr::V4(mask.ip()));
            v4.or_else(|| mask.as_sockaddr_in6().map(|mask| IpAddr::V6(mask.ip())))
        });
        let (Some(address), Some(mask)) = (address, mask) else { continue };
        let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if let Ok(network) = IpNet::with_netmask(address, mask)
            && !is_link_local
        {
            networks.push(network.trunc());
            except.push(address);
        }
    }
    if networks.is_empty() {
        bail!(
            "{interface} has no address here, so its networks are not known\nhelp: name the servers: --servers 192.0.2.0/24"
        );
    }
    Ok(Servers::Networks { networks, except })
}

fn summarise(found: &Learned, path: &Path) -> String {
    let Learned { packets, openings, servers, proposed, not_proposed, .. } = found;
    let source = openings
        .map_or_else(|| format!("{packets} packets"), |openings| format!("{openings} answered openings"));
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}: {} of {} proposed, {} not proposed, from {source}. Read it before you use it.\n",
        path.display(),
        count(proposed.len(), "need"),
        count(servers.len(), "server"),
        not_proposed.len()
    )
}
