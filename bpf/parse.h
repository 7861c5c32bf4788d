/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frame to struct packet. Headers are read within the IP packet's own length
 * and within the frame, so Ethernet padding is never a header; what is read is
 * copied, from the linear part when it lies there and by helper when a
 * multi-buffer frame ends earlier. Nothing here knows the policy.
 */
#ifndef PORTCULLIS_PARSE_H
#define PORTCULLIS_PARSE_H

#include "contract.h"
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum {
	/* No header lies further in: 2 tags, 8 extension headers of 2 KiB. */
	DEEPEST_HEADER = 0x7fff,
	EXTENSIONS_MAX = 8,
	QUOTED_EXTENSIONS_MAX = 3,
	IPV4_OPTIONS_MAX = 40,
	LENGTH_MAX = 1500, /* up to here a length, IEEE 802.3 */
	IP_PACKET_MAX = 65535,
};

enum hook {
	HOOK_XDP,
	HOOK_SKB,
};

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

/* From IANA's registries of ICMP and ICMPv6 types. linux/icmp.h is no help: it
 * pulls in the C library.
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
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_ECHO_REQUEST = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_MLD_REPORT = 131,
	ICMP6_MLD_DONE = 132,
	ICMP6_ROUTER_SOLICIT = 133,
	ICMP6_ROUTER_ADVERT = 134,
	ICMP6_NEIGHBOUR_SOLICIT = 135,
	ICMP6_NEIGHBOUR_ADVERT = 136,
	ICMP6_REDIRECT = 137,
	ICMP6_MLD2_REPORT = 143,
};

/* The packet that an ICMP error quotes, if it went between the same two addresses. */
struct quote {
	__u16 source_port; /* ICMP: the identifier */
	__u16 destination_port; /* ICMP: the type */
	__u8 protocol;
	__u8 present;
	__u8 zero[2];
};

struct packet {
	struct address source;
	struct address destination;
	struct quote quote;
	__u32 length; /* of the frame */
	__u32 offset; /* where the parser stands in the frame */
	__u32 left;   /* of the IP packet from there */
	__u32 fragment_id;
	__u32 sequence;
	__u32 sequence_end; /* of the segment: what its acknowledgment would say */
	__u32 acknowledgment;
	__u16 source_port;
	__u16 destination_port;
	__u16 ethertype;
	__u16 vlan; /* TCI of the only tag with a VLAN id; 0: none */
	__u16 icmp_id;
	__u16 fragment_data_offset;    /* where what it carries begins in the frame */
	__u16 fragment_offset; /* of that in the datagram, bytes */
	__u8 vlans; /* tags with a VLAN id (priority tags have none) */
	__u8 ip_version;
	__u8 addressed; /* addresses below are the packet's */
	__u8 protocol;
	__u8 fragment_protocol; /* protocol as all fragments of a datagram carry it */
	__u8 fragment_position; /* enum fragment_position */
	__u8 hop_limit;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 malformed;
	__u8 source_routed;
	__u8 bad_fragment; /* too short for its header, or overlaps one */
	__u8 source_mac[ETH_ALEN];
	__u8 destination_mac[ETH_ALEN];
};

/* On the stack of three programs, beside decide()'s own: 512 bytes are all there is. */
_Static_assert(sizeof(struct packet) == 108, "packet");

/* The first 8 bytes of ICMP (RFC 792) and ICMPv6 (RFC 4443) alike. */
struct icmp_head {
	__u8 type;
	__u8 code;
	__be16 checksum_be;
	__be16 id_be; /* of a query */
	__be16 sequence_be;
};

