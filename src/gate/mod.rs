//! A gate: its maps, programs and links. This room alone touches libbpf.

mod apply;
mod attach;
mod audited;
mod bloom;
mod caveats;
mod confirmed;
mod contacts;
mod counters;
mod detach;
mod error;
mod explain;
mod fallback;
mod flows;
mod install;
mod ledger;
mod link;
mod links;
mod live_policy;
mod lock;
mod mapped_array;
mod maps;
mod names;
mod namespaces;
mod neighbour_list;
mod neighbours;
mod netlink;
mod nic;
mod open;
mod orphans;
mod outer_map;
mod own_links;
mod pickup;
mod pinned_links;
mod pins;
mod place;
mod private;
mod program;
mod quarantine;
mod rebuild;
mod requirements;
mod revoke;
mod routes;
mod samples;
mod sizes;
mod status;
mod sweep;
mod system;
mod token_buckets;
mod typed_map;
mod verdict_cache;

// every file of this room asks for them by this name
use crate::{fault, state_file};

pub use attach::Attachment;
pub use audited::read_mark;
pub use caveats::find_caveats;
pub use confirmed::confirm_policy;
pub use contacts::ContactReader;
pub use counters::ProgramStatistics;
pub use detach::{Detached, detach, detach_by_name, is_pinned};
pub use error::GateError;
pub use explain::{Answer, Verdict};
pub use fallback::{FallBack, FallBackFailed};
pub use flows::{FlowRow, FlowTable};
pub use link::{AttachMode, Hook};
pub use lock::Lock;
pub use mapped_array::MappedArray;
pub use maps::{Maps, TableUsage};
pub use neighbours::{Sender, Whereabouts};
pub use nic::find_on_link;
pub use open::Gate;
pub use orphans::{GateState, PinnedGate, hint_at_orphans, list_gates};
pub use outer_map::OuterMap;
pub use place::GatePlace;
pub use private::{PrivateGate, PrivateSizes};
pub use program::{OBJECT, Programs, route_messages};
pub use quarantine::{
    CarriedQuarantine, QuarantinedAddress, Released, SavedRelease, Target, list_carried,
    list_saved_quarantines, release_saved,
};
pub use requirements::check_requirements;
pub use samples::{Consumer, Received};
pub use status::{DropKey, DropSums, GateStatus, PolicyFacts};
pub use system::TestRun;
pub use typed_map::TypedMap;
