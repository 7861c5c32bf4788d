//! The tests that need more than one module, in one binary.

mod e2e;
// What only the differential fuzzer asks for is dead without it.
#[allow(dead_code)]
mod model;
mod program;
mod support;
