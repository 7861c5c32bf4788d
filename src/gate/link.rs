//! The links that hold a gate's programs at its interface: the filter's, and the tracker's.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use serde::Serialize;

use super::Gate;
use super::error::{GateError, is_shortage};
use super::fault;
use super::pins::{LINK_FILTER, LINK_TRACK, pin};
use super::place::GatePlace;
use super::system::{self, XdpMode, clsact};

/// How the filter is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack: the driver has no XDP of its own.
    Generic,
    /// Not at all: the interface is gone, or somebody removed the program.
    #[default]
    No,
}

impl AttachMode {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
            AttachMode::No => "no",
        }
    }
}

impl From<XdpMode> for AttachMode {
    fn from(mode: XdpMode) -> AttachMode {
        match mode {
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        }
    }
}

/// Where the tracker is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// TCX, of Linux 6.6 and newer.
    Tcx,
    /// The classic hook of older kernels.
    Clsact,
    /// Nowhere.
    #[default]
    No,
}

impl Hook {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
            Hook::No => "no",
        }
    }
}

impl Gate {
    /// How the filter is attached now, asked of the kernel.
    ///
    /// # Errors
    /// When that can't be found out: a lack of descriptors is no sign of a filter that is gone.
    pub fn find_mode(&self, place: &GatePlace) -> Result<AttachMode, GateError> {
        // the pinned program, not an opened one: this gate may have been opened before an attach
        let Some(link) = open_live_link(place, LINK_FILTER)? else {
            return Ok(AttachMode::No);
        };
        match unless_short(system::link_facts(link.as_fd()))? {
            Some(facts) => mode_of_program(place, facts.program_id),
            None => Ok(AttachMode::No),
        }
    }

    /// Where the tracker is attached now, asked of the kernel.
    ///
    /// # Errors
    /// As [`Gate::find_mode`].
    pub fn find_tracker(&self, place: &GatePlace) -> Result<Hook, GateError> {
        if open_live_link(place, LINK_TRACK)?.is_some() {
            return Ok(Hook::Tcx);
        }
        match unless_short(clsact::query(self.programs.track.as_fd(), place.ifindex))? {
            Some(_) => Ok(Hook::Clsact),
            None => Ok(Hook::No),
        }
    }

    /// Attaches the filter, or replaces its program without a gap. A fall-back to generic mode is added
    /// to `warnings`.
    pub(super) fn attach_filter(
        &self,
        place: &GatePlace,
        pickup_s: u32,
        warnings: &mut Vec<String>,
    ) -> Result<AttachMode, GateError> {
        let program = self.programs.filter.as_fd();
        if let Some(link) = open_live_link(place, LINK_FILTER)? {
            system::update_link(link.as_fd(), program).map_err(|errno| GateError::Kernelside {
                what: format!("could not replace the program on {}", place.interface),
                errno,
            })?;
            return mode_of_program(place, program_id(program)?);
        }
        let path = place.links().join(LINK_FILTER);
        // a link whose interface is gone holds nothing but its name
        fault::point();
        let _ = fs::remove_file(&path);
        self.begin_pickup(pickup_s)?;
        let (link, mode) = match system::link_xdp(program, place.ifindex, XdpMode::Native) {
            Ok(link) => (link, XdpMode::Native),
            Err(errno) if is_taken(errno) => return Err(place.other_program()),
            Err(native) => {
                let link = system::link_xdp(program, place.ifindex, XdpMode::Generic);
                let link = link.map_err(|errno| match is_taken(errno) {
                    true => place.other_program(),
                    false => GateError::Kernelside {
                        what: format!("could not attach to {}", place.interface),
                        errno,
                    },
                })?;
                warnings.push(format!(
                    "{} has no native XDP ({}): the gate runs in generic mode, which is slower and sees a packet \
                     only after the kernel has made a buffer of it",
                    place.interface,
                    why_not_native(native)
                ));
                (link, XdpMode::Generic)
            }
        };
        pin(link.as_fd(), &path)?;
        Ok(mode.into())
    }

