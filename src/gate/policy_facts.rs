//! Who made a policy live, when, and from which file.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::wall_now;
use crate::drops::show_hex;
use crate::policy::Policy;

/// The facts about a confirmed policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When it became live.
    pub since: Timestamp,
    /// The file that it came from.
    pub file: String,
    /// SHA-256 of the text, in hexadecimal.
    pub hash: String,
    /// Why, as the person said who applied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Who has applied it.
    pub uid: u32,
    /// The person behind `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// The command that made it live.
    pub command: String,
}

impl Facts {
    /// About a policy that this process applies now.
    pub fn of(policy: &Policy, note: Option<String>) -> Facts {
        Facts::of_text(&policy.file, &policy.text, note)
    }

    pub(super) fn of_text(file: &str, text: &str, note: Option<String>) -> Facts {
        Facts {
            since: wall_now(),
            file: file.to_owned(),
            hash: hash_of(text),
            note,
            uid: nix::unistd::getuid().as_raw(),
            sudo_user: std::env::var("SUDO_USER").ok(),
            command: std::env::args().nth(1).unwrap_or_default(),
        }
    }
}

pub(super) fn hash_of(text: &str) -> String {
    show_hex(&Sha256::digest(text.as_bytes()))
}
