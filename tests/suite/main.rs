//! The tests that need more than one module, in one binary.

#![expect(unreachable_pub, reason = "a binary exports nothing")]
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a helper of a test fails by a panic, prints for whoever runs it, and waits as long as it has to"
)]

mod attack;
mod chaos;
mod conntrack;
mod e2e;
mod fuzz;
mod kernel;
mod model;
mod program;
mod support;
mod texts;
