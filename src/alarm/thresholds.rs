//! Thresholds and bounds of an [`Engine`](super::Engine).

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Thresholds and bounds of an [`Engine`](super::Engine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The id of the first alarm.
    pub first_id: u64,
    /// So many distinct destinations at one port, within `spread_window_ns`, are a spread. More than 16
    /// count as 16. A server that is fast is detected sooner: `detector.rs`.
    pub spread_destinations: usize,
    /// Nanoseconds.
    pub spread_window_ns: u64,
    /// So many distinct services that one server tried, within `scan_window_ns`, are a scan.
    pub scan_services: usize,
    /// Nanoseconds.
    pub scan_window_ns: u64,
    /// So many distinct services at one destination, within `target_window_ns`, are a scan.
    pub target_services: usize,
    /// Nanoseconds.
    pub target_window_ns: u64,
    /// So many attempts at the same destination and port are a callback.
    pub callback_attempts: u32,
    /// The first update of an alarm waits for this, nanoseconds, and each one after it twice as long as the
    /// one before.
    pub update_interval_ns: u64,
    /// Two changes that page are apart by this, nanoseconds, so that what comes at once is one page.
    pub page_gap_ns: u64,
    /// A part of an alarm is over when no more drops came for this, nanoseconds. It waits longer for what
    /// comes at longer intervals.
    pub quiet_ns: u64,
    /// The longest such wait, nanoseconds.
    pub max_quiet_ns: u64,
    /// New parts join an incident for so long, nanoseconds.
    pub join_ns: u64,
    /// Alarms that may be open at a time.
    pub max_open: usize,
    /// Of those, alarms of one server, so that no server takes the room of the others.
    pub max_open_by_server: usize,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            first_id: 1,
            spread_destinations: 10,
            spread_window_ns: 300 * S,
            scan_services: 20,
            scan_window_ns: 300 * S,
            target_services: 10,
            target_window_ns: 60 * S,
            callback_attempts: 5,
            update_interval_ns: 10 * S,
            page_gap_ns: 500 * MS,
            quiet_ns: 300 * S,
            max_quiet_ns: 3_600 * S,
            join_ns: 3_600 * S,
            max_open: 2048,
            max_open_by_server: 64,
        }
    }
}
