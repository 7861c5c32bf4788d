//! The command line: every command, its flags and how their values are read. It has more than 500 lines, because
//! it is one list with the text of each page of help.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::clock::{parse_duration, wall_now};
use crate::output::Color;

/// The gate on a DMZ router
///
/// Servers in a DMZ answer. They hardly ever start a connection themselves. portcullis drops the
/// packets that a server must not start, in the driver of the DMZ-facing NIC, and raises an alarm.
/// Begin with `portcullis init`.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,

    /// Print JSON instead of text
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = color_parser())]
    pub color: Color,

    /// Print more. Give it twice for the messages of libbpf as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// The command line with its help, as people see it.
    pub fn with_help() -> clap::Command {
        guide::add_help(Self::command())
    }

    /// Reads the command line of this process, or ends it with help or an error.
    pub fn read() -> Self {
        Self::from_arg_matches(&Self::with_help().get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// The commands. [`guide`] has their order in `portcullis --help`, and their examples.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a policy to begin with: the starter, or with -i what this machine knows of its DMZ
    ///
    /// Without -i that is a commented example with the roles dns, mail, web and managed. With -i it has the neighbours
    /// of the interface as servers, this machine's resolvers, and your ssh client as bastion. Each of them is marked as
    /// a guess. Needs no privilege.
    Init {
        /// The DMZ-facing interface
        #[arg(short, long, value_name = "IF")]
        interface: Option<String>,
        /// Write to this new file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },

    /// Check policy files and print what each server may do. Needs no privilege
    Check {
        /// The policy files. - reads standard input
        #[arg(required = true, value_name = "POLICY")]
        policies: Vec<PathBuf>,
        /// Print each server by itself, and every member of each set
        #[arg(long, conflicts_with = "quiet")]
        servers: bool,
        /// Print only what is wrong
        #[arg(short, long)]
        quiet: bool,
        /// Name the needs that nothing has used for this time, as the gate of -i has counted: 12h, 30d
        #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "interface")]
        #[arg(conflicts_with_all = ["servers", "quiet"])]
        unused: Option<Duration>,
        /// The DMZ-facing interface, for --unused
        #[arg(short, long, value_name = "IF", requires = "unused")]
        interface: Option<String>,
    },

    /// Run the tests of policy files on the programs themselves. No interface is touched
    #[command(after_help = "Exit status 1 means that a test failed, 2 that the tests could not be run.")]
    Test {
        /// The policy files. - reads standard input
        #[arg(required = true, value_name = "POLICY")]
        policies: Vec<PathBuf>,
    },

    /// Attach the gate and raise alarms until stopped. The gate stays attached
    Run(RunArgs),

    /// Attach the gate without a daemon
    Attach {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// The policy file
        #[arg(short, long)]
        policy: PathBuf,
        /// If the policy is refused, attach the last confirmed one. Exit status 2 means that there is none
        #[arg(long)]
        fall_back: bool,
    },

    /// Detach the gate and remove everything it pinned
    Detach {
        /// The DMZ-facing interface, or the name of an orphaned gate as `show gates` prints it
        #[arg(short, long, value_name = "IF", required_unless_present = "orphans")]
        interface: Option<String>,
        /// Remove the pins of every gate whose network namespace and NIC are gone
        #[arg(long, conflicts_with = "interface")]
        orphans: bool,
    },

    /// Make a policy the live one in one atomic step, and print what changed
    Apply(ApplyArgs),

    /// Keep the policy that is on trial. Exit status 1 means that there is none
    Confirm {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
    },

    /// Make the daemon read its policy file again, and say what became of it
    Reload {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// Also if the live policy came from another file, or if this cuts off the management
        #[arg(long)]
        force: bool,
    },

    /// Make an earlier policy the live one again, or end a trial at once
    Rollback(RollbackArgs),

    /// Compare a policy file with the live policy. Exit status 1 means that they differ
    Diff {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// The policy file
        policy: PathBuf,
    },

    /// Show the live state of the gate: policy, edits, servers, flows, drops, open alarms, and what was done to it
    Show {
        /// The DMZ-facing interface. `show gates` needs none
        #[arg(short, long, value_name = "IF", required_if_eq_any(Subject::of_one_gate()))]
        interface: Option<String>,
        /// What to show
        subject: Subject,
        /// Of `show audit`: only what was done after this: 2h (ago), 2026-11-22, "2026-11-22 15:00", or RFC 3339
        #[arg(long, value_name = "TIME", value_parser = parse_moment)]
        since: Option<Timestamp>,
    },

    /// Ask the loaded program what it would do with a packet, and why
    Explain(ExplainArgs),

    /// Tell what a policy would have done to a capture, without touching an interface
    Replay(ReplayArgs),

    /// Learn a policy from captures, which needs no privilege, or from a gate: who opened what, and who answered
    ///
    /// Prints a policy in mode observe, each need with its evidence, and what it does not propose and why. With
    /// --against it prints only what that policy would drop, as a patch of its file.
    Learn(LearnArgs),

    /// Permit a server one more need for a time. The kernel ends it, with or without a daemon
    Allow(EditArgs),

    /// Forbid a server one need for a time, open flows included. It goes before every `allow` and the policy
    Deny(EditArgs),

    /// Cut off a server or one of its addresses. Only its management still gets an answer
    Quarantine {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// The server's name in the policy, or one address of a server
        #[arg(value_name = "SERVER|ADDRESS")]
        target: String,
        /// End the quarantine after this time: 30s, 10m, 1h, 2d [default: until `release`]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        time: Option<Duration>,
        /// Leave the MAC of the address alone, as for one of several machines behind a router
        #[arg(long)]
        address_only: bool,
    },

    /// End the quarantine of a server with all its addresses, or of one address
    Release {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// The server's name in the policy, or one address
        #[arg(value_name = "SERVER|ADDRESS")]
        target: String,
    },

    /// Take over connections that are open already, as at attach: after a failover, or after an accident
    Pickup {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// For how long: 1s to 10m
        #[arg(long = "for", value_name = "TIME", value_parser = parse_pickup)]
        time: Duration,
    },

    /// Of a router that takes over from another one: for a while, answers that it can't know yet raise no alarm
    Takeover {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// For how long: 1s to 60s
        #[arg(long = "for", value_name = "TIME", value_parser = parse_takeover)]
        time: Duration,
    },

    /// List open and past alarms, or follow them live
    Alarms(AlarmsArgs),

    /// Prove the gate, and find the ways around it. Exit status 1 means that a finding is severe
    ///
    /// Asks the loaded programs about packets that must pass and packets that must not, and looks at the interfaces,
    /// routes, programs, tables, sinks and units around the gate. Changes nothing. `run --watch` does it once a minute.
    Doctor {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
    },

    /// Send a test alarm through every sink of the daemon. Exit status 1 means that one did not take it
    TestAlarm {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
    },

    /// Watch servers, drop rates and alarms live. Keys quarantine and release a server
    Top {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
    },

    /// Write one self-contained HTML page for the incident file: who tried what, where and when
    Report(ReportArgs),

    /// Print a policy in another language, or what another router has to know
    #[command(subcommand)]
    Export(Export),

    /// Take over what another router has printed
    #[command(subcommand)]
    Import(Import),

    /// Write the manual pages and completions into a new folder, as packages need them
    #[command(hide = true)]
    Manuals {
        /// The date of the pages: 2026-11-30
        #[arg(long, value_name = "DATE")]
        date: Date,
        /// The folder
        folder: PathBuf,
    },
}

/// What `export` prints.
#[derive(Debug, Subcommand)]
pub enum Export {
    /// Print a policy as a ruleset for `nft -f`: a guard at boot, and what is left where XDP can't be attached
    ///
    /// The head of the ruleset says what nft can't express. Loaded again, the ruleset replaces itself in one
    /// step. Needs no privilege.
    Nft {
        /// The policy file
        policy: PathBuf,
        /// The DMZ-facing interface [default: the policy file's name without .toml]
        #[arg(short, long, value_name = "IF")]
        interface: Option<String>,
    },

    /// Print quarantines, edits and grants, for `import state` on the other router of a pair
    State {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
    },
}

/// What `import` takes over.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Take over the quarantines, edits and grants that `export state` has printed on the other router of a pair
    ///
    /// Each holds under the policy of this router, for what is left of its time. What an earlier import has brought, and
    /// the file no longer has, ends. Nothing that was done here is shortened.
    State {
        /// Where.
        #[command(flatten)]
        interface: InterfaceArg,
        /// The file; `-` is standard input
        file: PathBuf,
    },
}

/// `-i IF`, of the commands that need one gate.
#[derive(Debug, Args)]
pub struct InterfaceArg {
    /// The DMZ-facing interface
    #[arg(short = 'i', long = "interface", value_name = "IF")]
    pub name: String,
}

/// The subjects of `show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Mode, tracking, generation, table usage and memory
    Status,
    /// The live policy, as a file that `apply` takes
    Policy,
    /// The servers and what each may do
    Servers,
    /// The flows that peers have opened
    Flows,
    /// The ledger of drops
    Drops,
    /// The open alarms, from the running daemon
    Alarms,
    /// What was done to the gate, by whom, and when
    Audit,
    /// What `allow` and `deny` have changed beside the policy, by whom, why and for how long
    Edits,
    /// The addresses that names of the policy were seen to have, for which server and until when
    Names,
    /// How often each need was used, and when last
    Needs,
    /// The gates of every network namespace, and what is left of namespaces that are gone
    Gates,
}

