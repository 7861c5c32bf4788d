//! Answers that are a matter for people: the kernel counts them by server and name, and the daemon takes them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use nix::net::if_::if_indextoname;

use super::Gate;
use super::error::GateError;
use crate::abi::{from_address, name_event, name_event_key, name_event_kind, read_text};

/// What an answer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// It gave a name of the policy an address that no name may have.
    Rebinding {
        /// The name's id.
        id: u32,
        /// The name.
        name: Arc<str>,
        /// The last such address. One that an AAAA record had in the form `::ffff:a.b.c.d` is IPv6.
        address: IpAddr,
    },
    /// It came by the wrong interface.
    Forged,
}

/// Answers of one kind to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEvent {
    /// What they were.
    pub fault: AnswerFault,
    /// To whom they went; `None` for a server that is not known any more.
    pub server: Option<Arc<str>>,
    /// In whose name the last one came.
    pub resolver: IpAddr,
    /// The interface by which it came.
    pub interface: Arc<str>,
    /// How many there were.
    pub answers: u64,
    /// When the first one came: CLOCK_MONOTONIC, nanoseconds.
    pub first_ns: u64,
    /// When the last one came, likewise.
    pub last_ns: u64,
}

impl Gate {
    /// Takes what the tracker has noted since the last call. What comes while an entry is taken may be lost, but no
    /// entry: the next answer makes a new one.
    ///
    /// # Errors
    /// When the kernel refuses to read. What was not taken stays.
    pub fn take_name_events(&self) -> Result<Vec<NameEvent>, GateError> {
        let rows = self.maps.name_events.entries()?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let servers = self.names_by_id()?;
        let names: HashMap<u32, Arc<str>> = self
            .maps
            .domains
            .entries()?
            .iter()
            .map(|(id, text)| (*id, read_text(&text.text).into()))
            .collect();
        let mut events = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            // again, for it may have counted since
            let row = self.maps.name_events.get(&key)?.unwrap_or(row);
            self.maps.name_events.remove(&key)?;
            events.extend(to_event(&key, &row, &servers, &names));
        }
        Ok(events)
    }
}

/// `None`: a kind that this version does not know.
fn to_event(
    key: &name_event_key,
    row: &name_event,
    servers: &HashMap<u32, Arc<str>>,
    names: &HashMap<u32, Arc<str>>,
) -> Option<NameEvent> {
    let fault = if key.kind == name_event_kind::NAME_EVENT_REBINDING.0 {
        let name = names.get(&key.name).cloned().unwrap_or_else(|| format!("name {}", key.name).into());
        AnswerFault::Rebinding { id: key.name, name, address: read_rebound(row)? }
    } else if key.kind == name_event_kind::NAME_EVENT_FORGED.0 {
        AnswerFault::Forged
    } else {
        return None;
    };
    Some(NameEvent {
        fault,
        server: servers.get(&key.server).cloned(),
        resolver: from_address(&row.resolver)?,
        interface: show_interface(row.interface),
        answers: row.count,
        first_ns: row.first_ns,
        last_ns: row.last_ns,
    })
}

/// The address as the answer had it: the kernel keeps IPv4 addresses as IPv4-mapped ones.
fn read_rebound(row: &name_event) -> Option<IpAddr> {
    match from_address(&row.address)? {
        IpAddr::V4(address) if row.mapped != 0 => Some(Ipv4Addr::to_ipv6_mapped(&address).into()),
        address => Some(address),
    }
}

/// The name of an interface, also of one that has gone.
fn show_interface(index: u32) -> Arc<str> {
    if index == 0 {
        return "this machine itself".into();
    }
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    // nix takes an interface that is gone for one without a name
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("interface {index}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::to_address;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn read(kind: u32, mapped: u32) -> Option<NameEvent> {
        let row = name_event {
            mapped,
            first_ns: 1,
            last_ns: 2,
            count: 3,
            resolver: to_address(ip("198.51.100.53")),
            address: to_address(ip("10.0.0.1")),
            ..name_event::default()
        };
        let servers = HashMap::from([(7, "web1".into())]);
        let names = HashMap::from([(9, "deb.vendor.example".into())]);
        to_event(&name_event_key { kind, server: 7, name: 9 }, &row, &servers, &names)
    }

    #[test]
    fn an_event_has_the_words_of_the_policy() {
        let event = read(name_event_kind::NAME_EVENT_REBINDING.0, 0).unwrap();
        let name = "deb.vendor.example".into();
        assert_eq!(event.fault, AnswerFault::Rebinding { id: 9, name, address: ip("10.0.0.1") });
        assert_eq!((event.server.as_deref(), event.answers), (Some("web1"), 3));
        assert_eq!(&*event.interface, "this machine itself");
        assert_eq!(read(name_event_kind::NAME_EVENT_FORGED.0, 0).unwrap().fault, AnswerFault::Forged);
        assert_eq!(read(99, 0), None);
    }

    #[test]
    fn an_ipv4_mapped_address_is_shown_as_the_answer_had_it() {
        let event = read(name_event_kind::NAME_EVENT_REBINDING.0, 1).unwrap();
        let AnswerFault::Rebinding { address, .. } = event.fault else { panic!("{event:?}") };
        assert_eq!(address.to_string(), "::ffff:10.0.0.1");
    }
}
