//! Link types: packets become Ethernet frames that the programs can read.
//!
//! Linux cooked frames have the sender's MAC, and for the destination only a packet type. Raw IP has no MAC at all.
//! Whoever judges such a frame has to know that: [`Frame::source_mac`] and [`Frame::has_destination_mac`] say it.

use super::facts::{Facts, Position};
use super::link_type::LinkType;
use super::record::{Packet, Timestamp};
use crate::net::frame::read_u16;
use crate::net::{UDP, ethertype};

/// A frame is cut to so many bytes, and its lengths are made to agree. Test runs of the tracker take no more than a
/// page, and offloads make frames of 64 KiB.
const MAX_FRAME_BYTES: usize = 3072;
const ETHERNET_BYTES: usize = 14;
/// In the place of a MAC that nobody knows.
const NO_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The least number that is an EtherType and no length of 802.3.
const LEAST_ETHERTYPE: u16 = 0x0600;
/// The protocol of cooked frames for 802.2.
const COOKED_LLC: u16 = 4;
const ARPHRD_NETLINK: u16 = 824;

/// Which way a frame went, as its link header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Travel {
    /// It does not say.
    Unknown,
    /// Into the machine that captured it.
    In,
    /// Out of that machine.
    Out,
}

/// Why a packet can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It has a link type that is not read.
    LinkType(u32),
    /// So little of it was captured that its headers are not whole.
    Cut,
    /// It is too short for its link header, or no packet of a network.
    NoFrame,
}

/// The interface of a frame: the file, its number in the file, and the index that cooked frames have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// The number of the file.
    pub file: u32,
    /// The number of the interface in the file.
    pub interface: u32,
    /// The index on the machine; 0: unknown.
    pub index: u32,
}

/// An Ethernet frame made of a packet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The frame. What was not captured is zeros.
    pub bytes: Vec<u8>,
    /// What it says of itself; `None`: it is no IP.
    pub facts: Option<Facts>,
    /// When it was captured.
    pub time_ns: Timestamp,
    /// Bytes on the wire.
    pub length: u32,
    /// Which way it went.
    pub travel: Travel,
    /// Where it was captured.
    pub source: Source,
    /// How the bytes of its packet were read.
    pub link: LinkType,
    /// The capture has other interfaces, on which the same packet may be seen again.
    pub has_siblings: bool,
    /// The sender's MAC; `None`: nobody knows.
    pub source_mac: Option<[u8; 6]>,
    /// Whether the receiver's MAC is in the frame.
    pub has_destination_mac: bool,
    /// Why it can't be read; then nothing else is filled in but the time.
    pub trouble: Option<Trouble>,
}

impl Default for Frame {
    fn default() -> Frame {
        Frame {
            bytes: Vec::with_capacity(2048),
            facts: None,
            time_ns: 0,
            length: 0,
            travel: Travel::Unknown,
            source: Source::default(),
            link: LinkType::Ethernet,
            has_siblings: false,
            source_mac: None,
            has_destination_mac: false,
            trouble: None,
        }
    }
}

impl Frame {
    /// Becomes the frame of a packet. `last_ns` is the time of a packet that has none of its own.
    pub(super) fn take(&mut self, packet: &Packet<'_>, file: u32, last_ns: Timestamp) {
        self.time_ns = packet.time_ns.unwrap_or(last_ns);
        self.length = packet.length;
        self.travel = Travel::Unknown;
        self.source = Source { file, interface: packet.interface, index: 0 };
        self.link = packet.link;
        self.has_siblings = packet.interfaces > 1;
        (self.facts, self.source_mac, self.has_destination_mac) = (None, None, false);
        self.bytes.clear();
        self.trouble = self.convert(packet).err();
    }

    fn convert(&mut self, packet: &Packet<'_>) -> Result<(), Trouble> {
        let data = packet.data;
        let removed = match packet.link {
            LinkType::Ethernet => {
                if data.len() < ETHERNET_BYTES {
                    return Err(Trouble::NoFrame);
                }
                self.bytes.extend_from_slice(data.get(..MAX_FRAME_BYTES).unwrap_or(data));
                self.source_mac = data.get(6..).and_then(|bytes| bytes.first_chunk().copied());
                self.has_destination_mac = true;
                0
            }
            LinkType::Cooked => self.read_cooked(data)?,
            LinkType::Cooked2 => self.read_cooked2(data)?,
            LinkType::RawIp => self.read_ip(data, 0)?,
            LinkType::Null => {
                let family = first_word(data)?;
                self.check_family(family.min(family.swap_bytes()))?;
                self.read_ip(data, 4)?
            }
            LinkType::Loop => {
                self.check_family(first_word(data)?)?;
                self.read_ip(data, 4)?
            }
            LinkType::Other(number) => return Err(Trouble::LinkType(number)),
        };
        let is_ethernet = packet.link == LinkType::Ethernet;
        let header = if is_ethernet { 0 } else { ETHERNET_BYTES };
        let whole = (packet.length as usize).saturating_sub(removed) + header;
        self.complete(whole, packet.data.len() < packet.length as usize)
    }

    /// Fills in what was not captured, and cuts what is too long.
    fn complete(&mut self, whole: usize, is_partial: bool) -> Result<(), Trouble> {
        self.facts = Facts::of(&self.bytes);
        if is_partial {
            let captured = self.bytes.len();
            let is_enough = match &self.facts {
                Some(facts) => captured >= facts.header_bytes().min(whole),
                // no IP, or less than an IP header
                None => captured >= (ETHERNET_BYTES + 60).min(whole) || !self.may_be_ip(),
            };
            if !is_enough {
                return Err(Trouble::Cut);
            }
        }
        self.bytes.resize(whole.min(MAX_FRAME_BYTES), 0);
        if whole > MAX_FRAME_BYTES
            && let Some(facts) = self.facts
        {
            self.shorten(&facts);
        }
        Ok(())
    }

