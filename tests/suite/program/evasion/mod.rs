//! Every way that is known to get something past a packet filter, and what the gate makes of it.
//! `docs/evasion.md` is written by this suite: `PORTCULLIS_BLESS=1` writes it anew.

mod answers;
mod chains;
mod fragments;
mod handshakes;
mod large;
mod lengths;
mod link;
mod names;
mod protocols;
mod publish;
mod routes;
mod servers;
mod table;