impl Subject {
    const fn needs_interface(self) -> bool {
        match self {
            Subject::Status
            | Subject::Policy
            | Subject::Servers
            | Subject::Flows
            | Subject::Drops
            | Subject::Alarms
            | Subject::Audit
            | Subject::Edits
            | Subject::Names
            | Subject::Needs => true,
            Subject::Gates => false,
        }
    }

    /// The subjects that need an interface, as clap wants them.
    fn of_one_gate() -> impl Iterator<Item = (&'static str, String)> {
        let subjects = Subject::value_variants().iter().filter(|subject| subject.needs_interface());
        let names = subjects.filter_map(ValueEnum::to_possible_value);
        names.map(|name| ("subject", name.get_name().to_owned()))
    }
}

/// The flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// The policy file. SIGHUP reads it again
    #[arg(short, long)]
    pub policy: PathBuf,

    /// If the policy is refused, attach the last confirmed one. Exit status 2 means that there is none
    #[arg(long)]
    pub fall_back: bool,

    /// Detach the gate when the daemon stops
    #[arg(long)]
    pub detach_on_exit: bool,

    /// Run `doctor` once a minute: what it finds is an alarm until it is gone, and a packet that must be dropped is
    /// asked about each time
    #[arg(long)]
    pub watch: bool,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics [default: off]. :PORT serves them at every address
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen_address)]
    pub metrics: Option<SocketAddr>,
}