    /// Attaches the tracker, or replaces its program without a gap.
    pub(super) fn attach_tracker(&self, place: &GatePlace) -> Result<Hook, GateError> {
        let program = self.programs.track.as_fd();
        if let Some(link) = open_live_link(place, LINK_TRACK)? {
            system::update_link(link.as_fd(), program).map_err(|errno| GateError::Kernelside {
                what: format!("could not replace the tracker on {}", place.interface),
                errno,
            })?;
            return Ok(Hook::Tcx);
        }
        let path = place.links().join(LINK_TRACK);
        fault::point();
        let _ = fs::remove_file(&path);
        match system::link_tcx_egress(program, place.ifindex) {
            Ok(link) => {
                pin(link.as_fd(), &path)?;
                Ok(Hook::Tcx)
            }
            // before Linux 6.6
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                let what = "could not attach the tracker to the egress of";
                clsact::attach(program, place.ifindex).map_err(|error| {
                    GateError::from_libbpf(
                        format!("{what} {} (neither TCX nor clsact)", place.interface),
                        &error,
                    )
                })?;
                Ok(Hook::Clsact)
            }
            Err(errno) => Err(GateError::Kernelside {
                what: format!("could not attach the tracker to {}", place.interface),
                errno,
            }),
        }
    }

    /// Detaches the tracker, if it is attached.
    pub(super) fn detach_tracker(&self, place: &GatePlace) -> Result<(), GateError> {
        let path = place.links().join(LINK_TRACK);
        fault::point();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(GateError::not_pinned(format!("could not remove {}", path.display()), &error));
            }
            _ => {}
        }
        clsact::detach(self.programs.track.as_fd(), place.ifindex);
        Ok(())
    }
}

/// Refuses an interface that has an XDP program of somebody else.
pub(super) fn refuse_other_program(place: &GatePlace) -> Result<(), GateError> {
    match unless_short(system::query_xdp(place.ifindex))? {
        Some(Some(_)) => Err(place.other_program()),
        _ => Ok(()),
    }
}

/// The index of the interface on which the filter of a gate is, if it is in this network namespace. The
/// index that the link says is not enough: each namespace counts for itself.
///
/// # Errors
/// When the kernel can't say for a lack of something.
pub(super) fn find_filter_here(place: &GatePlace) -> Result<Option<u32>, GateError> {
    let Some(link) = unless_short(system::open_pin(&place.links().join(LINK_FILTER)))? else {
        return Ok(None);
    };
    let Some(facts) = unless_short(system::link_facts(link.as_fd()))? else { return Ok(None) };
    match unless_short(system::query_xdp(facts.ifindex))? {
        Some(Some((program, _))) if program == facts.program_id => Ok(Some(facts.ifindex)),
        _ => Ok(None),
    }
}

/// Whether a filter of ours is attached, whatever its version.
///
/// # Errors
/// When the kernel can't say for a lack of something.
pub(super) fn is_filter_attached(place: &GatePlace) -> Result<bool, GateError> {
    let Some(link) = open_live_link(place, LINK_FILTER)? else { return Ok(false) };
    let Some(facts) = unless_short(system::link_facts(link.as_fd()))? else { return Ok(false) };
    Ok(mode_of_program(place, facts.program_id)? != AttachMode::No)
}

/// The pinned link, unless its interface is gone.
pub(super) fn open_live_link(place: &GatePlace, name: &str) -> Result<Option<OwnedFd>, GateError> {
    let Some(link) = unless_short(system::open_pin(&place.links().join(name)))? else {
        return Ok(None);
    };
    match unless_short(system::link_facts(link.as_fd()))? {
        Some(facts) if facts.ifindex != 0 && facts.ifindex == place.ifindex => Ok(Some(link)),
        _ => Ok(None),
    }
}

pub(super) fn mode_of_program(place: &GatePlace, program_id: u32) -> Result<AttachMode, GateError> {
    match unless_short(system::query_xdp(place.ifindex))? {
        Some(Some((id, mode))) if id == program_id => Ok(mode.into()),
        _ => Ok(AttachMode::No),
    }
}

/// `None`: what was asked for is not there. A lack of descriptors, memory or rights says nothing about that.
pub(super) fn unless_short<T>(answer: Result<T, Errno>) -> Result<Option<T>, GateError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(errno) if is_shortage(errno) => Err(GateError::Kernelside {
            what: "could not find out how the gate is attached".to_owned(),
            errno,
        }),
        Err(_) => Ok(None),
    }
}

/// Whether the kernel refused because another program is there.
fn is_taken(errno: Errno) -> bool {
    matches!(errno, Errno::EBUSY | Errno::EEXIST)
}

/// The reason behind an errno, when the kernel refuses a program in the driver.
fn why_not_native(errno: Errno) -> &'static str {
    match errno {
        Errno::EOPNOTSUPP => "its driver can't, or not as it is set now: `dmesg | tail` may say more",
        Errno::ENOMEM => "no memory for its queues",
        _ => {
            "its driver refuses as it is set now, by its MTU, queues or offloads: `dmesg | tail` may say more"
        }
    }
}

pub(super) fn program_id(program: BorrowedFd<'_>) -> Result<u32, GateError> {
    system::program_id(program)
        .map_err(|errno| GateError::Kernelside { what: "could not ask for a program's id".to_owned(), errno })
}
