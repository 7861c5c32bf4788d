//! The loaded programs against the contract, packet by packet, without an interface.

mod answers;
mod contract;
mod evasion;
mod fragments;
mod icmp_errors;
mod ledger;
mod limits;
mod link_layer;
mod link_scope;
mod malformed_ip;
mod malformed_transport;
mod modes;
mod needs;
mod neighbours;
mod objects;
mod pickup;
mod protocols;
mod quarantine;
mod replies;
mod replies_other;
mod routes;
mod service;
mod source_route;
mod sources;
mod swaps;
mod timeouts;
