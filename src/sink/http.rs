//! The connections of HTTP requests, with our own deadlines: [`Connection`].

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::connection::{Connection, look_up};
use crate::policy::Endpoint;

/// A client whose whole requests take no longer than `patience`. `ca` is a file of certificates for `https`; `None`:
/// the system's.
pub(super) fn open_agent(ca: Option<&str>, patience: Duration) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, Dial { ca: ca.map(str::to_owned) }, LookUp)
}

#[derive(Debug)]
struct LookUp;

impl Resolver for LookUp {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        for address in look_up(&endpoint(uri), deadline(timeout))?.into_iter().take(addresses_at_most()) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// As many as the list of ureq has room for.
const fn addresses_at_most() -> usize {
    16
}

#[derive(Debug)]
struct Dial {
    ca: Option<String>,
}

impl Connector for Dial {
    type Out = Link;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Link>, Error> {
        let mut connection = Connection::open_one_of(&details.addrs, deadline(details.timeout))?;
        if details.needs_tls() {
            let host = endpoint(details.uri).host;
            let encrypted = connection.encrypt(&host, self.ca.as_deref());
            connection = encrypted.map_err(|error| std::io::Error::other(format!("{error:#}")))?;
        }
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Link { connection, buffers, is_tls: details.needs_tls() }))
    }
}

struct Link {
    connection: Connection,
    buffers: LazyBuffers,
    is_tls: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Link")
    }
}

impl Transport for Link {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.connection.set_deadline(deadline(timeout));
        let output = self.buffers.output();
        self.connection.write_all(output.get(..amount).unwrap_or_default())?;
        self.connection.flush()?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.connection.set_deadline(deadline(timeout));
        let count = self.connection.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        !self.connection.is_closed()
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

/// The time that the whole request has left. (A request without a limit gets a minute.)
fn deadline(timeout: NextTimeout) -> Instant {
    Instant::now() + (*timeout.after).min(Duration::from_secs(60))
}

fn endpoint(uri: &Uri) -> Endpoint {
    let host = uri.host().unwrap_or_default();
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Endpoint { host: host.to_owned(), port: uri.port_u16().unwrap_or(default) }
}