    fn may_be_ip(&self) -> bool {
        let kind = self.bytes.get(12..).and_then(|bytes| bytes.first_chunk());
        let kind = kind.map_or(0, |bytes| u16::from_be_bytes(*bytes));
        matches!(kind, ethertype::IPV4 | ethertype::IPV6 | ethertype::VLAN | ethertype::QINQ)
    }

    /// Makes the lengths of the headers agree with the bytes that are there.
    fn shorten(&mut self, facts: &Facts) {
        let bytes = |from: usize| u16::try_from(MAX_FRAME_BYTES.saturating_sub(from)).unwrap_or(u16::MAX);
        match facts.source.is_ipv4() {
            true => self.put(facts.ip_at + 2, bytes(facts.ip_at)),
            false => self.put(facts.ip_at + 4, bytes(facts.ip_at + 40)),
        }
        if facts.protocol == UDP && facts.position == Position::Whole {
            self.put(facts.transport_at + 4, bytes(facts.transport_at));
        }
    }

    fn put(&mut self, at: usize, value: u16) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
            *place = value.to_be_bytes();
        }
    }

    /// Packet type, ARPHRD, length of the address, address, protocol: all in network order.
    fn read_cooked(&mut self, data: &[u8]) -> Result<usize, Trouble> {
        const BYTES: usize = 16;
        let word = |at| word(data, at);
        self.read_cooked_facts(word(0)?, word(2)?, (word(4)?, data.get(6..)))?;
        self.put_payload(word(14)?, data, BYTES)
    }

    /// Protocol, nothing, index of the interface, ARPHRD, packet type, length of the address, address.
    fn read_cooked2(&mut self, data: &[u8]) -> Result<usize, Trouble> {
        const BYTES: usize = 20;
        let word = |at| word(data, at);
        let byte = |at: usize| data.get(at).copied().map(u16::from).ok_or(Trouble::NoFrame);
        self.source.index = u32::from(word(4)?) << 16 | u32::from(word(6)?);
        self.read_cooked_facts(byte(10)?, word(8)?, (byte(11)?, data.get(12..)))?;
        self.put_payload(word(0)?, data, BYTES)
    }

    fn read_cooked_facts(
        &mut self,
        packet_type: u16,
        hardware: u16,
        (address_bytes, address): (u16, Option<&[u8]>),
    ) -> Result<(), Trouble> {
        const OUTGOING: u16 = 4;
        if hardware == ARPHRD_NETLINK {
            return Err(Trouble::NoFrame);
        }
        self.travel = if packet_type == OUTGOING { Travel::Out } else { Travel::In };
        let mac = address.and_then(|bytes| bytes.first_chunk::<6>()).filter(|_| address_bytes == 6);
        // the loopback device, and devices without MACs
        self.source_mac = mac.filter(|mac| **mac != [0; 6]).copied();
        let destination = match packet_type {
            1 => [0xff; 6],
            2 => [0x01, 0x00, 0x5e, 0, 0, 0],
            _ => NO_MAC,
        };
        self.bytes.extend_from_slice(&destination);
        self.bytes.extend_from_slice(&self.source_mac.unwrap_or(NO_MAC));
        Ok(())
    }

    fn put_payload(&mut self, protocol: u16, data: &[u8], header: usize) -> Result<usize, Trouble> {
        let payload = data.get(header..).ok_or(Trouble::NoFrame)?;
        let kind = match protocol {
            // 802.2 has its length in that place
            COOKED_LLC => u16::try_from(payload.len()).unwrap_or(0).min(LEAST_ETHERTYPE - 1),
            LEAST_ETHERTYPE.. => protocol,
            _ => return Err(Trouble::NoFrame),
        };
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(payload.get(..MAX_FRAME_BYTES).unwrap_or(payload));
        Ok(header)
    }

    fn read_ip(&mut self, data: &[u8], header: usize) -> Result<usize, Trouble> {
        let kind = match data.get(header).map(|byte| byte >> 4) {
            Some(4) => ethertype::IPV4,
            Some(6) => ethertype::IPV6,
            _ => return Err(Trouble::NoFrame),
        };
        self.bytes.extend_from_slice(&NO_MAC);
        self.bytes.extend_from_slice(&NO_MAC);
        self.put_payload(kind, data, header)
    }

    fn check_family(&self, family: u32) -> Result<(), Trouble> {
        // AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS
        match family {
            2 | 10 | 24 | 28 | 30 => Ok(()),
            _ => Err(Trouble::NoFrame),
        }
    }

    /// Puts another source MAC into the frame.
    pub fn set_source_mac(&mut self, mac: [u8; 6]) {
        if let Some(place) = self.bytes.get_mut(6..).and_then(|bytes| bytes.first_chunk_mut()) {
            *place = mac;
        }
    }

    /// Puts a VLAN tag into a frame that has none.
    pub fn set_vlan(&mut self, vlan: u16) {
        let [high, low] = vlan.to_be_bytes();
        let [first, second] = ethertype::VLAN.to_be_bytes();
        if self.bytes.len() >= ETHERNET_BYTES {
            self.bytes.splice(12..12, [first, second, high, low]);
            self.facts = Facts::of(&self.bytes);
        }
    }
}

fn first_word(data: &[u8]) -> Result<u32, Trouble> {
    data.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Trouble::NoFrame)
}

fn word(data: &[u8], at: usize) -> Result<u16, Trouble> {
    read_u16(data, at).ok_or(Trouble::NoFrame)
}
