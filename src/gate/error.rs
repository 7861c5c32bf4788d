//! The errors of this room, each with what to do about it.

use std::net::IpAddr;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// An error of the gate. Its text says what to do. The errno, where there is one, comes last and in
/// words.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the message of each error names its fields")]
pub enum GateError {
    /// The process lacks a privilege.
    #[error(
        "this needs {missing}\n\
         help: run it as root (sudo portcullis …)"
    )]
    Privilege { missing: &'static str },

    /// The kernel is older than the oldest that has what the programs need.
    #[error(
        "Linux {release} is too old: portcullis needs 6.1 or newer\n\
         help: Debian 12, Ubuntu 24.04 and later have one"
    )]
    Kernel { release: String },

    /// There is no such interface. `hint` is empty, or lines about gates that were left behind.
    #[error(
        "there is no interface `{interface}` in this network namespace\n\
         help: `ip link` lists them; for another namespace: nsenter --net=/run/netns/NAME portcullis …{hint}"
    )]
    NoInterface { interface: String, hint: String },

    /// No interface can have this name.
    #[error("`{interface}` can't be an interface's name: {why}")]
    BadInterfaceName { interface: String, why: &'static str },

    /// Nothing is pinned for the interface.
    #[error(
        "there is no gate on {interface}\n\
         help: portcullis attach -i {interface} -p POLICY, or portcullis run -i {interface} -p POLICY"
    )]
    NotAttached { interface: String },

    /// The pins are there, and the filter is off its interface.
    #[error(
        "the gate on {interface} is NOT ATTACHED: nothing is dropped\n\
         help: portcullis attach -i {interface} -p POLICY"
    )]
    DetachedFilter { interface: String },

    /// Without strict tracking there are no flows to take over.
    #[error(
        "the live policy on {interface} has tracking = \"service\": every packet from the port of an `in` service \
         counts as an answer, so open connections go on without a pickup"
    )]
    NoPickup { interface: String },

    /// Strict tracking, and its program is off its interface.
    #[error(
        "strict tracking on {interface} lacks its tracker, so new flows of peers are not seen\n\
         help: portcullis attach -i {interface} -p POLICY"
    )]
    NoTracker { interface: String },

    /// No gate of any network namespace has this name.
    #[error(
        "no gate is pinned as `{name}`\n\
         help: `portcullis show gates` lists the gates of every network namespace"
    )]
    NoSuchPins { name: String },

    /// A gate can only be detached by its name once its network namespace is gone.
    #[error(
        "{name} is not an orphan: its network namespace still exists\n\
         help: detach it from there: nsenter --net=/run/netns/NAME (or --target PID --net) \
         portcullis detach -i {interface}"
    )]
    NamespaceLives { name: String, interface: String },

    /// As [`GateError::NamespaceLives`], where that can't be known.
    #[error(
        "the network namespace of {name} may still exist: some processes can't be seen from here\n\
         help: run it as root on the host itself, outside of any container"
    )]
    NamespaceUnknown { name: String },

    /// A mount namespace of its own hides the pins.
    #[error(
        "there is no bpffs at {path}, and this is a private mount namespace: pins made here would vanish \
         with this shell\n\
         help: `ip netns exec` makes such a namespace; instead of it, \
         use nsenter --net=/run/netns/NAME portcullis …"
    )]
    PrivateMounts { path: PathBuf },

    /// The bpffs can't be mounted.
    #[error("could not mount bpffs at {path}: {errno}\nhelp: mount -t bpf bpf {path}")]
    MountBpffs { path: PathBuf, errno: Errno },

    /// Another command has the writers' lock.
    #[error(
        "another portcullis command is changing the gate on {interface} (process {holder})\n\
         help: wait for it to end, or see what it waits for: ps -fp {holder}"
    )]
    Locked { interface: String, holder: String },

    /// Another daemon reads the perf buffer.
    #[error(
        "another daemon already runs for {interface} (process {holder})\n\
         help: there can be only one; stop it first: systemctl stop portcullis@{interface}, or kill {holder}"
    )]
    DaemonRuns { interface: String, holder: String },

    /// The interface is the loopback interface.
    #[error(
        "{interface} is the loopback interface: no server is behind it\n\
         help: attach to the interface that the servers are behind; `ip route get ADDRESS` names it"
    )]
    Loopback { interface: String },

    /// Packets of the interface have no Ethernet header. `what` says which kind of device it is.
    #[error(
        "packets of {interface} have no Ethernet header, for it is {what}: the gate can't judge them\n\
         help: attach to an Ethernet interface that the servers are behind; `ip route get ADDRESS` names \
         the one of a server"
    )]
    NoEthernet { interface: String, what: String },

    /// The interface has an XDP program that is not a gate's.
    #[error(
        "another XDP program is on {interface} already\n\
         help: see it with `ip -d link show dev {interface}`; remove it with `ip link set dev {interface} xdp off` \
         or with the tool that attached it"
    )]
    OtherProgram { interface: String },

    /// The interface has the programs of another gate.
    #[error(
        "the gate that was attached as {attached_as} is on {interface}\n\
         help: `portcullis show -i {interface} status` shows it; portcullis detach -i {interface} detaches it"
    )]
    OtherGate { interface: String, attached_as: String },

    /// The interface has no gate, and one that has its name is on another NIC.
    #[error(
        "{interface} has no gate, and the gate that was attached as {interface} is on {now}: \
         the NICs have other names than at that time, and nothing was changed\n\
         help: type -i {now} for the gate that is there; before {interface} can have a gate of its own, \
         portcullis detach -i {now}, and attach the gate to {now} again"
    )]
    NameTaken { interface: String, now: String },

    /// As [`GateError::NameTaken`], with the NIC in another network namespace.
    #[error(
        "the gate that was attached as {interface} is on a NIC that is in another network namespace now: \
         nothing was changed here\n\
         help: move the NIC back, or detach the gate there: \
         nsenter --net=/run/netns/NAME portcullis detach -i NIC"
    )]
    MovedAway { interface: String },

    /// The pins are of another version of the programs.
    #[error(
        "the pinned maps at {path} have layout {found}, and this portcullis needs layout {expected}\n\
         help: {}", remedy_for_layout(interface, *.found, *.expected)
    )]
    Layout { interface: String, path: PathBuf, found: u64, expected: u32 },

    /// A pin is missing.
    #[error(
        "the pins at {path} are incomplete: {missing} is missing\n\
         help: portcullis detach -i {interface} removes the others; then attach again"
    )]
    BrokenPins { interface: String, path: PathBuf, missing: String },

    /// A policy or a quarantine does not fit into a live table.
    #[error(
        "the table `{table}` has room for {size}, and {wanted} are needed\n\
         help: raise `{table}` under [tables] in the policy, then detach and attach the gate: \
         the sizes of live tables can't change"
    )]
    TableFull { table: &'static str, size: u32, wanted: usize },

    /// The edits don't fit into their table.
    #[error(
        "there is no room for another edit beside the {count} that there are, and nothing was changed\n\
         help: portcullis allow -i IF --cancel N ends one; what is to stay belongs in the policy"
    )]
    TooManyEdits { count: usize },

    /// The policy has no such server. `hint` is a line that begins with `help:`.
    #[error("no server is called `{name}`{hint}")]
    NoServer { name: String, hint: String },

    /// The policy has no server with this address.
    #[error(
        "no server has the address {address}\n\
         help: `portcullis show -i IF servers` lists the addresses; an address of no server is dropped anyway, \
         unless the policy has `unknown_sources = \"allow\"`"
    )]
    NoServerHas { address: IpAddr },

    /// The kernel refused.
    #[error("{what}: {errno}{}", remedy(*.errno))]
    Kernelside { what: String, errno: Errno },

    /// The bpffs refused.
    #[error("{what}: {errno}{}", remedy_for_pins(*.errno))]
    NotPinned { what: String, errno: Errno },

    /// The new policy is live, but not everything that belongs to it is attached.
    #[error("generation {generation} of the policy is live, but {state}: {error}\nthen attach again")]
    HalfDone { generation: u64, state: String, error: Box<GateError> },

    /// A policy is on trial, and the one before must stay whole. `left`: until the way back.
    #[error(
        "a policy is on trial on {interface}, and in {left} the gate goes back to the one before\n\
         help: portcullis confirm -i {interface} keeps it, portcullis rollback -i {interface} goes back at once"
    )]
    TrialRuns { interface: String, left: String },

    /// There is no trial to confirm.
    #[error(
        "no policy is on trial on {interface}: either none was, or its time is over and the policy before is live \
         again\n\
         help: portcullis show -i {interface} status says which one is live; \
         portcullis apply -i {interface} --confirm 60s POLICY begins a trial"
    )]
    NoTrial { interface: String },

    /// The trial is all but over.
    #[error(
        "it is too late: the time of the trial on {interface} is over, and the policy before is live again\n\
         help: portcullis apply -i {interface} --confirm 60s POLICY begins another trial"
    )]
    TrialTooLate { interface: String },

    /// The text is that of a trial that nobody confirmed.
    #[error(
        "{file} has the text of a trial that was begun {since:.0} and never confirmed, so it does not become live\n\
         help: portcullis apply -i {interface} {file} makes it live, and puts it on trial with --confirm 60s"
    )]
    Unconfirmed { interface: String, file: String, since: jiff::Timestamp },

    /// Somebody else may change the pins.
    #[error(
        "{path} can't be trusted: {why}\n\
         help: see what lies there (ls -la {path}); once root alone may change it, try again"
    )]
    ForeignPins { path: PathBuf, why: String },

    /// The programs are detached, but something of the gate is left.
    #[error(
        "detached from {interface}: nothing is dropped any more; but its pins are not all removed: {error}\n\
         help: portcullis detach -i {interface} removes the others"
    )]
    PinsLeft { interface: String, error: Box<GateError> },

    /// Anything else. `why` may end with a line that begins with `help:`.
    #[error("{what}: {why}")]
    Other { what: String, why: String },
}

