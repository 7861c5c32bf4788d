//! x
#![allow(dead_code)]
include!(concat!(env!("OUT_DIR"), "/reason.rs"));
mod skel { include!(concat!(env!("OUT_DIR"), "/portcullis.skel.rs")); }
