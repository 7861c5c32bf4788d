//! The one module that touches libbpf.

pub mod contract;
