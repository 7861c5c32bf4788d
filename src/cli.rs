//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
        raise_on_exit: bool,
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
        #[command(flatten)]
        interface: Interface,
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
        #[command(flatten)]
        interface: Interface,
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

/// A time as `90`, `30s`, `10m`, `1h` or `2d`; at least a second, at most a year.
fn parse_time(text: &str) -> Result<Duration, String> {
    const YEAR_S: u64 = 365 * 86_400;
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("`{unit}` is no unit of time: write 30s, 10m, 1h or 2d")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .filter(|total| (1..=YEAR_S).contains(total))
        .map(Duration::from_secs)
        .ok_or_else(|| "a time is from 1s to 365d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_time("2d"), Ok(Duration::from_secs(172_800)));
        for bad in ["", "0", "m", "1w", "366d", "-1s", "99999999999999999999"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
