//! Asks resolvers for the addresses of names, as the daemon does for `resolve = true`. It has no cache: whoever asks
//! wants to know what they answer now.

mod message;
#[cfg(test)]
mod tests;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::message::{Answer, Kind};
use self::transport::ask;
use crate::net::DomainName;

/// How long all names of a policy may take together. Nothing waits longer for them.
pub const PATIENCE: Duration = Duration::from_secs(5);

const DNS: u16 = 53;
/// So many names are asked for at once.
const WORKERS: usize = 16;
/// How long one resolver is waited for before the next one is asked.
const TRY: Duration = Duration::from_millis(1500);
/// How often each of them is asked.
const ROUNDS: usize = 2;
/// Services whose targets `apt` fetches from instead of the name itself.
const SERVICES: [&str; 2] = ["_http._tcp", "_https._tcp"];
/// Targets of a service that are followed.
const MOST_TARGETS: usize = 8;

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name, an exact one.
    pub name: DomainName,
    /// Its addresses, each with the seconds for which the answer holds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Why it has none.
    pub failure: Option<String>,
}

/// Asks for the addresses of exact names. Wildcards are left out: nobody can ask for all that is below one.
pub fn look_up(names: &[DomainName], resolvers: &[IpAddr], patience: Duration) -> Vec<Lookup> {
    let resolvers: Vec<SocketAddr> = resolvers.iter().map(|ip| SocketAddr::new(*ip, DNS)).collect();
    look_up_at(names, &resolvers, Instant::now() + patience)
}

fn look_up_at(names: &[DomainName], resolvers: &[SocketAddr], deadline: Instant) -> Vec<Lookup> {
    let names: Vec<&DomainName> = names.iter().filter(|name| !name.is_wildcard()).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::with_capacity(names.len()));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let lookup = look_up_one(name, resolvers, deadline);
            if let Ok(mut found) = found.lock() {
                found.push(lookup);
            }
        }
    };
    thread::scope(|scope| {
        for number in 1..names.len().min(WORKERS) {
            // without a thread the others do it
            let _ = thread::Builder::new().name(format!("resolve-{number}")).spawn_scoped(scope, work);
        }
        work();
    });
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_by(|one: &Lookup, other| one.name.cmp(&other.name));
    found
}

fn look_up_one(name: &DomainName, resolvers: &[SocketAddr], deadline: Instant) -> Lookup {
    let mut failure = None;
    let mut addresses = Vec::new();
    let mut add = |host: &str| {
        for kind in [Kind::A, Kind::Aaaa] {
            match ask_any(host, kind, resolvers, deadline) {
                Ok(answer) => addresses.extend(answer.addresses),
                Err(why) => failure = Some(why),
            }
        }
    };
    add(name.domain());
    for service in SERVICES {
        // hardly a name has one, so no answer is no failure
        let answer = ask_any(&format!("{service}.{}", name.domain()), Kind::Srv, resolvers, deadline);
        let targets = answer.map(|answer| answer.targets).unwrap_or_default();
        targets.iter().take(MOST_TARGETS).for_each(|target| add(target));
    }
    addresses.sort_unstable();
    addresses.dedup();
    let failure = failure.unwrap_or_else(|| "it has no address".to_owned());
    let failure = addresses.is_empty().then_some(failure);
    Lookup { name: name.clone(), addresses, failure }
}

/// The first answer of a resolver that knows one.
fn ask_any(host: &str, kind: Kind, resolvers: &[SocketAddr], deadline: Instant) -> Result<Answer, String> {
    let mut why = "there is no resolver to ask".to_owned();
    for _ in 0..ROUNDS {
        for resolver in resolvers {
            if Instant::now() >= deadline {
                return Err("no resolver answered in time".to_owned());
            }
            match ask(*resolver, host, kind, deadline.min(Instant::now() + TRY), deadline) {
                Ok(answer) => return Ok(answer),
                Err(error) => why = format!("the resolver {}: {error}", resolver.ip()),
            }
        }
    }
    Err(why)
}
