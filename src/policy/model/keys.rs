//! The keys of `[policy]`, `[alarms]` and `[tables]`.
//!
//! Each key is one row of [`keys!`]: its meaning, its name, its field, its default and how it is read.
//! Reading, differences, `check -j` and printed policies follow from the row. There is no second list of
//! keys that could be forgotten.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::location::Located;
use super::names::{Prefixes, Resolvers, TimeToLive};
use super::need::{Direction, LinkServices, Need};
use super::values::{EtherTypes, Keyword, MailServer, QuarantineTime, SyslogTarget, Texts};
use crate::alarm::Kind;
use crate::net::show_prefix;

/// Reads the values of one table's keys. A key that is not in the file keeps its default. So does a key with
/// a wrong value, after the reader has noted the mistake.
pub(in crate::policy) trait ReadKeys {
    /// One of few words.
    fn keyword<K: Keyword>(&self, key: &'static str, default: Located<K>) -> Located<K>;
    /// `true` or `false`, with its place.
    fn boolean(&self, key: &'static str, default: Located<bool>) -> Located<bool>;
    /// A whole number within a range, with its place.
    fn integer(&self, key: &'static str, default: Located<u32>, range: RangeInclusive<u32>) -> Located<u32>;
    /// A list of needs.
    fn needs(&self, key: &'static str, default: Vec<Need>, direction: Direction) -> Vec<Need>;
    /// A list of needs towards the link.
    fn link_services(&self, key: &'static str, default: LinkServices) -> LinkServices;
    /// A list of EtherTypes.
    fn ethertypes(&self, key: &'static str, default: EtherTypes) -> EtherTypes;
    /// The path of a file that is read.
    fn input_file(&self, key: &'static str, default: Option<String>) -> Option<String>;
    /// The path of a file that is written; no other key may name the same.
    fn output_file(&self, key: &'static str, default: Option<String>) -> Option<String>;
    /// A syslog server.
    fn syslog(&self, key: &'static str, default: Option<SyslogTarget>) -> Option<SyslogTarget>;
    /// The URL of an Alertmanager, or a list of them.
    fn alertmanagers(&self, key: &'static str, default: Texts) -> Texts;
    /// The name of a user.
    fn user(&self, key: &'static str, default: Option<String>) -> Option<String>;
    /// A mail server.
    fn mail_server(&self, key: &'static str, default: Option<MailServer>) -> Option<MailServer>;
    /// The address of somebody who sends mails.
    fn mail_address(&self, key: &'static str, default: Option<String>) -> Option<String>;
    /// The address of somebody who gets mails, or a list of them.
    fn mail_addresses(&self, key: &'static str, default: Texts) -> Texts;
    /// A program and its arguments.
    fn command(&self, key: &'static str, default: Vec<String>) -> Vec<String>;
    /// Kinds of alarms that may lead to a quarantine.
    fn kinds(&self, key: &'static str, default: Vec<Kind>) -> Vec<Kind>;
    /// Addresses and sets of resolvers.
    fn resolvers(&self, key: &'static str, default: Resolvers) -> Resolvers;
    /// Names of interfaces.
    fn interfaces(&self, key: &'static str, default: Texts) -> Texts;
    /// A list of addresses and prefixes.
    fn prefixes(&self, key: &'static str, default: Prefixes) -> Prefixes;
    /// A list of prefixes of NAT64.
    fn nat64_prefixes(&self, key: &'static str, default: Prefixes) -> Prefixes;
    /// Two numbers of seconds.
    fn time_to_live(&self, key: &'static str, default: TimeToLive) -> TimeToLive;
    /// How long a quarantine lasts.
    fn quarantine_time(&self, key: &'static str, default: QuarantineTime) -> QuarantineTime;

    /// `true` or `false`.
    fn flag(&self, key: &'static str, default: bool) -> bool {
        self.boolean(key, Located::unset(default)).value
    }

    /// A whole number within a range.
    fn number(&self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        self.integer(key, Located::unset(default), range).value
    }
}

/// The value of a key, to be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// The key has no value, and no default.
    Unset,
    /// Text; in a file it stands in quotes.
    Text(String),
    /// A whole number.
    Number(u32),
    /// `true` or `false`.
    Truth(bool),
    /// A list of names.
    List(Vec<String>),
    /// A list of numbers, in hexadecimal.
    EtherTypes(EtherTypes),
    /// A list of numbers.
    Numbers(Vec<u32>),
    /// A list of needs in canonical form. Two lists that differ may mean the same.
    Needs(Vec<String>),
    /// A program and its arguments.
    Command(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => out.write_str("none"),
            Self::Text(text) => out.write_str(text),
            Self::Number(number) => number.fmt(out),
            Self::Truth(truth) => truth.fmt(out),
            Self::List(list) | Self::Needs(list) | Self::Command(list) if list.is_empty() => {
                out.write_str("none")
            }
            Self::EtherTypes(list) if list.0.is_empty() => out.write_str("none"),
            Self::EtherTypes(list) => list.fmt(out),
            Self::Numbers(list) => {
                let list: Vec<String> = list.iter().map(u32::to_string).collect();
                out.write_str(&list.join(", "))
            }
            Self::List(list) | Self::Needs(list) => out.write_str(&list.join(", ")),
            Self::Command(words) => out.write_str(&words.join(" ")),
        }
    }
}

/// A type that a key's field can have.
pub(in crate::policy) trait ToValue {
    /// The value to be printed.
    fn to_value(&self) -> Value;
}

impl<T: ToValue> ToValue for Located<T> {
    fn to_value(&self) -> Value {
        self.value.to_value()
    }
}

impl<K: Keyword> ToValue for K {
    fn to_value(&self) -> Value {
        Value::Text(self.word().to_owned())
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Value {
        Value::Truth(*self)
    }
}

impl ToValue for u32 {
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }
}

impl<T: fmt::Display> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Unset, |value| Value::Text(value.to_string()))
    }
}

impl ToValue for LinkServices {
    /// A list of texts: no two of these needs differ and mean the same, but for their order.
    fn to_value(&self) -> Value {
        let texts: BTreeSet<String> = self.0.iter().map(Need::to_string).collect();
        Value::List(texts.into_iter().collect())
    }
}

impl ToValue for Prefixes {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|prefix| show_prefix(&prefix)).collect())
    }
}

impl ToValue for Resolvers {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(str::to_owned).collect())
    }
}

impl ToValue for TimeToLive {
    fn to_value(&self) -> Value {
        Value::Numbers(vec![self.floor_s, self.cap_s])
    }
}

impl ToValue for EtherTypes {
    fn to_value(&self) -> Value {
        Value::EtherTypes(self.clone())
    }
}

impl ToValue for Vec<Need> {
    fn to_value(&self) -> Value {
        Value::Needs(self.iter().map(Need::to_string).collect())
    }
}

impl ToValue for Vec<Kind> {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|kind| kind.name().to_owned()).collect())
    }
}

impl ToValue for Vec<String> {
    fn to_value(&self) -> Value {
        Value::Command(self.clone())
    }
}

impl ToValue for Texts {
    fn to_value(&self) -> Value {
        Value::List(self.0.clone())
    }
}

impl ToValue for QuarantineTime {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
}

/// Declares a table of keys as a struct with one field a key.
///
/// A row is `"KEY" FIELD: TYPE = DEFAULT, READ(ARGUMENTS);` beneath the doc of the field. `READ` is a
/// method of [`ReadKeys`], and `TYPE` implements [`ToValue`].
macro_rules! keys {
    (
        $(#[$outer:meta])*
        $name:ident {
            $(
                $(#[$doc:meta])*
                $key:literal $field:ident: $type:ty = $default:expr, $read:ident($($argument:expr),*);
            )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// The names of all keys.
            pub const KEYS: &[&str] = &[$($key,)*];

            /// Reads every key.
            pub(in crate::policy) fn read(from: &impl $crate::policy::model::keys::ReadKeys) -> Self {
                let default = Self::default();
                Self { $($field: from.$read($key, default.$field $(, $argument)*),)* }
            }

            /// Every key with its value, in the order of [`Self::KEYS`].
            pub fn entries(&self) -> Vec<(&'static str, $crate::policy::model::keys::Value)> {
                use $crate::policy::model::keys::ToValue;
                vec![$(($key, self.$field.to_value()),)*]
            }
        }
    };
}

pub(super) use keys;
