//! The flows of the management that a policy would cut off, among them the one over which somebody is just typing.

use std::net::IpAddr;

use super::Gate;
use super::error::GateError;
use crate::abi::{flow_flag, flow_key, from_address};
use crate::audit::{find_ssh_connection, list_ancestors};
use crate::clock::{NS_PER_S, now_ns};
use crate::compile::{ServiceIndex, Tables, compile};
use crate::net::{UDP, name_protocol};
use crate::policy::{Mode, Policy};

/// As the programs: idle for so long, a flow is none any more.
pub(super) const TIMEOUT_ESTABLISHED_S: u64 = 432_000;
const TIMEOUT_DATAGRAM_ANSWERED_S: u64 = 120;
const TIMEOUT_OTHER_S: u64 = 600;

/// An ssh session: the client's address, and the address and port of the server that it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SshSession {
    client: IpAddr,
    server: (IpAddr, u16),
}

impl SshSession {
    /// Reads the variable `SSH_CONNECTION`.
    fn parse(text: &str) -> Option<SshSession> {
        let mut words = text.split_whitespace();
        let client = words.next()?.parse().ok()?;
        let _port: u16 = words.next()?.parse().ok()?;
        let server = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(SshSession { client, server })
    }
}

/// The ssh session in which this process runs.
pub fn find_ssh_session() -> Option<SshSession> {
    find_ssh_connection(&list_ancestors(), SshSession::parse)
}

impl Gate {
    /// The open flows of the management that a policy would cut off, each in words. Of a gate that does not track
    /// flows, the needs that go.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_cut_off(
        &self,
        policy: &Policy,
        tables: &Tables,
        session: Option<SshSession>,
    ) -> Result<Vec<String>, GateError> {
        let Some(live) = self.live_policy()? else { return Ok(Vec::new()) };
        if live.text == policy.text {
            return Ok(Vec::new());
        }
        let Ok(live_tables) = compile(&live) else { return Ok(Vec::new()) };
        let (old, new) = (ServiceIndex::new(&live_tables), ServiceIndex::new(tables));
        // where it observes, it cuts nothing off
        let observes = |address: IpAddr| match new.find_server(address) {
            Some(row) => row.observe,
            None => policy.settings.mode.value == Mode::Observe,
        };
        let name = |address: IpAddr| {
            let name = old.find_server(address).and_then(|row| live_tables.names.get(row.server));
            name.cloned().unwrap_or_else(|| address.to_string())
        };
        let mut lost = Vec::new();
        if let Some(SshSession { client, server: (router, port) }) = session
            && old.find_server(client).is_some()
            && old.opens(client, (router, port))
            && !new.opens(client, (router, port))
            && !observes(client)
        {
            lost.push(format!("your own ssh, from {} to tcp/{port} of {router}", name(client)));
        }
        let now = now_ns();
        let mut cut = |key: &flow_key| {
            let (Some(server), Some(peer)) = (from_address(&key.server), from_address(&key.peer)) else {
                return;
            };
            // a session that comes from a server has come to that server by the same service
            let is_way_here = session.is_some_and(|session| {
                (session.client, session.server.1) == (server, u16::from_be(key.server_port_be))
            });
            if !(old.is_management(key) || is_way_here) || new.permits(key) || observes(server) {
                return;
            }
            let own = is_way_here || session.is_some_and(|session| session.client == peer);
            lost.push(format!(
                "{}/{} of {} with {peer}{}",
                name_protocol(key.protocol),
                u16::from_be(key.server_port_be),
                name(server),
                if own { ", by which you are logged in" } else { "" }
            ));
        };
        let ended = flow_flag::FLOW_FIN_SERVER.0 | flow_flag::FLOW_RST_SERVER.0;
        self.maps.established.visit(|key, flow| {
            if flow.flags & ended == 0 && now.saturating_sub(flow.last_ns) < TIMEOUT_ESTABLISHED_S * NS_PER_S
            {
                cut(key);
            }
        })?;
        // mosh, a VPN: without an answer it is no session
        self.maps.datagrams.visit(|key, flow| {
            let timeout_s = if key.protocol == UDP { TIMEOUT_DATAGRAM_ANSWERED_S } else { TIMEOUT_OTHER_S };
            let is_answered = flow.flags & flow_flag::FLOW_ANSWERED.0 != 0;
            if is_answered && now.saturating_sub(flow.last_ns) < timeout_s * NS_PER_S {
                cut(key);
            }
        })?;
        if !live_tables.settings.is_strict() {
            let kept: Vec<String> = policy.settings.management.iter().map(ToString::to_string).collect();
            let gone =
                live.settings.management.iter().map(ToString::to_string).filter(|need| !kept.contains(need));
            lost.extend(
                gone.map(|need| format!("the management need {need}, of which no flows are tracked")),
            );
        }
        lost.sort();
        lost.dedup();
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_read_from_the_variable_of_ssh() {
        let session = SshSession::parse("203.0.113.7 50000 192.0.2.1 22").unwrap();
        assert_eq!(session.client, "203.0.113.7".parse::<IpAddr>().unwrap());
        assert_eq!(session.server, ("192.0.2.1".parse().unwrap(), 22));
        assert!(SshSession::parse("2001:db8::7 50000 2001:db8::1 22").is_some());
        for bad in ["", "203.0.113.7", "203.0.113.7 x 192.0.2.1 22", "203.0.113.7 1 192.0.2.1"] {
            assert_eq!(SshSession::parse(bad), None, "{bad}");
        }
    }
}
