//! The sentences in which users read how the gate is attached.

use crate::gate::{AttachMode, Attachment};
use crate::policy::{Enforcement, Keyword as _, Policy};

/// How a gate was just attached: `attached to dmz0: native, strict tracking, enforcing, generation 3`.
pub fn describe_attachment(interface: &str, attachment: &Attachment, policy: &Policy) -> String {
    format!(
        "attached to {interface}: {}, {} tracking, {}, generation {}",
        attachment.mode.name(),
        policy.settings.tracking.value.word(),
        Enforcement::of(policy).name(),
        attachment.generation
    )
}

/// The state in which a daemon leaves its gate when it stops.
pub(super) fn describe_rest(interface: &str, mode: AttachMode, enforcement: Enforcement) -> String {
    match mode {
        AttachMode::No => format!("the gate on {interface} is NOT ATTACHED: nothing is dropped"),
        AttachMode::Native | AttachMode::Generic => {
            format!("the gate on {interface} stays attached and {}", enforcement.name())
        }
    }
}

/// What a detach leaves for the next attach. `None`: nothing.
pub fn describe_kept_quarantines(interface: &str, kept: &[String]) -> Option<String> {
    (!kept.is_empty()).then(|| {
        format!(
            "the next attach puts back into quarantine: {}\n\
             next: portcullis release -i {interface} NAME, for those that are to be free",
            kept.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Hook;
    use crate::policy::parse;

    #[test]
    fn an_attachment_is_one_line_with_everything_that_holds_now() {
        let policy =
            parse("[policy]\nmode = \"observe\"\n[servers.web1]\naddresses = [\"192.0.2.10\"]\n", "p.toml")
                .unwrap_or_else(|errors| panic!("{errors}"));
        let attachment = Attachment {
            mode: AttachMode::Native,
            hook: Hook::Tcx,
            generation: 3,
            replaced: false,
            warnings: Vec::new(),
            quarantines: Vec::new(),
            edits: Vec::new(),
            grants: 0,
        };
        assert_eq!(
            describe_attachment("dmz0", &attachment, &policy),
            "attached to dmz0: native, strict tracking, observing, generation 3"
        );
    }

    #[test]
    fn the_last_line_never_calls_a_gate_attached_that_is_not() {
        let rest = |mode| describe_rest("dmz0", mode, Enforcement::Enforcing);
        assert_eq!(rest(AttachMode::Native), "the gate on dmz0 stays attached and enforcing");
        assert_eq!(rest(AttachMode::No), "the gate on dmz0 is NOT ATTACHED: nothing is dropped");
    }
}