static __always_inline int load_bytes(void *ctx, const enum hook hook, __u32 offset, void *to,
				      const __u32 size)
{
	if (offset > DEEPEST_HEADER)
		return -1;
	/* What the compiler knows by now the verifier of Linux 6.1 has forgotten,
	 * when the value was put aside before it was tested: it is told again.
	 */
	barrier_var(offset);
	offset &= DEEPEST_HEADER;

	if (hook == HOOK_XDP) {
		struct xdp_md *xdp = ctx;
		void *from = (void *)(long)xdp->data + offset;
		void *end = (void *)(long)xdp->data_end;

		/* one register for test and access: to the verifier of Linux 6.1 a
		 * second addition is another pointer
		 */
		barrier_var(from);
		if (from + size <= end) {
			__builtin_memcpy(to, from, size);
			return 0;
		}
		return bpf_xdp_load_bytes(xdp, offset, to, size);
	} else {
		struct __sk_buff *skb = ctx;
		void *from = (void *)(long)skb->data + offset;
		void *end = (void *)(long)skb->data_end;

		barrier_var(from);
		if (from + size <= end) {
			__builtin_memcpy(to, from, size);
			return 0;
		}
		return bpf_skb_load_bytes(skb, offset, to, size);
	}
}

/* Length of the whole frame, whatever its packet claims: the books are exact. */
static __always_inline __u32 frame_length(void *ctx, const enum hook hook)
{
	return hook == HOOK_SKB ? ((struct __sk_buff *)ctx)->len : bpf_xdp_get_buff_len(ctx);
}

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
	return a->word_be[0] == word_be[0] && a->word_be[1] == word_be[1] &&
	       a->word_be[2] == word_be[2] && a->word_be[3] == word_be[3];
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

