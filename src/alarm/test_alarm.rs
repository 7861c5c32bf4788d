//! An alarm that tries the sinks: it opens and is over at once.

use std::sync::Arc;

use super::{Change, Engine, GateTrouble};
use crate::clock::Clock;

/// What it says.
const TEXT: &str = "TEST: nothing has happened, somebody tries the sinks by `portcullis test-alarm`";

/// The two changes of a test alarm. No alarm has its number, 0, and no history has it.
pub fn make_test_alarm(interface: &Arc<str>, now: Clock) -> Vec<Change> {
    let mut engine = Engine::default();
    let mut changes = engine.report_trouble(GateTrouble::Test, TEXT, interface, now);
    changes.extend(engine.end_trouble(GateTrouble::Test, now));
    changes.iter_mut().for_each(|change| change.alarm.id = 0);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Severity;
    use crate::drops::example::after_ms;

    #[test]
    fn a_test_alarm_is_marked_opens_and_is_over() {
        let changes = make_test_alarm(&"dmz0".into(), after_ms(0));
        let steps: Vec<&str> = changes.iter().map(|change| change.step.name()).collect();
        assert_eq!(steps, ["opened", "closed"]);
        for change in &changes {
            assert!(change.message().starts_with("TEST: nothing has happened"), "{}", change.message());
            assert_eq!((change.alarm.id, change.alarm.severity()), (0, Severity::High));
            assert_eq!(serde_json::to_value(change).unwrap()["test"], true);
        }
    }
}