/// The meaning of an errno of the bpf system call, for a person.
fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "\nhelp: run it as root; in a container, it needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
        }
        Errno::EMFILE => {
            "\nhelp: this process may open too few files: raise the limit with `ulimit -n 1024`, or LimitNOFILE= of a unit"
        }
        Errno::ENFILE => {
            "\nhelp: the machine has too many open files: end a program, or raise fs.file-max with sysctl"
        }
        Errno::EROFS => {
            "\nhelp: the file system is mounted read-only: `mount | grep /sys/fs/bpf` shows it, \
             mount -o remount,rw /sys/fs/bpf changes that"
        }
        Errno::ENOMEM => "\nhelp: the kernel has no memory for the tables; make them smaller under [tables]",
        Errno::ENOSPC | Errno::E2BIG => "\nhelp: a table is full; `portcullis show -i IF status` says which",
        Errno::EINVAL | Errno::EOPNOTSUPP => {
            "\nhelp: this kernel or driver lacks the feature; `portcullis show -i IF status` and `dmesg | tail` say more"
        }
        _ => "",
    }
}

/// What to do about a gate of another version.
fn remedy_for_layout(interface: &str, found: u64, expected: u32) -> String {
    if found < u64::from(expected) {
        return format!("attach replaces the gate without a gap: portcullis attach -i {interface} -p POLICY");
    }
    format!(
        "the gate stays attached as it is; use the newer version that made it, or detach the gate and attach \
         it again: portcullis detach -i {interface} && portcullis attach -i {interface} -p POLICY"
    )
}

