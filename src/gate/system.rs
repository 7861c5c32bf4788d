//! The calls that libbpf-rs does not wrap, as safe functions.

use std::ffi::CString;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_rs::libbpf_sys as sys;
use nix::errno::Errno;

use super::fault;
use crate::abi::__sk_buff;

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, on a socket buffer: slower, and after its allocation.
    Generic,
}

fn check(result: i32) -> Result<i32, Errno> {
    // libbpf 1.x returns the negated errno
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result) }
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> Result<OwnedFd, Errno> {
    let path = c_path(path)?;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { sys::bpf_obj_get(path.as_ptr()) }).map(own)
}

/// Pins a map, a program or a link at `path`.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let path = c_path(path)?;
    fault::inode_point()?;
    // SAFETY: the descriptor is borrowed and the path NUL-terminated. Both outlive the call.
    check(unsafe { sys::bpf_obj_pin(fd.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// What the peer of a local socket has not read yet: more than its bytes, and 0 once it has read all. No eBPF, but here
/// are the calls that nothing wraps.
///
/// # Errors
/// When the kernel does not say.
pub fn count_unread(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, and the kernel writes one int to where `count` is.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: sys::bpf_attach_type,
    flags: u32,
) -> Result<OwnedFd, Errno> {
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        flags,
        ..Default::default()
    };
    let ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    fault::point();
    // SAFETY: the options outlive the call and carry their own size.
    check(unsafe { sys::bpf_link_create(program.as_raw_fd(), ifindex, attach_type, &raw const options) })
        .map(own)
}

/// Attaches an XDP program by a link. `EBUSY`: another program is there.
pub(super) fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> Result<OwnedFd, Errno> {
    let flags = match mode {
        XdpMode::Native => sys::XDP_FLAGS_DRV_MODE,
        XdpMode::Generic => sys::XDP_FLAGS_SKB_MODE,
    };
    create_link(program, ifindex, sys::BPF_XDP, flags)
}

/// Attaches a program at TCX egress by a link (Linux 6.6 and newer).
pub(super) fn link_tcx_egress(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd, Errno> {
    if !fault::is_tcx() {
        return Err(Errno::EINVAL);
    }
    // first, so that no other program ends the chain before it
    create_link(program, ifindex, sys::BPF_TCX_EGRESS, sys::BPF_F_BEFORE)
}

/// Replaces a link's program. No packet passes between the two.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    fault::point();
    // SAFETY: both descriptors are borrowed for the call, and there are no options.
    check(unsafe { sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) }).map(drop)
}

/// Detaches a link's program from its interface now. Unpinning alone leaves that to a worker of the
/// kernel.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> Result<(), Errno> {
    fault::point();
    // SAFETY: the descriptor is borrowed for the call.
    check(unsafe { sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// The properties of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkFacts {
    pub program_id: u32,
    /// Index of the interface. 0 once it is gone.
    pub ifindex: u32,
}

/// Asks a link of type XDP or TCX.
pub(super) fn link_facts(link: BorrowedFd<'_>) -> Result<LinkFacts, Errno> {
    let mut info = sys::bpf_link_info::default();
    let mut size = size_of::<sys::bpf_link_info>() as u32;
    // SAFETY: `info` is as large as `size` says and is written by the kernel only.
    check(unsafe { sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut size) })?;
    // SAFETY: both members of the union begin with the interface's index
    // (struct bpf_link_info of linux/bpf.h), and any bits are a u32.
    let ifindex = unsafe {
        if info.type_ == sys::BPF_LINK_TYPE_TCX {
            info.__bindgen_anon_1.tcx.ifindex
        } else {
            info.__bindgen_anon_1.xdp.ifindex
        }
    };
    Ok(LinkFacts { program_id: info.prog_id, ifindex })
}

/// The id of a program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> Result<u32, Errno> {
    program_info(program).map(|info| info.id)
}