/* ICMP messages that quote the packet they are about. Redirects do too, but
 * are judged before anyone asks.
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

/* ICMP of the other family is a protocol like any other, and none that a need can name. */
static __always_inline bool is_foreign_icmp(const struct packet *packet)
{
	return packet->protocol == (packet->ip_version == 4 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Extension headers that are looked through. AH and ESP are not among them: they
 * are protocols of their own, which a need may name.
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

/* Ethernet and up to two tags. Returns the offset of the payload, 0 when there is none. */
static __always_inline __u32 parse_link(void *ctx, const enum hook hook, struct packet *packet)
{
	struct ethhdr eth;
	__u32 offset = sizeof(eth);
	__be16 type_be;

	if (load_bytes(ctx, hook, 0, &eth, sizeof(eth))) {
		packet->malformed = 1;
		return 0;
	}
	__builtin_memcpy(packet->source_mac, eth.h_source, ETH_ALEN);
	__builtin_memcpy(packet->destination_mac, eth.h_dest, ETH_ALEN);
	type_be = eth.h_proto;

	for (int tags = 0; tags <= 2; tags++) {
		__be16 tag_be[2];
		__u16 tci;

		if (type_be != bpf_htons(ETH_P_8021Q) && type_be != bpf_htons(ETH_P_8021AD))
			break;
		if (tags == 2 || load_bytes(ctx, hook, offset, tag_be, sizeof(tag_be))) {
			packet->malformed = 1;
			return 0;
		}
		tci = bpf_ntohs(tag_be[0]);
		if (tci & 0x0fff) {
			packet->vlan = tci;
			packet->vlans++;
		}
		type_be = tag_be[1];
		offset += sizeof(tag_be);
	}
	packet->ethertype = bpf_ntohs(type_be);
	return offset;
}

struct option_walk {
	__u32 at;
	__u32 bytes;
	__u8 option[IPV4_OPTIONS_MAX];
	bool malformed;
	bool source_routed;
};

/* One option (RFC 791, 3.1). Returns 1 at the end of the walk. */
static long walk_option(__u32 index __attribute__((unused)), struct option_walk *walk)
{
	__u32 at = walk->at;
	__u8 type, length;

	if (at >= walk->bytes || at >= IPV4_OPTIONS_MAX)
		return 1;
	type = walk->option[at];
	if (type == IPOPT_END)
		return 1;
	if (type == IPOPT_NOOP) {
		walk->at = at + 1;
		return 0;
	}
	if (at + 1 >= walk->bytes || at + 1 >= IPV4_OPTIONS_MAX) {
		walk->malformed = true;
		return 1;
	}
	length = walk->option[at + 1];
	if (length < 2 || at + length > walk->bytes) {
		walk->malformed = true;
		return 1;
	}
	if (type == IPOPT_LSRR || type == IPOPT_SSRR)
		walk->source_routed = true;
	walk->at = at + length;
	return 0;
}

/* A loop by callback, which the verifier proves once and not forty times. Only
 * XDP asks: the tracker judges nothing.
 */
__noinline int parse_ipv4_options(struct xdp_md *ctx, __u32 offset, __u32 bytes,
				  struct packet *packet)
{
	struct option_walk walk = { .bytes = bytes };
	__u32 above_one = bytes - 1;

	if (!packet)
		return 0;
	/* so that the verifier of Linux 6.1 sees a length from 1 on */
	barrier_var(above_one);
	above_one &= 63;
	if (above_one >= IPV4_OPTIONS_MAX ||
	    bpf_xdp_load_bytes(ctx, offset, walk.option, above_one + 1)) {
		packet->malformed = 1;
		return 0;
	}
	bpf_loop(IPV4_OPTIONS_MAX, walk_option, &walk, 0);
	if (walk.malformed)
		packet->malformed = 1;
	if (walk.source_routed)
		packet->source_routed = 1;
	return 0;
}

/* Facts that hold for a fragment of either family; `bytes` is what it carries. */
static __always_inline void note_fragment(struct packet *packet, __u32 id, __u32 position,
					  bool more, __u32 bytes, __u8 protocol)
{
	packet->fragment_id = id;
	packet->fragment_protocol = protocol;
	packet->fragment_data_offset = packet->offset;
	packet->fragment_offset = position;
	packet->fragment_position = position ? FRAGMENT_LATER : FRAGMENT_FIRST;
	if (!bytes || (more && bytes % 8) || position + bytes > IP_PACKET_MAX)
		packet->malformed = 1;
	/* RFC 1858: it would write over the flags of the TCP header before it */
	if (protocol == IPPROTO_TCP && position == 8)
		packet->bad_fragment = 1;
}

/* Stands at the transport header after it; false when there is none to read. */
static __always_inline bool parse_ipv4(void *ctx, const enum hook hook, struct packet *packet)
{
	struct iphdr ip;
	__u32 header, total;
	__u16 fragment;

	packet->ip_version = 4;
	if (load_bytes(ctx, hook, packet->offset, &ip, sizeof(ip))) {
		packet->malformed = 1;
		return false;
	}
	if (ip.version != 4) {
		packet->malformed = 1;
		return false;
	}
	map_ipv4(&packet->source, ip.saddr);
	map_ipv4(&packet->destination, ip.daddr);
	packet->addressed = 1;
	packet->protocol = ip.protocol;
	packet->hop_limit = ip.ttl;

	header = ip.ihl * 4;
	total = bpf_ntohs(ip.tot_len);
	/* a super-packet of the kernel's own segmentation offload says 0 */
	if (hook == HOOK_SKB && !total && packet->length > packet->offset)
		total = packet->length - packet->offset;
	if (header < sizeof(ip) || total < header || packet->offset + total > packet->length) {
		packet->malformed = 1;
		return false;
	}
	if (hook == HOOK_XDP && header > sizeof(ip)) {
		parse_ipv4_options(ctx, packet->offset + sizeof(ip), header - sizeof(ip), packet);
		if (packet->malformed)
			return false;
	}
	packet->offset += header;
	packet->left = total - header;

	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & 0x3fff)
		note_fragment(packet, bpf_ntohs(ip.id), (fragment & 0x1fff) * 8, fragment & 0x2000,
			      packet->left, ip.protocol);
	return packet->fragment_position != FRAGMENT_LATER && !packet->malformed;
}

/* The chain of extension headers (RFC 8200, 4). */
static __always_inline bool parse_extensions(void *ctx, const enum hook hook,
					     struct packet *packet)
{
	bool fragmented = false;

	/* Unrolled: Linux 6.1 refuses a loop whose head is reached by falling
	 * through, and where the head comes to lie is the compiler's choice.
	 */
#pragma clang loop unroll(full)
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		__u8 type = packet->protocol;
		/* written first: a helper that is the first to write to its
		 * function's stack trips the verifier of Linux 6.18 (EFAULT)
		 */
		__u8 head[8] = {};
		__u32 bytes;

		if (!is_extension(type))
			return true;
		/* one fragment header for a packet, also where it is atomic */
		if (i == EXTENSIONS_MAX || (type == IPPROTO_HOPOPTS && i > 0) ||
		    (type == IPPROTO_FRAGMENT && fragmented))
			break;
		if (packet->left < sizeof(head)) {
			/* RFC 7112: the first fragment holds the whole chain */
			if (packet->fragment_position != FRAGMENT_FIRST)
				break;
			packet->bad_fragment = 1;
			return false;
		}
		if (load_bytes(ctx, hook, packet->offset, head, sizeof(head)))
			break;

		if (type == IPPROTO_FRAGMENT) {
			__u16 field = (__u16)head[2] << 8 | head[3];
			__u32 id = (__u32)head[4] << 24 | (__u32)head[5] << 16 |
				   (__u32)head[6] << 8 | head[7];

			fragmented = true;
			packet->protocol = head[0];
			packet->offset += sizeof(head);
			packet->left -= sizeof(head);
			/* RFC 6946: an atomic fragment is a whole packet */
			if (!(field & 0xfff9))
				continue;
			note_fragment(packet, id, field & 0xfff8, field & 1, packet->left, head[0]);
			if (packet->fragment_position == FRAGMENT_LATER || packet->malformed)
				return false;
			continue;
		}

		bytes = (head[1] + 1) * 8;
		if (bytes > packet->left) {
			if (packet->fragment_position != FRAGMENT_FIRST)
				break;
			packet->bad_fragment = 1;
			return false;
		}
		/* Type 0 in any state (RFC 5095). Of the others, one with segments
		 * left hides the destination that the policy has to judge.
		 */
		if (type == IPPROTO_ROUTING && (head[2] == 0 || head[3]))
			packet->source_routed = 1;
		packet->protocol = head[0];
		packet->offset += bytes;
		packet->left -= bytes;
	}
	packet->malformed = 1;
	return false;
}

