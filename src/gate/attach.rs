//! Puts the gate down in front of the servers.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::caveats::find_caveats;
use super::detach::{check_writable, detach, remove_empty_parent, remove_tree};
use super::error::GateError;
use super::fault;
use super::place::{GatePlace, ensure_bpffs};
use super::program::{OBJECT, load, pin};
use super::system::{self, XdpMode, clsact};
use super::{Gate, check_complete, check_layout, check_privilege};
use crate::abi::{settings_flag, state};
use crate::compile::Tables;
use crate::policy::Policy;

/// For so long the tracker listens before the first filter judges: longer than a name server or
/// a host that is pinged usually takes to answer. Datagrams are not taken over otherwise.
const QUESTION: Duration = Duration::from_secs(1);

/// How the filter is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack: the driver has no XDP of its own.
    Generic,
    /// Not at all: the interface is gone, or somebody took the program off.
    No,
}

impl AttachMode {
    pub const fn name(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
            AttachMode::No => "no",
        }
    }
}

/// Where the tracker sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Tcx,
    Clsact,
    No,
}

impl Hook {
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
            Hook::No => "no",
        }
    }
}

/// What putting the gate down came to.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub mode: AttachMode,
    pub hook: Hook,
    pub generation: u64,
    /// The gate was there already, and its programs were replaced.
    pub replaced: bool,
    /// What the user should know: a fall-back, a size that did not take effect.
    pub warnings: Vec<String>,
}

pub(super) fn link_path(place: &GatePlace, name: &str) -> PathBuf {
    place.pins.join("links").join(name)
}

/// Names of the pins of links.
pub(super) const LINK_FILTER: &str = "filter";
const LINK_TRACK: &str = "track";
pub(super) const LINKS: [&str; 2] = [LINK_FILTER, LINK_TRACK];

