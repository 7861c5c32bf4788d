//! What a command writes to its standard error: the beginning is shown, and the rest is counted.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use crate::escape::escape;

/// What is shown of one run, bytes.
const MAX_PER_RUN: usize = 4 << 10;
/// What is shown in a [`PERIOD`], bytes: an intruder can cause many runs.
const MAX_PER_PERIOD: usize = 64 << 10;
const PERIOD: Duration = Duration::from_secs(3600);
/// What is read at once, bytes. A pipe holds that much.
const BLOCK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Errors {
    /// Of this run.
    text: Vec<u8>,
    cut: u64,
    /// What may be shown in this period, bytes.
    left: usize,
    since: Instant,
}

impl Errors {
    pub(super) fn new(now: Instant) -> Errors {
        Errors { text: Vec::new(), cut: 0, left: MAX_PER_PERIOD, since: now }
    }

    /// Reads what there is. `false`: there will be no more.
    pub(super) fn read(&mut self, reader: &mut impl Read) -> bool {
        let mut bytes = vec![0; BLOCK];
        match reader.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                let shown = count.min(MAX_PER_RUN.saturating_sub(self.text.len()));
                self.text.extend_from_slice(bytes.get(..shown).unwrap_or_default());
                self.cut += (count - shown) as u64;
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Whether nothing more of this run is shown.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= MAX_PER_RUN
    }

    /// The lines to show of this run, escaped. The next run begins with none.
    pub(super) fn report(&mut self, now: Instant) -> Vec<String> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            (self.left, self.since) = (MAX_PER_PERIOD, now);
        }
        let text = std::mem::take(&mut self.text);
        let shown = text.len().min(self.left);
        self.left -= shown;
        let cut = std::mem::take(&mut self.cut) + (text.len() - shown) as u64;
        let text = String::from_utf8_lossy(text.get(..shown).unwrap_or_default());
        let mut lines: Vec<String> = text.lines().map(|line| escape(line).into_owned()).collect();
        if cut > 0 {
            lines.push(format!("{cut} more bytes of its standard error are left out"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_each_run_is_shown_and_the_rest_is_counted() {
        let now = Instant::now();
        let mut errors = Errors::new(now);
        let mut text: &[u8] = b"a\x1b[2J\nb\n";
        while errors.read(&mut text) {}
        assert_eq!(errors.report(now), ["a\\u{1b}[2J", "b"]);
        let flood = vec![b'x'; 1 << 20];
        let mut text = &flood[..];
        while errors.read(&mut text) {}
        assert!(errors.is_full());
        let lines = errors.report(now);
        assert_eq!(lines[0].len(), MAX_PER_RUN);
        assert_eq!(
            lines[1],
            format!("{} more bytes of its standard error are left out", (1 << 20) - MAX_PER_RUN)
        );
        assert!(errors.report(now).is_empty());
    }

    #[test]
    fn many_runs_together_show_no_more_than_their_share_of_an_hour() {
        let now = Instant::now();
        let mut errors = Errors::new(now);
        let run = |errors: &mut Errors, now| {
            let text = vec![b'x'; MAX_PER_RUN];
            while errors.read(&mut &text[..]) && !errors.is_full() {}
            let lines = errors.report(now);
            lines.iter().filter(|line| line.starts_with('x')).map(String::len).sum::<usize>()
        };
        let shown: usize = (0..1000).map(|_| run(&mut errors, now)).sum();
        assert_eq!(shown, MAX_PER_PERIOD);
        assert_eq!(run(&mut errors, now + PERIOD), MAX_PER_RUN);
    }
}
