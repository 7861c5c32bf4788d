//! Names as destinations, with real resolvers and real clients: whatever a server is answered, it reaches at once.
//!
//! The authority rotates 8 of 200 addresses at a TTL of 5 seconds, and gives some names an address that no answer has
//! had before. Each run ends with an empty ledger, and with an address that nobody was answered and that is dropped.

mod changes;
mod clients;
mod resolvers;
mod scene;