/// The flags of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// The policy file
    pub policy: PathBuf,

    /// How.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The flags of commands that make another policy the live one.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Put it on trial: unless `confirm` comes within this time (1s to 1h), the kernel goes back by itself
    #[arg(long, value_name = "TIME", value_parser = parse_trial_time)]
    pub confirm: Option<Duration>,

    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
    pub note: Option<String>,

    /// Also if this cuts off an open flow of the management
    #[arg(long)]
    pub force: bool,
}

/// The flags of `rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// How many policies to go back, as --list numbers them [default: 1, or the one before a trial]
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20), conflicts_with = "list")]
    pub number: Option<u8>,

    /// List the policies that there are to go back to
    #[arg(short, long)]
    pub list: bool,

    /// How.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The flags of `allow` and `deny`.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// The server's name in the policy
    #[arg(value_name = "SERVER", required_unless_present = "cancel")]
    pub server: Option<String>,

    /// Who opens the connections: `in` is its peers, `out` is the server
    #[arg(value_name = "in|out", required_unless_present = "cancel", value_parser = PossibleValuesParser::new(["in", "out"]), hide_possible_values = true)]
    pub direction: Option<String>,

    /// The need, as in a role: "tcp/443 to 198.51.100.80", "tcp/22 from @bastion". Several words need no quotes
    #[arg(value_name = "NEED", required_unless_present = "cancel", num_args = 1..)]
    pub need: Vec<String>,

    /// How long it holds: 30s, 10m, 1h, 2d; 30 days at most. Needed, for what is to stay belongs in the policy
    #[arg(long = "for", value_name = "TIME", value_parser = parse_edit_time)]
    pub time: Option<Duration>,

    /// Why, for those who read `show edits`
    #[arg(long, value_name = "TEXT", value_parser = parse_note)]
    pub note: Option<String>,

    /// Deny what the management needs, too. You may lock yourself out until the time is over
    #[arg(long)]
    pub force: bool,

    /// End the edit of this number now. `show edits` lists them
    #[arg(long, value_name = "N", conflicts_with_all = ["server", "direction", "need", "time", "note", "force"])]
    pub cancel: Option<u32>,
}

/// The flags of `alarms`.
#[derive(Debug, Args)]
pub struct AlarmsArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// Print the open alarms, then each change as it happens, until stopped
    #[arg(short, long)]
    pub follow: bool,

    /// Only alarms that are open
    #[arg(long)]
    pub open: bool,

    /// Only alarms of this server. May be given several times
    #[arg(long = "server", value_name = "NAME")]
    pub servers: Vec<String>,

    /// Only alarms of this kind (spread, backdoor, ...). May be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    pub kinds: Vec<String>,

    /// Only alarms of at least this severity: low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    pub severity: Option<String>,

    /// Only alarms that went on after this: 2h (ago), 2026-11-22, "2026-11-22 15:00", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<Timestamp>,

    /// Only alarms that began before this. Written as in --from
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Timestamp>,

    /// What to do with alarms, in place of listing them.
    #[command(subcommand)]
    pub order: Option<AlarmCommand>,
}