/// The beginning of a program's name, of which the kernel keeps 15 bytes. `None`: there is no such program any
/// more.
pub(super) fn name_program(id: u32) -> Result<Option<String>, Errno> {
    // SAFETY: no pointers.
    let program = match check(unsafe { sys::bpf_prog_get_fd_by_id(id) }) {
        Ok(fd) => own(fd),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let name = program_info(program.as_fd())?.name;
    let bytes: Vec<u8> = name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The XDP links that hold this program, wherever they are pinned or held.
pub(super) fn find_links_of(program_id: u32) -> Result<Vec<OwnedFd>, Errno> {
    let mut links = Vec::new();
    let mut id = 0;
    loop {
        // SAFETY: `id` outlives the call and is written by libbpf only.
        match check(unsafe { sys::bpf_link_get_next_id(id, &raw mut id) }) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Ok(links),
            Err(errno) => return Err(errno),
        }
        // SAFETY: no pointers.
        match check(unsafe { sys::bpf_link_get_fd_by_id(id) }).map(own) {
            Ok(link) if link_facts(link.as_fd())?.program_id == program_id => links.push(link),
            // it has gone meanwhile
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// How many instructions the verifier processed to accept a program.
pub(super) fn verified_instructions(program: BorrowedFd<'_>) -> Result<u32, Errno> {
    program_info(program).map(|info| info.verified_insns)
}

fn program_info(program: BorrowedFd<'_>) -> Result<sys::bpf_prog_info, Errno> {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: `info` is as large as `size` says, and its zeroed pointers ask for no arrays.
    check(unsafe { sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) })?;
    Ok(info)
}

/// Which XDP program is on the interface, and how.
pub(super) fn query_xdp(ifindex: u32) -> Result<Option<(u32, XdpMode)>, Errno> {
    let mut options = sys::bpf_xdp_query_opts {
        sz: size_of::<sys::bpf_xdp_query_opts>() as sys::size_t,
        ..Default::default()
    };
    let ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    // SAFETY: the options outlive the call and carry their own size.
    check(unsafe { sys::bpf_xdp_query(ifindex, 0, &raw mut options) })?;
    if options.drv_prog_id != 0 {
        Ok(Some((options.drv_prog_id, XdpMode::Native)))
    } else if options.skb_prog_id != 0 {
        Ok(Some((options.skb_prog_id, XdpMode::Generic)))
    } else {
        Ok(None)
    }
}

/// The two sides of an interface that TCX has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcxSide {
    Ingress,
    Egress,
}

/// The ids of the programs at one side of an interface. Empty as well: this kernel has no TCX.
pub(super) fn list_tcx(ifindex: u32, side: TcxSide) -> Vec<u32> {
    const MOST: usize = 64;
    let Ok(target) = i32::try_from(ifindex) else {
        return Vec::new();
    };
    let attach_type = match side {
        TcxSide::Ingress => sys::BPF_TCX_INGRESS,
        TcxSide::Egress => sys::BPF_TCX_EGRESS,
    };
    let mut ids = [0_u32; MOST];
    let mut options = sys::bpf_prog_query_opts {
        sz: size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = MOST as u32;
    // SAFETY: the options and the ids outlive the call, and the options carry the size of both.
    if check(unsafe { sys::bpf_prog_query_opts(target, attach_type, &raw mut options) }).is_err() {
        return Vec::new();
    }
    // SAFETY: both members of the union are the same integer.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    ids.into_iter().take(count.min(MOST)).collect()
}

/// Whether the kernel keeps the clock with a source of time (adjtimex(2)). `None`: it does not say.
pub(super) fn is_clock_synchronised() -> Option<bool> {
    // SAFETY: its members are integers, for which all zero is valid. Zero modes ask, and set nothing.
    let mut clock: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes to `clock`, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    (state >= 0).then_some(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

/// Whether the NIC takes VLAN tags out of the frames that it receives. `None`: it can't be asked.
pub(super) fn strips_vlan_tags(interface: &str) -> Option<bool> {
    // struct ethtool_value and its numbers, of linux/ethtool.h
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETH_FLAG_RXVLAN: u32 = 1 << 8;
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", 0)))
        .ok()?;
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: its members are integers and a union of integers and pointers, for which all zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(room)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    #[cfg_attr(target_env = "gnu", expect(trivial_numeric_casts, reason = "musl wants an int"))]
    let command = libc::SIOCETHTOOL as _;
    // SAFETY: the kernel reads and writes `request`, and `value` behind its pointer, which is as large as
    // this command says. Both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), command, &raw mut request) };
    (result == 0).then_some(value.data & ETH_FLAG_RXVLAN != 0)
}

/// The result of a test run.
#[derive(Clone, Debug)]
pub struct TestRun {
    /// The program's return value: `enum xdp_action`, or a verdict of TC.
    pub action: u32,
    /// The frame as the program left it.
    pub data: Vec<u8>,
    /// How long it took: nanoseconds, mean of the repeats.
    pub duration_ns: u32,
}

/// Runs a program on a frame. With `ifindex`, an XDP program sees the frame come from that interface.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    data: &[u8],
    repeat: u32,
    ifindex: Option<u32>,
) -> Result<TestRun, Errno> {
    let mut context = sys::xdp_md {
        data_end: u32::try_from(data.len()).map_err(|_| Errno::EMSGSIZE)?,
        ingress_ifindex: ifindex.unwrap_or(0),
        ..Default::default()
    };
    test_run_in(program, data, repeat, ifindex.map(|_| &mut context))
}

/// Runs a program on a frame once, and returns its return value. The frame does not come back.
pub(super) fn test_run_one_way(program: BorrowedFd<'_>, data: &[u8]) -> Result<u32, Errno> {
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: data.as_ptr().cast(),
        data_size_in: u32::try_from(data.len()).map_err(|_| Errno::EMSGSIZE)?,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the one pointer is to a buffer of the size given with it, and both outlive the call.
    check(unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) })?;
    Ok(options.retval)
}

/// Runs a program of TC on a frame that came in by the interface of this index, and goes out by the loopback
/// device, whose index is 1.
pub(super) fn test_run_from(
    program: BorrowedFd<'_>,
    data: &[u8],
    ingress_ifindex: u32,
    gso_size: u32,
) -> Result<TestRun, Errno> {
    let mut context = [0_u8; size_of::<__sk_buff>()];
    let fields = [
        (mem::offset_of!(__sk_buff, ingress_ifindex), ingress_ifindex),
        (mem::offset_of!(__sk_buff, gso_size), gso_size),
    ];
    for (at, value) in fields {
        if let Some(field) = context.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *field = value.to_ne_bytes();
        }
    }
    test_run_in(program, data, 1, Some(&mut context))
}

/// `context`: what a program of this type sees beside the frame.
fn test_run_in<C>(
    program: BorrowedFd<'_>,
    data: &[u8],
    repeat: u32,
    context: Option<&mut C>,
) -> Result<TestRun, Errno> {
    let mut out = vec![0_u8; data.len() + 512];
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: data.as_ptr().cast(),
        data_size_in: data.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        repeat: i32::try_from(repeat).map_err(|_| Errno::EINVAL)?,
        ..Default::default()
    };
    if let Some(context) = context {
        options.ctx_in = std::ptr::from_mut(context).cast();
        options.ctx_size_in = size_of::<C>() as u32;
    }
    // SAFETY: every pointer is to a buffer of the size given with it, and all outlive the call.
    check(unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) })?;
    out.truncate(options.data_size_out as usize);
    Ok(TestRun { action: options.retval, data: out, duration_ns: options.duration })
}

