//! What can go wrong at the kernel's border, each with what to do about it.

use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// An error of the gate. Its text says what to do; the errno, where there is
/// one, comes last and in words.
#[derive(Debug, Error)]
pub enum GateError {
    #[error(
        "this needs {missing}\n\
         help: run it as root (sudo portcullis …)"
    )]
    Privilege { missing: &'static str },

    #[error(
        "Linux {release} is too old: portcullis needs 6.1 or newer\n\
         help: Debian 12, Ubuntu 24.04 and later have one"
    )]
    Kernel { release: String },

    #[error(
        "there is no interface `{interface}` in this network namespace\n\
         help: `ip link` lists them; for another namespace: nsenter --net=/run/netns/NAME portcullis …{hint}"
    )]
    NoInterface { interface: String, hint: String },

    #[error("`{interface}` can't be an interface's name: {why}")]
    BadInterfaceName { interface: String, why: &'static str },

    #[error(
        "there is no gate on {interface}\n\
         help: portcullis attach -i {interface} -p POLICY, or portcullis run -i {interface} -p POLICY"
    )]
    NotAttached { interface: String },

    #[error(
        "no gate is pinned as `{name}`\n\
         help: `portcullis show gates` lists those of every network namespace"
    )]
    NoSuchPins { name: String },

    #[error(
        "{name} is no orphan: its network namespace lives\n\
         help: lift it from there: nsenter --net=/run/netns/NAME (or --target PID --net) \
         portcullis detach -i {interface}"
    )]
    NamespaceLives { name: String, interface: String },

    #[error(
        "whether the network namespace of {name} lives can't be told from here: not every process can be seen\n\
         help: run it as root on the host itself, outside of any container"
    )]
    NamespaceUnknown { name: String },

    #[error(
        "no bpffs at {path}, and this is a private mount namespace: what is pinned here would vanish \
         with this shell\n\
         help: `ip netns exec` makes one; use instead: nsenter --net=/run/netns/NAME portcullis …"
    )]
    PrivateMounts { path: PathBuf },

    #[error("could not mount bpffs at {path}: {errno}\nhelp: mount -t bpf bpf {path}")]
    MountBpffs { path: PathBuf, errno: Errno },

    #[error(
        "another portcullis command is changing the gate on {interface} (process {holder})\n\
         help: wait for it to end, or see what it waits for: ps -fp {holder}"
    )]
    Locked { interface: String, holder: String },

    #[error(
        "another daemon is reading the alarms of {interface} (process {holder})\n\
         help: there can be one; stop it first: systemctl stop portcullis@{interface}, or kill {holder}"
    )]
    DaemonRuns { interface: String, holder: String },

    #[error(
        "another XDP program is on {interface} already\n\
         help: see it with `ip -d link show dev {interface}`, remove it with `ip link set dev {interface} xdp off` \
         or with the tool that put it there"
    )]
    OtherProgram { interface: String },

    #[error(
        "the pinned maps at {path} have layout {found}, this portcullis has {expected}\n\
         help: use the version that made them, or lift the gate and put it up again: \
         portcullis detach -i {interface} && portcullis attach -i {interface} -p POLICY"
    )]
    Layout { interface: String, path: PathBuf, found: u64, expected: u32 },

    #[error(
        "the pins at {path} are incomplete: {missing} is missing\n\
         help: portcullis detach -i {interface} removes the rest; then attach again"
    )]
    BrokenPins { interface: String, path: PathBuf, missing: String },

    #[error(
        "the table `{table}` holds {size}, and {wanted} are needed\n\
         help: raise `{table}` under [tables] in the policy, then portcullis detach and attach again: \
         the sizes of live tables can't change"
    )]
    TableFull { table: &'static str, size: u32, wanted: usize },

    #[error("no server is called `{name}`{hint}")]
    NoServer { name: String, hint: String },

    #[error("{what}: {errno}{}", remedy(*.errno))]
    Kernelside { what: String, errno: Errno },

    #[error("{what}: {errno}{}", remedy_for_pins(*.errno))]
    NotPinned { what: String, errno: Errno },

    #[error("generation {generation} of the policy is live, but {state}: {error}\nthen attach again")]
    HalfDone { generation: u64, state: String, error: Box<GateError> },

    #[error("{what}: {why}")]
    Other { what: String, why: String },
}

/// What an errno of the bpf system call means to a person.
fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "\nhelp: run it as root; in a container, it needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
        }
        Errno::EROFS => {
            "\nhelp: the file system is mounted read-only: `mount | grep /sys/fs/bpf` shows it, \
             mount -o remount,rw /sys/fs/bpf changes that"
        }
        Errno::ENOMEM => "\nhelp: the kernel has no memory for the tables; make them smaller under [tables]",
        Errno::ENOSPC | Errno::E2BIG => "\nhelp: a table is full; `portcullis show -i IF status` tells which",
        Errno::EINVAL | Errno::EOPNOTSUPP => {
            "\nhelp: this kernel or driver lacks the feature; `portcullis show -i IF status` and `dmesg | tail` say more"
        }
        _ => "",
    }
}

/// As [`remedy`], of what is pinned: a bpffs has no size, its inodes are the kernel's memory.
fn remedy_for_pins(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM => {
            "\nhelp: the kernel has no room for another pin. Make some: `free -m` shows the machine's memory, \
             `systemd-cgls` and MemoryMax= a unit's or container's; `find /sys/fs/bpf | wc -l` counts what is pinned"
        }
        errno => remedy(errno),
    }
}

impl GateError {
    /// No gate is pinned by this name.
    pub(super) fn no_such_pins(name: &str) -> GateError {
        GateError::NoSuchPins { name: name.escape_default().to_string() }
    }

    /// The object, or what is pinned, is not of this version.
    pub(super) fn foreign_object(why: String) -> GateError {
        GateError::Other { what: "the object file is not ours".to_owned(), why }
    }

    /// There is no such server, and perhaps one of the `known` names is meant.
    pub(super) fn no_server<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> GateError {
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
    pub fn not_pinned(what: String, error: &std::io::Error) -> GateError {
        match GateError::from_io(what, error) {
            GateError::Kernelside { what, errno } => GateError::NotPinned { what, errno },
            other => other,
        }
    }

    /// An error of a file system, with what was being done.
    pub fn from_io(what: String, error: &std::io::Error) -> GateError {
        match error.raw_os_error() {
            Some(number) => GateError::Kernelside { what, errno: Errno::from_raw(number) },
            None => GateError::Other { what, why: error.to_string() },
        }
    }

    /// An error of libbpf-rs, with what was being done.
    pub fn from_libbpf(what: impl Into<String>, error: &libbpf_rs::Error) -> GateError {
        let what = what.into();
        match errno_of(error) {
            Some(errno) => GateError::Kernelside { what, errno },
            None => GateError::Other { what, why: format!("{error:#}") },
        }
    }
}

fn errno_of(error: &libbpf_rs::Error) -> Option<Errno> {
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
