//! What people use to get past a filter, from inside the DMZ. Each tool is run without the gate, to
//! see that its packets arrive beyond the router, and then with it: then none may arrive.

mod attack;
mod catch;
mod crafted;
mod offload;
mod scans;
mod tunnels;

pub use attack::list_attacks;