static __always_inline bool parse_ipv6(void *ctx, const enum hook hook, struct packet *packet)
{
	struct ipv6hdr ip;
	__u32 payload;

	packet->ip_version = 6;
	if (load_bytes(ctx, hook, packet->offset, &ip, sizeof(ip))) {
		packet->malformed = 1;
		return false;
	}
	if (ip.version != 6) {
		packet->malformed = 1;
		return false;
	}
	__builtin_memcpy(&packet->source, &ip.saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip.daddr, sizeof(packet->destination));
	packet->protocol = ip.nexthdr;
	packet->hop_limit = ip.hop_limit;

	payload = bpf_ntohs(ip.payload_len);
	packet->offset += sizeof(ip);
	if (hook == HOOK_SKB && !payload && packet->length > packet->offset)
		payload = packet->length - packet->offset;
	if (is_mapped_ipv4(&packet->source) || is_mapped_ipv4(&packet->destination)) {
		packet->malformed = 1;
		return false;
	}
	packet->addressed = 1;
	/* Length 0 is a jumbogram (RFC 2675), which nothing here may send, or
	 * a packet that ends with its header.
	 */
	if (packet->offset + payload > packet->length ||
	    (!payload && ip.nexthdr != IPPROTO_NONE)) {
		packet->malformed = 1;
		return false;
	}
	packet->left = payload;
	return true;
}

/* Flags that no stack sends, as nf_conntrack_proto_tcp.c (Linux 6.1) lists them. */
static __always_inline bool are_bogus_tcp_flags(__u8 flags)
{
	if (!(flags & (TCP_SYN | TCP_RST | TCP_FIN | TCP_ACK)))
		return true;
	if ((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST)))
		return true;
	return (flags & TCP_FIN) && !(flags & TCP_ACK);
}

/* A header that does not fit: the fault of a first fragment or of the packet. */
static __always_inline void note_short_header(struct packet *packet)
{
	if (packet->fragment_position == FRAGMENT_FIRST)
		packet->bad_fragment = 1;
	else
		packet->malformed = 1;
}

