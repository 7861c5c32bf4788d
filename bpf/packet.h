/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parsed packet, and questions about it and its addresses that need no map.
 */
#ifndef PORTCULLIS_PACKET_H
#define PORTCULLIS_PACKET_H

#include "contract.h"
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum fragment_position {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

/* From IANA's registries of SCTP chunk types, DCCP packet types and IGMP types. */
enum message_type {
	SCTP_INIT = 1,
	SCTP_INIT_ACK = 2,
	SCTP_ABORT = 6,
	SCTP_SHUTDOWN_COMPLETE = 14,
	DCCP_REQUEST = 0,
	DCCP_RESPONSE = 1,
	DCCP_RESET = 7,
	IGMP_REPORT = 0x12,
	IGMP2_REPORT = 0x16,
	IGMP2_LEAVE = 0x17,
	IGMP3_REPORT = 0x22,
};

/* From IANA's registries of ICMP and ICMPv6 types. linux/icmp.h has them too, but it pulls in the C
 * library.
 */
enum icmp_type {
	ICMP4_ECHO_REPLY = 0,
	ICMP4_UNREACHABLE = 3,
	ICMP4_SOURCE_QUENCH = 4,
	ICMP4_REDIRECT = 5,
	ICMP4_ECHO_REQUEST = 8,
	ICMP4_ROUTER_ADVERT = 9,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER_PROBLEM = 12,
	ICMP4_TIMESTAMP_REQUEST = 13,
	ICMP4_TIMESTAMP_REPLY = 14,
	ICMP4_INFORMATION_REQUEST = 15,
	ICMP4_INFORMATION_REPLY = 16,
	ICMP4_MASK_REQUEST = 17,
	ICMP4_MASK_REPLY = 18,
	ICMP4_EXTENDED_REQUEST = 42, /* RFC 8335 */
	ICMP4_EXTENDED_REPLY = 43,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_ECHO_REQUEST = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_MLD_QUERY = 130,
	ICMP6_MLD_REPORT = 131,
	ICMP6_MLD_DONE = 132,
	ICMP6_ROUTER_SOLICIT = 133,
	ICMP6_ROUTER_ADVERT = 134,
	ICMP6_NEIGHBOUR_SOLICIT = 135,
	ICMP6_NEIGHBOUR_ADVERT = 136,
	ICMP6_REDIRECT = 137,
	ICMP6_INFORMATION_QUERY = 139, /* RFC 4620 */
	ICMP6_INFORMATION_REPLY = 140,
	ICMP6_MLD2_REPORT = 143,
	ICMP6_EXTENDED_REQUEST = 160, /* RFC 8335 */
	ICMP6_EXTENDED_REPLY = 161,
};

/* The packet that an ICMP error quotes. Read only if it went between the same two addresses. */
struct quote {
	__u16 source_port;      /* ICMP: the identifier */
	__u16 destination_port; /* ICMP: the type */
	__u8 protocol;
	__u8 present;
	__u8 zero[2];
};

struct packet {
	struct address source;
	struct address destination;
	struct quote quote;
	__u32 length; /* of the frame, bytes */
	__u32 offset; /* of the next header in the frame */
	__u32 left;   /* bytes of the IP packet from that offset on */
	__u32 fragment_id;
	__u32 sequence;
	__u32 sequence_end; /* the number that would acknowledge the whole segment */
	union {
		__u32 acknowledgment;
		/* SCTP: of the first chunk; DCCP, IGMP: of the packet. 0: not read */
		__u32 message_type;
	};
	__u16 source_port;
	__u16 destination_port;
	__u16 ethertype;
	__u16 vlan; /* TCI of the only tag with a VLAN id; 0: none */
	__u16 icmp_id;
	__u16 fragment_data_offset; /* of the fragment's data in the frame */
	__u16 fragment_offset;      /* of the fragment's data in the datagram, bytes */
	__u8 vlans;                 /* tags with a VLAN id (priority tags have none) */
	__u8 ip_version;
	__u8 addressed; /* source and destination were read */
	__u8 protocol;
	__u8 fragment_protocol; /* of the datagram, the same in all its fragments */
	__u8 fragment_position; /* enum fragment_position */
	__u8 hop_limit;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 malformed;
	__u8 source_routed;
	__u8 bad_fragment; /* too short for its header, or overlaps one */
	__u8 ported;       /* the tracker: ports or ICMP type were read, if there are any */
	__u8 source_mac[ETH_ALEN];
	__u8 destination_mac[ETH_ALEN];
};

/* It lies on the stack of three programs, beside the frame of decide(). All have 512 bytes. */
_Static_assert(sizeof(struct packet) == 108, "packet");

static __always_inline void map_ipv4(struct address *address, __be32 ipv4_be)
{
	address->word_be[0] = 0;
	address->word_be[1] = 0;
	address->word_be[2] = bpf_htonl(0xffff);
	address->word_be[3] = ipv4_be;
}

static __always_inline bool is_mapped_ipv4(const struct address *address)
{
	return !address->word_be[0] && !address->word_be[1] &&
	       address->word_be[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_address(const struct address *a, const __be32 *word_be)
{
	/* the last word first, for that is where most addresses differ */
	return a->word_be[3] == word_be[3] && a->word_be[2] == word_be[2] &&
	       a->word_be[1] == word_be[1] && a->word_be[0] == word_be[0];
}

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	return is_address(a, b->word_be);
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* The first byte in bits 40 to 47. */
static __always_inline __u64 read_mac(const __u8 *bytes)
{
	__u64 mac = 0;

	for (int i = 0; i < ETH_ALEN; i++)
		mac = mac << 8 | bytes[i];
	return mac;
}

/* Does the ICMP message quote a packet? Redirects do too, but they are dropped before this is
 * asked. In ICMPv6 the errors are the types 1 to 4 (RFC 4443).
 */
static __always_inline bool is_icmp_error(__u8 ip_version, __u8 type)
{
	if (ip_version == 4)
		return type == ICMP4_UNREACHABLE || type == ICMP4_SOURCE_QUENCH ||
		       type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER_PROBLEM;
	return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER_PROBLEM;
}

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->protocol == (packet->ip_version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/* ICMP of the other IP version is an ordinary protocol, which no need can name. */
static __always_inline bool is_foreign_icmp(const struct packet *packet)
{
	return packet->protocol == (packet->ip_version == 4 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Extension headers that the parser looks through. AH and ESP are protocols of their own here,
 * which a need may name.
 */
static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS;
}

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

#endif
