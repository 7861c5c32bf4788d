//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::{parse_time, wall_now};
use jiff::Timestamp;

/// The gate on a DMZ router.
///
/// Servers in a DMZ answer; they hardly ever call. portcullis drops what a
/// server must not start, in the driver of the DMZ-facing NIC, and raises the
/// alarm. Start with `portcullis init`.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Print one JSON value instead of text for people
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    /// Say more; twice: what libbpf says as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented starter policy: the roles dns, mail, web, managed
    Init,

    /// Validate a policy and print what each server may do; needs no privilege
    Check {
        /// The policy file, or - for standard input
        policy: PathBuf,
    },

    /// Put the gate down and raise alarms until stopped; the gate stays down
    Run {
        #[command(flatten)]
        interface: Interface,
        /// The policy file; read again on SIGHUP
        #[arg(short, long)]
        policy: PathBuf,
        /// Lift the gate when the daemon stops
        #[arg(long)]
        detach_on_exit: bool,
        /// Serve Prometheus metrics at http://ADDR:PORT/metrics [default: off]
        #[arg(long, value_name = "ADDR:PORT")]
        metrics: Option<SocketAddr>,
    },

    /// Put the gate down, without a daemon
    Attach {
        #[command(flatten)]
        interface: Interface,
        /// The policy file
        #[arg(short, long)]
        policy: PathBuf,
    },

    /// Lift the gate and remove everything it pinned
    Detach {
        /// The DMZ-facing interface, or a gate's name in `show gates` whose network namespace is gone
        #[arg(short, long, value_name = "IF", required_unless_present = "orphans")]
        interface: Option<String>,
        /// Instead, remove the pins of all gates whose network namespace and NIC are gone
        #[arg(long, conflicts_with = "interface")]
        orphans: bool,
    },

    /// Make a policy the live one, atomically, and print the difference
    Apply {
        #[command(flatten)]
        interface: Interface,
        /// The policy file
        policy: PathBuf,
    },

    /// Compare a policy file with the live one; exit status 1 when they differ
    Diff {
        #[command(flatten)]
        interface: Interface,
        /// The policy file
        policy: PathBuf,
    },

    /// Read the live maps
    Show {
        /// The DMZ-facing interface; `gates` needs none
        #[arg(short, long, value_name = "IF", required_if_eq_any(Subject::of_one_gate()))]
        interface: Option<String>,
        /// What to show
        subject: Subject,
    },

    /// Ask the loaded program what it would do with a packet, and why
    Explain(Explain),

    /// Cut a server off, but for its management
    Quarantine {
        #[command(flatten)]
        interface: Interface,
        /// The server's name in the policy
        server: String,
        /// End it by itself after this time (30s, 10m, 1h, 2d)
        #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
        time: Option<Duration>,
    },

    /// Show open and past alarms
    Alarms(Alarms),

    /// Watch servers, rates, reasons and alarms; quarantine and release by key
    Top {
        #[command(flatten)]
        interface: Interface,
    },

    /// Write one self-contained page for the incident file: who tried what where
    Report(Report),

    /// End a server's quarantine
    Release {
        #[command(flatten)]
        interface: Interface,
        /// The server's name in the policy
        server: String,
    },
}

#[derive(Debug, Args)]
pub struct Interface {
    /// The DMZ-facing interface
    #[arg(short, long = "interface", value_name = "IF")]
    pub interface: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Mode, tracking, generation, table fill and memory
    Status,
    /// The live policy, as a file that `apply` takes
    Policy,
    /// The servers and what each may do
    Servers,
    /// Flows that peers have opened
    Flows,
    /// The drop ledger
    Drops,
    /// Open alarms, asked of the daemon
    Alarms,
    /// The gates of every network namespace, and those left of one that is gone
    Gates,
}

impl Subject {
    /// Those that need an interface, as clap asks for them.
    fn of_one_gate() -> impl Iterator<Item = (&'static str, &'static str)> {
        ["status", "policy", "servers", "flows", "drops", "alarms"].map(|name| ("subject", name)).into_iter()
    }
}