static __always_inline void parse_tcp(void *ctx, const enum hook hook, struct packet *packet)
{
	struct tcphdr tcp;
	__u32 header;

	if (packet->left < sizeof(tcp) || load_bytes(ctx, hook, packet->offset, &tcp, sizeof(tcp))) {
		note_short_header(packet);
		return;
	}
	packet->source_port = bpf_ntohs(tcp.source);
	packet->destination_port = bpf_ntohs(tcp.dest);
	header = tcp.doff * 4;
	if (header < sizeof(tcp)) {
		packet->malformed = 1;
		return;
	}
	packet->sequence = bpf_ntohl(tcp.seq);
	packet->acknowledgment = bpf_ntohl(tcp.ack_seq);
	packet->tcp_flags = ((__u8 *)&tcp)[13];
	packet->sequence_end = packet->sequence + !!(packet->tcp_flags & TCP_SYN) +
			       !!(packet->tcp_flags & TCP_FIN);
	if (header > packet->left)
		note_short_header(packet);
	else
		packet->sequence_end += packet->left - header;
	if (are_bogus_tcp_flags(packet->tcp_flags))
		packet->malformed = 1;
}

static __always_inline void parse_udp(void *ctx, const enum hook hook, struct packet *packet)
{
	struct udphdr udp;
	__u32 length;

	if (packet->left < sizeof(udp) || load_bytes(ctx, hook, packet->offset, &udp, sizeof(udp))) {
		note_short_header(packet);
		return;
	}
	length = bpf_ntohs(udp.len);
	packet->source_port = bpf_ntohs(udp.source);
	packet->destination_port = bpf_ntohs(udp.dest);
	/* of a first fragment it counts the bytes that follow in later ones */
	if (length < sizeof(udp) || (packet->fragment_position == FRAGMENT_NONE && length > packet->left))
		packet->malformed = 1;
}

static __always_inline void parse_sctp(void *ctx, const enum hook hook, struct packet *packet)
{
	__be16 port_be[6]; /* ports, tag, checksum: RFC 9260, 3.1 */

	if (packet->left < sizeof(port_be) ||
	    load_bytes(ctx, hook, packet->offset, port_be, sizeof(port_be))) {
		note_short_header(packet);
		return;
	}
	packet->source_port = bpf_ntohs(port_be[0]);
	packet->destination_port = bpf_ntohs(port_be[1]);
}

/* The packet inside an ICMP error, as far as its ports. A quote that can't be
 * read is no fault of the packet: it just belongs to no flow.
 */
static __always_inline void parse_quote(void *ctx, const enum hook hook, struct packet *packet,
					__u32 offset, __u32 left)
{
	struct quote *quote = &packet->quote;
	__be16 head_be[4];
	__u32 header;

	if (packet->ip_version == 4) {
		struct iphdr ip;

		if (left < sizeof(ip) ||
		    load_bytes(ctx, hook, offset, &ip, sizeof(ip)))
			return;
		header = ip.ihl * 4;
		if (ip.version != 4 || header < sizeof(ip) || (bpf_ntohs(ip.frag_off) & 0x1fff))
			return;
		if (ip.saddr != packet->destination.word_be[3] ||
		    ip.daddr != packet->source.word_be[3])
			return;
		quote->protocol = ip.protocol;
	} else {
		struct ipv6hdr ip;

		if (left < sizeof(ip) ||
		    load_bytes(ctx, hook, offset, &ip, sizeof(ip)))
			return;
		header = sizeof(ip);
		if (ip.version != 6)
			return;
		if (!is_address(&packet->destination, ip.saddr.s6_addr32) ||
		    !is_address(&packet->source, ip.daddr.s6_addr32))
			return;
		quote->protocol = ip.nexthdr;
		/* as many extension headers as a healthy packet has */
#pragma clang loop unroll(full)
		for (int i = 0; i < QUOTED_EXTENSIONS_MAX; i++) {
			__u8 extension[8] = {};

			if (!is_extension(quote->protocol))
				break;
			if (header > DEEPEST_HEADER || left < header + sizeof(extension) ||
			    load_bytes(ctx, hook, offset + header, extension, sizeof(extension)))
				return;
			/* a later fragment has no ports to show */
			if (quote->protocol == IPPROTO_FRAGMENT &&
			    (extension[2] || extension[3] & 0xf8))
				return;
			header += quote->protocol == IPPROTO_FRAGMENT ? sizeof(extension) :
									(extension[1] + 1) * 8;
			quote->protocol = extension[0];
		}
		if (is_extension(quote->protocol))
			return;
	}
	if (left < header + sizeof(head_be) ||
	    load_bytes(ctx, hook, offset + header, head_be, sizeof(head_be)))
		return;
	if (has_ports(quote->protocol)) {
		quote->source_port = bpf_ntohs(head_be[0]);
		quote->destination_port = bpf_ntohs(head_be[1]);
	} else if (quote->protocol == IPPROTO_ICMP || quote->protocol == IPPROTO_ICMPV6) {
		quote->source_port = bpf_ntohs(head_be[2]);
		quote->destination_port = bpf_ntohs(head_be[0]) >> 8;
	}
	quote->present = 1;
}

