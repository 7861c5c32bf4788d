//! The tests that need more than one module, in one binary.

mod e2e;
mod fuzz;
mod model;
mod program;
mod support;
