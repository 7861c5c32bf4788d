//! Who did it. What the kernel says (user, login, processes) is a fact. What the environment says (`SUDO_USER`, the
//! ssh client) is what root's own environment claims.

use std::fs;
use std::net::IpAddr;

use nix::unistd::getuid;
use serde::{Deserialize, Serialize};

use super::parent::{Process, find_ssh_connection, list_ancestors};

/// Longer command lines and names are cut.
const MOST_COMMAND: usize = 512;
const MOST_NAME: usize = 64;
/// `loginuid` of a process that no login began.
const NO_LOGIN: u32 = u32::MAX;

/// Who did something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The user as whom it ran.
    pub uid: u32,
    /// The user who logged in, as the kernel remembers it through `sudo` and `su`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The name of that user in `/etc/passwd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The person behind `sudo`, as sudo says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// The process.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// The process that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Process>,
    /// Where the ssh session came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_client: Option<IpAddr>,
}

impl Who {
    /// Of this process.
    pub fn of_this_process() -> Who {
        let login_uid = read_login_uid("self");
        let ancestors = list_ancestors();
        Who {
            uid: getuid().as_raw(),
            login_uid,
            login: login_uid.and_then(find_user_name),
            sudo_user: std::env::var("SUDO_USER").ok().map(|name| cut(&name, MOST_NAME)),
            pid: std::process::id(),
            command: read_command(),
            ssh_client: find_ssh_connection(&ancestors, read_client),
            parent: ancestors.into_iter().next(),
        }
    }

    /// Of the process at the other end of a local socket: user, login and process as the kernel says, the rest as
    /// that process claims.
    pub fn of_peer(uid: u32, pid: u32, claim: Who) -> Who {
        let login_uid = read_login_uid(&pid.to_string());
        let cut_name = |name: String| cut(&name, MOST_NAME);
        Who {
            uid,
            login_uid,
            login: login_uid.and_then(find_user_name),
            sudo_user: claim.sudo_user.map(cut_name),
            pid,
            command: cut(&claim.command, MOST_COMMAND),
            parent: claim.parent.map(|parent| Process { name: cut_name(parent.name), ..parent }),
            ssh_client: claim.ssh_client,
        }
    }

    /// Whether root did it.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// In a few words: the person, and where they came from.
    pub fn describe(&self) -> String {
        let person = match (&self.sudo_user, &self.login, self.login_uid) {
            (Some(name), _, _) | (None, Some(name), _) => name.clone(),
            (None, None, Some(uid)) => format!("user {uid}"),
            (None, None, None) if self.uid == 0 => "root".to_owned(),
            (None, None, None) => format!("user {}", self.uid),
        };
        let client = self.ssh_client.map_or(String::new(), |client| format!(" from {client}"));
        let parent = self.parent.as_ref().map_or(String::new(), |parent| format!(", under {}", parent.name));
        format!("{person}{client} (process {}{parent})", self.pid)
    }
}

/// A text of at most so many bytes.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut cut: String =
        text.char_indices().take_while(|(at, c)| at + c.len_utf8() + 3 <= most).map(|(_, c)| c).collect();
    cut.push('…');
    cut
}

fn read_command() -> String {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    cut(&words.join(" "), MOST_COMMAND)
}

fn read_login_uid(process: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

/// From where the person who types this has logged in, if that was by ssh.
pub fn find_ssh_client() -> Option<IpAddr> {
    find_ssh_connection(&list_ancestors(), read_client)
}

/// The client's address in `SSH_CONNECTION`.
pub(super) fn read_client(connection: &str) -> Option<IpAddr> {
    connection.split(' ').next()?.parse().ok()
}

/// From the file alone: a directory service may hang.
fn find_user_name(uid: u32) -> Option<String> {
    find_name_in(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

pub(super) fn find_name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then(|| cut(name, MOST_NAME))
    })
}