/// What `alarms` does with alarms. The daemon must run.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AlarmCommand {
    /// Say that you are at an open alarm. It calls again when it becomes more than it is now
    Ack {
        /// The number of the alarm
        id: u64,
        /// What you know of it, for whoever looks next
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Take an acknowledgement back
    Unack {
        /// The number of the alarm
        id: u64,
    },
    /// Have nobody called for a time: because of a server, a kind of alarm or a service
    ///
    /// Alarms go on to be recorded and shown. What is more severe than the alarms that are open now calls all the
    /// same. Where none is open, only what is critical does.
    Silence {
        /// A server (web1), a kind (scan) or a service (udp/123)
        target: String,
        /// For how long: 30m, 4h, 7d at most
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        time: Duration,
        /// Why. Whoever finds the silence reads it
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// Also what is critical
        #[arg(long)]
        force: bool,
    },
    /// End a silence
    Unsilence {
        /// As it was given
        target: String,
    },
    /// List the silences that hold
    Silences,
}

/// The flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The DMZ-facing interface [default: the only one with a history]
    #[arg(short, long = "interface", value_name = "IF")]
    pub interface: Option<String>,

    /// Where the report begins: 2h (ago), 2026-11-22, "2026-11-22 15:00", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_moment, default_value = "24h")]
    pub from: Timestamp,

    /// Where it ends. Written as in --from [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Timestamp>,

    /// The file to write. - is standard output
    #[arg(short, long, value_name = "FILE.html")]
    pub output: PathBuf,
}

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Where.
    #[command(flatten)]
    pub interface: InterfaceArg,

    /// Source: an address, or the name of a server
    #[arg(long, value_name = "A")]
    pub from: String,

    /// Destination: an address, the name of a server, or a DNS name of the policy
    #[arg(long, value_name = "B")]
    pub to: String,

    /// Protocol and destination port or ICMP type: tcp/80, udp/domain, icmp/echo-request, gre
    #[arg(value_name = "PROTO[/PORT]")]
    pub what: String,

    /// Source port [default: an ephemeral one]
    #[arg(long, value_name = "N")]
    pub sport: Option<u16>,

    /// TCP flags, by the letters FSRPAU: S, SA, A [default: S]
    #[arg(long, value_name = "S")]
    pub flags: Option<String>,

    /// Source MAC of the frame [default: the one that the policy binds the server to]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,

    /// VLAN id of the frame [default: the one that the policy binds the server to]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..=4094))]
    pub vlan: Option<u16>,
}

/// The flags of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The policy file
    #[arg(short, long)]
    pub policy: PathBuf,

    /// Compare with this policy. Exit status 1 means that they differ on the capture, 2 is trouble
    #[arg(long, value_name = "POLICY")]
    pub against: Option<PathBuf>,

    /// The MAC of the NIC at which the capture was taken [default: what the capture shows]
    #[arg(long, value_name = "MAC", value_parser = parse_mac_argument)]
    pub mac: Option<[u8; 6]>,

    /// Captures of both directions, pcap or pcapng. Several are read in the order of their times. - reads standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// The flags of `learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// The servers: addresses and prefixes of the DMZ, separated by commas
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', value_parser = parse_network)]
    #[arg(conflicts_with_all = ["interface", "policy", "against"])]
    pub servers: Vec<IpNet>,

    /// The servers are the networks of this DMZ-facing interface
    ///
    /// Without a capture: learn from what the gate on this interface has kept. The servers are those of its policy.
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,

    /// Without a capture: from what the gate has kept for so long: 12h, 7d. It keeps it while the policy observes
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "interface", conflicts_with = "files")]
    pub from: Option<Duration>,

    /// Without a capture: have the gate keep what passes for so long, and wait for it
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    #[arg(requires = "interface", conflicts_with = "files")]
    pub time: Option<Duration>,

    /// The servers, with their names, are those of this policy. A whole new one is printed
    #[arg(short, long, conflicts_with = "against")]
    pub policy: Option<PathBuf>,

    /// Print only what this policy would drop and what is needed, as a patch of its file
    #[arg(long, value_name = "POLICY")]
    pub against: Option<PathBuf>,

    /// With --against: also take out the needs that nothing has used for this time: 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "against")]
    pub unused: Option<Duration>,

    /// Join four or more peers of one /24 (IPv6: /56) to the longest prefix that holds them
    #[arg(long)]
    pub aggregate: bool,

    /// Write to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Captures, pcap or pcapng. Several are read in the order of their times. - reads standard input
    #[arg(required_unless_present_any = ["from", "time"], value_name = "CAPTURE")]
    pub files: Vec<PathBuf>,
}

