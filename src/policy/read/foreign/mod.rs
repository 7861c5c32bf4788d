//! Needs and addresses in the manner of other tools: nft, iptables, ufw, pf, Docker, URLs, service files. Each
//! gets the sentence that says how to write it here. Every need that is offered has been read as a need first,
//! so a help line never changes the meaning.

mod address;
mod need;
#[cfg(test)]
mod tests;

pub(super) use address::advise_on_address;
pub(super) use need::advise_on_need;
