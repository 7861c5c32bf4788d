//! The border between the programs in `bpf/` and this tool: the types of `bpf/contract.h` as the
//! object's BTF has them, addresses and texts in their form, and the reasons. This room is below all
//! others and imports none.

mod ip;
mod mac;
mod reasons;
mod text;
mod types;

pub use ip::{from_address, from_prefix_key, prefix_bits, to_address, to_prefix_key};
pub use mac::{from_mac_number, to_mac_number};
pub use reasons::{REASONS, Reason, ReasonCode};
pub use text::{read_text, write_text};
pub use types::*;
