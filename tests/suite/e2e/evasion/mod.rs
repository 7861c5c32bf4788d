//! What people use to get past a filter, from inside the DMZ. Each tool is run without the gate, to
//! see that its packets arrive beyond the router, and then with it: then none may arrive.

pub mod attack;
mod catch;
mod crafted;
mod offload;
mod scans;
mod tunnels;

use attack::Attack;

/// All of them, for the published table.
pub fn list_attacks() -> impl Iterator<Item = (&'static str, &'static Attack)> {
    scans::LIST
        .iter()
        .map(|attack| (scans::TEST, attack))
        .chain(crafted::LIST.iter().map(|attack| (crafted::TEST, attack)))
        .chain(crafted::LIST6.iter().map(|attack| (crafted::TEST6, attack)))
}
