//! A file of lines, one for each event: what EVE, ECS and CEF have in common.

use super::file::LogFile;
use super::{Event, EventFilter, Sink};
use crate::policy::Alarms;

/// Renders an event as a line, without its end.
type Render = fn(&Event) -> anyhow::Result<String>;

/// Appends a line for each drop that is not quiet, and for each change of an alarm.
#[derive(Debug)]
pub(super) struct Lines {
    name: String,
    file: LogFile,
    render: Render,
}

impl Lines {
    /// `format` begins its name. The file is made when the first event comes.
    pub(super) fn new(format: &str, path: &str, alarms: &Alarms, render: Render) -> Lines {
        let file = LogFile::from_policy(path, alarms).with_folder();
        Lines { name: format!("{format} {path}"), file, render }
    }
}

impl Sink for Lines {
    fn name(&self) -> &str {
        &self.name
    }

    fn filter(&self) -> EventFilter {
        EventFilter::Everything
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        self.file.append_line(&(self.render)(event)?)
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        self.file.reopen()
    }
}