/// Reads an address or a prefix. Host bits are cut off.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let prefix = text.parse::<IpNet>().map(|network| network.trunc());
    prefix.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        "write an address or a prefix, as 192.0.2.0/24; several are separated by commas".to_owned()
    })
}

fn parse_mac_argument(text: &str) -> Result<[u8; 6], String> {
    crate::net::parse_mac(text).ok_or_else(|| "a MAC is written as 02:00:00:00:00:10".to_owned())
}

/// As words without help of their own, which would spread every page of help over twice the lines.
fn color_parser() -> impl TypedValueParser<Value = Color> {
    PossibleValuesParser::new(Color::ALL.map(Color::name))
        .map(|word| Color::ALL.into_iter().find(|color| color.name() == word).unwrap_or(Color::Auto))
}

/// Reads the time of a trial.
fn parse_trial_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if time <= Duration::from_secs(3_600) => Ok(time),
        _ => Err("a trial takes from 1s to 1h".to_owned()),
    }
}

/// Reads a note: one line, of a length that a table can show.
fn parse_note(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err("a note is one line of 1 to 200 characters".to_owned());
    }
    Ok(text.trim().to_owned())
}

/// Reads how long an edit holds.
fn parse_edit_time(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(30 * 86_400);
    match parse_duration(text)? {
        time if time > MOST => {
            Err("it is 30d at most: what is to stay belongs in the policy file".to_owned())
        }
        time => Ok(time),
    }
}

/// Reads a point in time: a length of time ago, a date or a local time, or RFC 3339. A date alone is its
/// midnight.
fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text)
        && let Ok(moment) = wall_now().checked_sub(ago)
    {
        return Ok(moment);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    text.parse::<DateTime>()
        .and_then(|time| time.to_zoned(TimeZone::system()))
        .map(|zoned| zoned.timestamp())
        .map_err(|_| {
            "a time is written as 2h (ago), 2026-11-22, \"2026-11-22 15:00\" or 2026-11-22T15:00:00Z"
                .to_owned()
        })
}

/// Reads the time of a pickup. Meanwhile the gate is weaker, so it is short.
fn parse_pickup(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(600);
    match parse_duration(text)? {
        time if time <= LONGEST => Ok(time),
        _ => Err("connections are taken over for 10m at most".to_owned()),
    }
}

/// Reads the time of a takeover. Meanwhile some drops are quiet, so it is short.
fn parse_takeover(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(60);
    match parse_duration(text)? {
        time if time <= LONGEST => Ok(time),
        _ => Err("a takeover lasts 60s at most".to_owned()),
    }
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
        None => {
            let names: Vec<&str> = crate::alarm::SEVERITIES.iter().map(|severity| severity.name()).collect();
            Err(format!("it is one of {}", names.join(", ")))
        }
    }
}

/// `ADDR:PORT`, `localhost:PORT`, or `:PORT` for every address of the machine.
fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    let help = "write ADDR:PORT, as 127.0.0.1:9464, [::1]:9464 or localhost:9464; :9464 is every address";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(help.to_owned());
    };
    let port: u16 = port.parse().map_err(|_| format!("a port is a number from 1 to 65535; {help}"))?;
    let address = match host {
        "" | "*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => IpAddr::V6(inner.parse().map_err(|_| help.to_owned())?),
            None => IpAddr::V4(host.parse().map_err(|_| help.to_owned())?),
        },
    };
    Ok(SocketAddr::new(address, port))
}

pub mod guide;

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
    fn metrics_are_served_at_an_address_at_localhost_or_at_every_address() {
        for (text, address) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("[::1]:9464", "[::1]:9464"),
            ("localhost:9464", "127.0.0.1:9464"),
            (":9464", "[::]:9464"),
            ("*:9464", "[::]:9464"),
        ] {
            assert_eq!(parse_listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for bad in [
            "9464",
            "::1:9464",
            "router.example:9464",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:70000",
            "",
            ":",
        ] {
            assert!(parse_listen_address(bad).unwrap_err().contains("ADDR:PORT"), "{bad}");
        }
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
