//! The tests that need more than one module, in one binary.

mod attack;
mod chaos;
mod e2e;
mod fuzz;
mod kernel;
mod model;
mod program;
mod support;
mod texts;
