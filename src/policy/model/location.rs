//! Places in a policy file, and values that know theirs.

use serde::Serialize;

/// Where something stands in the policy file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Location {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters (not bytes), counted from 1.
    pub column: u32,
    /// First byte, counted from 0.
    #[serde(skip)]
    pub start: usize,
    /// The byte after the last one.
    #[serde(skip)]
    pub end: usize,
}

/// A value and the place it was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where the file says so; `None` for a default.
    pub place: Option<Location>,
}

impl<T> Located<T> {
    /// A default: the file does not say it.
    pub const fn unset(value: T) -> Self {
        Self { value, place: None }
    }
}
