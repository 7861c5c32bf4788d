//! The types of `bpf/contract.h`, as the object's BTF has them.

use plain::Plain;

mod skeleton {
    #![allow(clippy::all, clippy::pedantic, unused_imports, dead_code)]
    include!(concat!(env!("OUT_DIR"), "/portcullis.skel.rs"));
}

pub use skeleton::types::*;
pub use skeleton::{OpenPortcullisSkel, PortcullisSkel, PortcullisSkelBuilder};

/// Types whose bytes are keys and values of maps.
macro_rules! plain {
    ($($name:ident)*) => {$(
        // SAFETY: `repr(C)` of integers and arrays of integers, without
        // padding (the contract header asserts the sizes): any bytes will do.
        unsafe impl Plain for $name {}
    )*};
}

plain! {
    address settings server prefix_key need_key range_key peer_match need peer_key rule
    limit_key limit name quarantine flow_key flow half_open opening fragment_key fragment
    ledger_key ledger_row row_quota counter decision question
}