/// The classic hook at egress, for kernels before 6.6. No link holds the program: the kernel keeps it
/// until it is removed.
pub(super) mod clsact {
    use std::os::fd::BorrowedFd;

    use libbpf_rs::{TC_EGRESS, TcHook, TcHookBuilder};
    use nix::errno::Errno;

    use crate::gate::error::errno_of;
    use crate::gate::fault;

    /// They tell our filter from others: nobody picks them by chance.
    pub(in crate::gate) const HANDLE: u32 = 0x706f;
    const PRIORITY: u32 = 0x7063;

    fn hook(program: BorrowedFd<'_>, ifindex: u32) -> Result<TcHook, Errno> {
        let ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
        Ok(TcHookBuilder::new(program)
            .ifindex(ifindex)
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(TC_EGRESS))
    }

    /// Attaches, or replaces what is at our handle in one step.
    pub(in crate::gate) fn attach(program: BorrowedFd<'_>, ifindex: u32) -> Result<(), libbpf_rs::Error> {
        let mut hook =
            hook(program, ifindex).map_err(|errno| libbpf_rs::Error::from_raw_os_error(errno as i32))?;
        fault::point();
        hook.create()?;
        fault::point();
        hook.attach()?;
        Ok(())
    }

    /// The id of the program at our handle.
    pub(in crate::gate) fn query(program: BorrowedFd<'_>, ifindex: u32) -> Result<u32, Errno> {
        match hook(program, ifindex)?.query() {
            Ok(0) => Err(Errno::ENOENT),
            Ok(id) => Ok(id),
            Err(error) => Err(errno_of(&error).unwrap_or(Errno::ENOENT)),
        }
    }

    /// Removes it. The qdisc stays, because it may have other users.
    pub(in crate::gate) fn detach(program: BorrowedFd<'_>, ifindex: u32) {
        if let Ok(mut hook) = hook(program, ifindex)
            && hook.query().is_ok_and(|id| id != 0)
        {
            fault::point();
            let _ = hook.detach();
        }
    }
}
