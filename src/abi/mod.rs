//! The border between the programs in `bpf/` and this tool: the types of `bpf/contract.h` as the
//! object's BTF has them, addresses and texts in their form, and the reasons. This room is below all
//! others and imports none.

mod ip;
mod reasons;
mod text;
mod types;

pub use ip::{from_address, prefix_bits, to_address};
pub use reasons::{REASONS, Reason, ReasonCode};
pub use text::{read_text, write_text};
pub use types::*;
