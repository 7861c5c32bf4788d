//! The tests that need more than one module, in one binary.

mod attack;
mod chaos;
mod e2e;
mod kernel;
mod program;
mod support;