impl Gate {
    /// Puts the gate down at `place` with `policy`, or replaces the programs of
    /// one that is there, without a gap. The caller holds the lock.
    pub fn attach(
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<(Gate, Attachment), GateError> {
        check_privilege()?;
        ensure_bpffs()?;
        place.note_detach_order(false);
        let maps = place.pins.join("maps");
        let replaced = maps.exists();
        let mut warnings = Vec::new();
        let gate = if replaced {
            check_layout(place, &maps)?;
            check_complete(place, &maps)?;
            let gate = load(OBJECT, &policy.tables, Some(&maps))?;
            warnings.extend(gate.sizes_not_in_force(policy));
            gate
        } else {
            refuse_other_program(place)?;
            let gate = load(OBJECT, &policy.tables, None)?;
            gate.describe_maps()?;
            gate
        };
        let generation = if replaced {
            gate.replace_programs(place, policy, tables)?
        } else {
            let generation = gate.install(policy, tables)?;
            gate.pin_all(place)?;
            generation
        };

        // The tracker first: a flow must not begin between the two unseen. Nor may the answers be
        // lost to what is being asked just now, when flows already open are to be taken over.
        let attached = gate
            .activate(place, replaced, tables.settings.is_strict())
            .inspect(|_| {
                if !replaced && tables.settings.is_strict() {
                    let whole = Duration::from_secs(u64::from(tables.settings.pickup_s));
                    std::thread::sleep(whole.min(QUESTION));
                }
            })
            .and_then(|hook| Ok((hook, gate.attach_filter(place, tables.settings.pickup_s, &mut warnings)?)));
        let (hook, mode) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                if !replaced {
                    let _ = detach(place);
                    return Err(error);
                }
                let what_holds = match gate.find_mode(place) {
                    AttachMode::No => format!("the filter is not on {}: NOTHING IS DROPPED", place.interface),
                    _ => "the programs of before are in part still in place, and go by it".to_owned(),
                };
                return Err(GateError::HalfDone { generation, state: what_holds, error: Box::new(error) });
            }
        };
        warnings.extend(find_caveats(place, policy));
        Ok((gate, Attachment { mode, hook, generation, replaced, warnings }))
    }

    /// Makes `policy` the live one of a gate that is there, for other programs. What may be refused comes
    /// before the policy takes effect, and is undone when it is.
    fn replace_programs(
        &self,
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> Result<u64, GateError> {
        let programs = place.pins.join("programs");
        self.programs.stage_pins(&programs)?;
        let had_tracker = self.find_tracker(place) != Hook::No;
        // A gate that tracked by service has recorded no flow: as in `apply`.
        let begun = match tables.settings.is_strict() && !had_tracker {
            true => self.begin_tracking(place, tables.settings.pickup_s),
            false => Ok(()),
        };
        begun.and_then(|()| self.install(policy, tables)).inspect_err(|_| {
            self.programs.unstage_pins(&programs);
            self.rollback_tracker(place, had_tracker);
        })
    }

    /// The programs of a gate that is replaced, and the tracker of any.
    fn activate(&self, place: &GatePlace, replaced: bool, strict: bool) -> Result<Hook, GateError> {
        if replaced {
            self.programs.activate(&place.pins.join("programs"))?;
        }
        self.set_tracker(place, strict)
    }

    /// Makes `policy` the live one of a gate that is down, tracker included.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn apply(&self, place: &GatePlace, policy: &Policy, tables: &Tables) -> Result<u64, GateError> {
        let had_tracker = self.find_tracker(place) != Hook::No;
        let ready = match (tables.settings.is_strict(), had_tracker) {
            (true, false) => self.begin_tracking(place, tables.settings.pickup_s),
            (true, true) => self.set_tracker(place, true).map(drop),
            (false, true) => check_writable(&place.pins.join("links")),
            (false, false) => Ok(()),
        };
        let installed = ready.and_then(|()| self.install(policy, tables));
        let generation = installed.inspect_err(|_| self.rollback_tracker(place, had_tracker))?;
        if !tables.settings.is_strict()
            && let Err(error) = self.set_tracker(place, false)
        {
            // it records flows that nobody asks for; `show status` says that it is there
            log::warn!("the tracker stays on {}: {error}", place.interface);
        }
        Ok(generation)
    }

    fn begin_tracking(&self, place: &GatePlace, pickup_s: u32) -> Result<(), GateError> {
        self.set_tracker(place, true)?;
        self.begin_pickup(pickup_s)
    }

    /// EventFilter off a tracker that was put there for a policy that did not come.
    fn rollback_tracker(&self, place: &GatePlace, had_tracker: bool) {
        if !had_tracker {
            let _ = self.set_tracker(place, false);
        }
    }

    /// Attaches to an interface that was deleted and made again. The caller holds the lock.
    pub fn reattach(&self, place: &GatePlace) -> Result<(AttachMode, Vec<String>), GateError> {
        let (strict, pickup_s) = self.live_settings()?.map_or((false, 0), |settings| {
            (settings.flags & settings_flag::SETTINGS_STRICT.0 != 0, settings.pickup_s)
        });
        let mut warnings = Vec::new();
        self.set_tracker(place, strict)?;
        let mode = self.attach_filter(place, pickup_s, &mut warnings)?;
        Ok((mode, warnings))
    }

    /// Flows already open are taken over from now on for this long.
    fn begin_pickup(&self, pickup_s: u32) -> Result<(), GateError> {
        // 0 and not now: the programs' coarse clock lags behind this one
        let until = if pickup_s == 0 { 0 } else { now_ns() + u64::from(pickup_s) * 1_000_000_000 };
        self.write_state(state::STATE_PICKUP_UNTIL_NS, until)
    }

    fn pin_all(&self, place: &GatePlace) -> Result<(), GateError> {
        let staging = place.staging();
        // what an attach that was killed has left: nothing refers to it
        remove_tree(&staging)?;
        self.pin_in(&staging, &place.pins).inspect_err(|_| {
            let _ = remove_tree(&staging);
            remove_empty_parent(place);
        })
    }

    fn pin_in(&self, staging: &Path, pins: &Path) -> Result<(), GateError> {
        let made = |error: std::io::Error| {
            GateError::not_pinned(format!("could not make the folder {}", staging.display()), &error)
        };
        for folder in ["maps", "programs", "links"] {
            fault::inode_point().map_err(|errno| made(errno.into()))?;
            fs::create_dir_all(staging.join(folder)).map_err(made)?;
        }
        for (name, map) in self.maps.handles() {
            pin(map.as_fd(), &staging.join("maps").join(name))?;
        }
        let programs = staging.join("programs");
        self.programs.stage_pins(&programs)?;
        self.programs.activate(&programs)?;
        fault::point();
        fs::rename(staging, pins).map_err(made)
    }

    fn attach_filter(
        &self,
        place: &GatePlace,
        pickup_s: u32,
        warnings: &mut Vec<String>,
    ) -> Result<AttachMode, GateError> {
        let path = link_path(place, LINK_FILTER);
        let program = self.programs.filter.as_fd();
        if let Some(link) = open_live_link(place, &path) {
            system::update_link(link.as_fd(), program).map_err(|errno| GateError::Kernelside {
                what: format!("could not replace the program on {}", place.interface),
                errno,
            })?;
            return Ok(filter_mode(place, program_id(program)?));
        }
        // a link whose interface is gone holds nothing but its name
        fault::point();
        let _ = fs::remove_file(&path);
        self.begin_pickup(pickup_s)?;
        let (link, mode) = match system::link_xdp(program, place.ifindex, XdpMode::Native) {
            Ok(link) => (link, AttachMode::Native),
            Err(Errno::EBUSY | Errno::EEXIST) => {
                return Err(GateError::OtherProgram { interface: place.interface.clone() });
            }
            Err(native) => {
                let link =
                    system::link_xdp(program, place.ifindex, XdpMode::Generic).map_err(
                        |errno| match errno {
                            Errno::EBUSY | Errno::EEXIST => {
                                GateError::OtherProgram { interface: place.interface.clone() }
                            }
                            errno => GateError::Kernelside {
                                what: format!("could not attach to {}", place.interface),
                                errno,
                            },
                        },
                    )?;
                warnings.push(format!(
                    "{} has no native XDP ({}): the gate runs in generic mode, which is \
                     slower and comes after the kernel has made a buffer of the packet",
                    place.interface,
                    why_not_native(native)
                ));
                (link, AttachMode::Generic)
            }
        };
        pin(link.as_fd(), &path)?;
        Ok(mode)
    }

    /// Attaches the tracker, replaces its program, or takes it off.
    fn set_tracker(&self, place: &GatePlace, wanted: bool) -> Result<Hook, GateError> {
        let path = link_path(place, LINK_TRACK);
        let program = self.programs.track.as_fd();
        if !wanted {
            fault::point();
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(GateError::not_pinned(
                        format!("could not remove {}", path.display()),
                        &error,
                    ));
                }
                _ => {}
            }
            clsact::detach(program, place.ifindex);
            return Ok(Hook::No);
        }
        if let Some(link) = open_live_link(place, &path) {
            system::update_link(link.as_fd(), program).map_err(|errno| GateError::Kernelside {
                what: format!("could not replace the tracker on {}", place.interface),
                errno,
            })?;
            return Ok(Hook::Tcx);
        }
        fault::point();
        let _ = fs::remove_file(&path);
        match system::link_tcx_egress(program, place.ifindex) {
            Ok(link) => {
                pin(link.as_fd(), &path)?;
                Ok(Hook::Tcx)
            }
            // before Linux 6.6
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                clsact::attach(program, place.ifindex).map_err(|error| {
                    GateError::from_libbpf(
                        format!(
                            "could not attach the tracker to the egress of {} (neither TCX nor clsact)",
                            place.interface
                        ),
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

    /// How the filter is attached now, asked of the kernel.
    pub fn find_mode(&self, place: &GatePlace) -> AttachMode {
        // The pinned program, not a loaded one: this gate may be an older opening.
        match open_live_link(place, &link_path(place, LINK_FILTER))
            .and_then(|link| system::link_facts(link.as_fd()).ok())
        {
            Some(facts) => filter_mode(place, facts.program_id),
            None => AttachMode::No,
        }
    }

    /// Where the tracker is attached now, asked of the kernel.
    pub fn find_tracker(&self, place: &GatePlace) -> Hook {
        if open_live_link(place, &link_path(place, LINK_TRACK)).is_some() {
            return Hook::Tcx;
        }
        match clsact::query(self.programs.track.as_fd(), place.ifindex) {
            Some(_) => Hook::Clsact,
            None => Hook::No,
        }
    }

    /// Sizes that the policy asks for and the live tables don't have.
    pub fn sizes_not_in_force(&self, policy: &Policy) -> Vec<String> {
        let differing = self.maps.differing_sizes(&policy.tables).into_iter();
        let describe = |(key, wanted, live)| {
            format!(
                "[tables] {key} = {wanted} takes effect when the gate is put up anew \
                 (detach, attach); the live table has {live}"
            )
        };
        differing.map(describe).collect()
    }
}

/// The pinned link, unless its interface is gone.
fn open_live_link(place: &GatePlace, path: &Path) -> Option<OwnedFd> {
    let link = system::open_pin(path).ok()?;
    match system::link_facts(link.as_fd()) {
        Ok(facts) if facts.ifindex == place.ifindex => Some(link),
        _ => None,
    }
}

fn refuse_other_program(place: &GatePlace) -> Result<(), GateError> {
    match system::query_xdp(place.ifindex) {
        Ok(Some(_)) => Err(GateError::OtherProgram { interface: place.interface.clone() }),
        _ => Ok(()),
    }
}

fn filter_mode(place: &GatePlace, program_id: u32) -> AttachMode {
    match system::query_xdp(place.ifindex) {
        Ok(Some((id, mode))) if id == program_id => match mode {
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        },
        _ => AttachMode::No,
    }
}

/// What the kernel means when it refuses a program in the driver.
fn why_not_native(errno: Errno) -> &'static str {
    match errno {
        Errno::EOPNOTSUPP => "its driver can't, or not as it is set now: `dmesg | tail` may say more",
        Errno::ENOMEM => "no memory for its queues",
        _ => {
            "its driver refuses as it is set now, by its MTU, queues or offloads: `dmesg | tail` may say more"
        }
    }
}

fn program_id(program: std::os::fd::BorrowedFd<'_>) -> Result<u32, GateError> {
    system::program_id(program)
        .map_err(|errno| GateError::Kernelside { what: "could not ask for a program's id".to_owned(), errno })
}

/// CLOCK_MONOTONIC in nanoseconds: the programs' clock.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}
