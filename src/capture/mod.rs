//! Captures: files of pcap and pcapng, read as a stream of Ethernet frames with their times. Memory is bounded by the
//! largest packet, whatever the size of the file.
//!
//! | part | work |
//! | --- | --- |
//! | `reader` | one file: which format it is, where it is damaged |
//! | `pcap`, `pcapng` | the two formats: records and blocks |
//! | `merge` | several files, in the order of their times |
//! | `record`, `link_type` | one packet, and how its bytes are to be read |
//! | `link` | packets of other link types become Ethernet frames, as far as that can be known |
//! | `facts` | addresses, ports and flags of a frame |
//!
//! The formats are read here and not by a crate. pcap-file refuses packets that were cut by a snaplen, and takes every
//! time of pcapng for nanoseconds. pcap-parser can't tell a damaged block from one whose end is still to come.

mod facts;
mod link;
mod link_type;
mod merge;
mod pcap;
mod pcapng;
mod reader;
mod record;
#[cfg(test)]
mod tests;

pub use facts::{Facts, Position};
pub use link::{Frame, Source, Travel, Trouble};
pub use link_type::{LINK_TYPES, LinkType};
pub use merge::Merge;
pub use reader::{CaptureReader, Damage};
pub use record::{Packet, Timestamp};