#[derive(Debug, Args)]
pub struct Alarms {
    #[command(flatten)]
    pub interface: Interface,

    /// Go on with what happens from now on, until stopped
    #[arg(short, long)]
    pub follow: bool,

    /// Only those that are open
    #[arg(long)]
    pub open: bool,

    /// Only of this server; may be given several times
    #[arg(long = "server", value_name = "NAME")]
    pub servers: Vec<String>,

    /// Only of this kind (spread, backdoor, ...); may be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    pub kinds: Vec<String>,

    /// At least as grave as this: low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    pub severity: Option<String>,

    /// Not over before this: 2h (ago), 2026-11-22, "2026-11-22 15:00", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<Timestamp>,

    /// Not begun after this; as --from
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub struct Report {
    /// The DMZ-facing interface [default: the only one with a history]
    #[arg(short, long = "interface", value_name = "IF")]
    pub interface: Option<String>,

    /// From when on: 2h (ago), 2026-11-22, "2026-11-22 15:00", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_moment, default_value = "24h")]
    pub from: Timestamp,

    /// Until when; as --from [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Timestamp>,

    /// The page; - is standard output
    #[arg(short, long, value_name = "FILE.html")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub interface: Interface,

    /// Source address
    #[arg(long, value_name = "A")]
    pub from: IpAddr,

    /// Destination address
    #[arg(long, value_name = "B")]
    pub to: IpAddr,

    /// Protocol and destination port or ICMP type: tcp/80, udp/domain, icmp/echo-request, gre
    #[arg(value_name = "PROTO[/PORT]")]
    pub what: String,

    /// Source port [default: an ephemeral one]
    #[arg(long, value_name = "N")]
    pub sport: Option<u16>,

    /// TCP flags: letters of FSRPAU, as S, SA, A [default: S]
    #[arg(long, value_name = "S")]
    pub flags: Option<String>,

    /// Source MAC of the frame [default: the one the policy binds the server to]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,

    /// VLAN id of the frame [default: the one the policy binds the server to]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..=4094))]
    pub vlan: Option<u16>,
}

/// A moment: a time ago, a date or a time in the system's time zone, or RFC 3339.
fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_time(text)
        && let Ok(moment) = wall_now().checked_sub(ago)
    {
        return Ok(moment);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let civil = text.parse::<jiff::civil::DateTime>().or_else(|_| {
        let date = text.parse::<jiff::civil::Date>()?;
        Ok(date.to_datetime(jiff::civil::Time::midnight()))
    });
    civil
        .and_then(|time: jiff::civil::DateTime| time.to_zoned(jiff::tz::TimeZone::system()))
        .map(|zoned| zoned.timestamp())
        .map_err(|_: jiff::Error| {
            "a time is as 2h (ago), 2026-11-22, \"2026-11-22 15:00\" or 2026-11-22T15:00:00Z".to_owned()
        })
}

fn parse_kind(text: &str) -> Result<String, String> {
    let names: Vec<&str> = crate::alarm::KINDS.iter().map(|kind| kind.name()).collect();
    if names.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("it is one of {}", names.join(", ")))
    }
}

fn parse_severity(text: &str) -> Result<String, String> {
    match crate::alarm::Severity::from_name(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it is one of low, medium, high, critical".to_owned()),
    }
}

#[cfg(test)]
mod documents;
#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_is_a_time_ago_a_date_or_a_timestamp() {
        let exact = "2026-11-22T15:00:00Z".parse().unwrap();
        assert_eq!(parse_moment("2026-11-22T15:00:00Z"), Ok(exact));
        assert_eq!(parse_moment("2026-11-22T16:00:00+01:00"), Ok(exact));
        let noon = parse_moment("2026-11-22 12:00").unwrap();
        let midnight = parse_moment("2026-11-22").unwrap();
        assert_eq!(noon.as_second() - midnight.as_second(), 12 * 3600);
        let ago = parse_moment("2h").unwrap();
        assert!((7_190..7_300).contains(&(Timestamp::now().as_second() - ago.as_second())));
        for bad in ["", "yesterday", "25:00", "2026-13-01", "1w"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