/// As [`remedy`], for pins. A bpffs has no size of its own: its inodes are memory of the kernel.
fn remedy_for_pins(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM => {
            "\nhelp: the kernel has no room for another pin. Make some: `free -m` shows the machine's memory, \
             `systemd-cgls` and MemoryMax= a unit's or container's; `find /sys/fs/bpf | wc -l` counts the pins"
        }
        errno => remedy(errno),
    }
}

impl GateError {
    /// Whether this process lacked something, descriptors or memory, and to try again may help.
    pub fn is_shortage(&self) -> bool {
        match self {
            GateError::Kernelside { errno, .. } | GateError::NotPinned { errno, .. } => is_shortage(*errno),
            _ => false,
        }
    }

    /// Whether this is about a policy that was on trial and that nobody has confirmed.
    pub fn is_unconfirmed(error: &anyhow::Error) -> bool {
        GateError::unconfirmed_since(error).is_some()
    }

    /// When that trial began.
    pub fn unconfirmed_since(error: &anyhow::Error) -> Option<jiff::Timestamp> {
        match error.downcast_ref() {
            Some(GateError::Unconfirmed { since, .. }) => Some(*since),
            _ => None,
        }
    }

    /// Whether a trial is why something was refused.
    pub fn is_trial(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref(), Some(GateError::TrialRuns { .. }))
    }

    /// No gate is pinned by this name.
    pub(super) fn no_such_pins(name: &str) -> GateError {
        GateError::NoSuchPins { name: name.escape_default().to_string() }
    }

    /// The object, or what is pinned, is not of this version.
    pub(super) fn foreign_object(why: String) -> GateError {
        GateError::Other { what: "the object file is not ours".to_owned(), why }
    }

    /// There is no such server, and perhaps one of the `known` names is meant.
    pub fn no_server<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> GateError {
        let close = known
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(distance, _)| *distance <= 2);
        GateError::NoServer {
            name: name.to_owned(),
            hint: match close {
                Some((_, known)) => format!("\nhelp: did you mean `{known}`?"),
                None => "\nhelp: `portcullis show -i IF servers` lists them".to_owned(),
            },
        }
    }

    /// An error of the bpffs, with what was being done.
    pub(super) fn not_pinned(what: String, error: &std::io::Error) -> GateError {
        match GateError::from_io(what, error) {
            GateError::Kernelside { what, errno } => GateError::NotPinned { what, errno },
            other => other,
        }
    }

    /// An error of a file system, with what was being done.
    pub(super) fn from_io(what: String, error: &std::io::Error) -> GateError {
        match error.raw_os_error() {
            Some(number) => GateError::Kernelside { what, errno: Errno::from_raw(number) },
            None => GateError::Other { what, why: error.to_string() },
        }
    }

    /// An error of libbpf-rs, with what was being done.
    pub(super) fn from_libbpf(what: impl Into<String>, error: &libbpf_rs::Error) -> GateError {
        let what = what.into();
        match errno_of(error) {
            Some(errno) => GateError::Kernelside { what, errno },
            None => GateError::Other { what, why: format!("{error:#}") },
        }
    }
}

/// Whether an errno is about this process, and says nothing about what it asked for: descriptors or memory ran
/// out, or it lacks a right. To try again may help.
pub(super) const fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::EAGAIN
            | Errno::EINTR
            | Errno::EACCES
            | Errno::EPERM
    )
}

pub(super) fn errno_of(error: &libbpf_rs::Error) -> Option<Errno> {
    use libbpf_rs::ErrorKind as Kind;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(number) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(number));
        }
        source = error.source();
    }
    match error.kind() {
        Kind::PermissionDenied => Some(Errno::EPERM),
        Kind::NotFound => Some(Errno::ENOENT),
        Kind::AlreadyExists => Some(Errno::EEXIST),
        Kind::InvalidInput => Some(Errno::EINVAL),
        // libbpf-rs keeps the number to itself, but for its text
        _ => {
            let text = format!("{error:#}");
            let (_, rest) = text.rsplit_once("(os error ")?;
            rest.split(')').next()?.parse().ok().map(Errno::from_raw)
        }
    }
}