static __always_inline void parse_icmp(void *ctx, const enum hook hook, struct packet *packet)
{
	struct icmp_head icmp;

	if (packet->left < sizeof(icmp) ||
	    load_bytes(ctx, hook, packet->offset, &icmp, sizeof(icmp))) {
		note_short_header(packet);
		return;
	}
	packet->icmp_type = icmp.type;
	packet->icmp_code = icmp.code;
	packet->icmp_id = bpf_ntohs(icmp.id_be);
	if (hook == HOOK_XDP && is_icmp_error(packet->ip_version, icmp.type))
		parse_quote(ctx, hook, packet, packet->offset + sizeof(icmp),
			    packet->left - sizeof(icmp));
}

static __always_inline void parse_transport(void *ctx, const enum hook hook,
					    struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP)
		parse_tcp(ctx, hook, packet);
	else if (packet->protocol == IPPROTO_UDP)
		parse_udp(ctx, hook, packet);
	else if (packet->protocol == IPPROTO_SCTP)
		parse_sctp(ctx, hook, packet);
	else if (is_icmp(packet))
		parse_icmp(ctx, hook, packet);
}

/* To the transport header; false when there is none to read. */
static __always_inline bool parse_network(void *ctx, const enum hook hook, struct packet *packet)
{
	packet->length = frame_length(ctx, hook);
	packet->offset = parse_link(ctx, hook, packet);
	if (!packet->offset)
		return false;
	if (packet->ethertype == ETH_P_IP)
		return parse_ipv4(ctx, hook, packet);
	if (packet->ethertype == ETH_P_IPV6)
		return parse_ipv6(ctx, hook, packet);
	return false;
}

/* Global functions: the verifier proves each once, whatever its callers did. */
__noinline int parse_extensions_of_frame(struct xdp_md *ctx, struct packet *packet)
{
	return packet ? parse_extensions(ctx, HOOK_XDP, packet) : 0;
}

__noinline int parse_frame(struct xdp_md *ctx, struct packet *packet)
{
	if (!packet || !parse_network(ctx, HOOK_XDP, packet))
		return 0;
	if (packet->ip_version == 6 && !parse_extensions_of_frame(ctx, packet))
		return 0;
	parse_transport(ctx, HOOK_XDP, packet);
	return 0;
}

__noinline int parse_extensions_of_skb(struct __sk_buff *ctx, struct packet *packet)
{
	return packet ? parse_extensions(ctx, HOOK_SKB, packet) : 0;
}

__noinline int parse_skb(struct __sk_buff *ctx, struct packet *packet)
{
	if (!packet || !parse_network(ctx, HOOK_SKB, packet))
		return 0;
	if (packet->ip_version == 6 && !parse_extensions_of_skb(ctx, packet))
		return 0;
	parse_transport(ctx, HOOK_SKB, packet);
	return 0;
}

#endif
