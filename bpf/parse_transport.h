/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Headers of TCP, UDP, SCTP and ICMP, and the packet that an ICMP error quotes.
 */
#ifndef PORTCULLIS_PARSE_TRANSPORT_H
#define PORTCULLIS_PARSE_TRANSPORT_H

#include "load.h"
#include "packet.h"
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

enum {
	QUOTED_EXTENSIONS_MAX = 3,
	SCTP_HEADER_BYTES = 12,
	DCCP_TYPE_OFFSET = 8, /* of the byte with the type in bits 1 to 4 (RFC 4340, 5.1) */
};

/* The first 8 bytes of ICMP (RFC 792) and of ICMPv6 (RFC 4443). */
struct icmp_head {
	__u8 type;
	__u8 code;
	__be16 checksum_be;
	__be16 id_be; /* of a query */
	__be16 sequence_be;
};

enum {
	TCP_STATE_FLAGS = TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK,
	/* A bit for each of their combinations that no stack sends, as nf_conntrack_proto_tcp.c (Linux
	 * 6.1) lists them: none, SYN with FIN or RST, FIN without ACK.
	 */
	BOGUS_TCP_FLAGS = 0x00c800eb,
};

static __always_inline bool are_bogus_tcp_flags(__u8 flags)
{
	return BOGUS_TCP_FLAGS >> (flags & TCP_STATE_FLAGS) & 1;
}

/* The header does not fit into the packet, or into its first fragment. */
static __always_inline void note_short_header(struct packet *packet)
{
	if (packet->fragment_position == FRAGMENT_FIRST)
		packet->bad_fragment = 1;
	else
		packet->malformed = 1;
}

/* The ports alone, of a header that goes on in a later fragment. Only the tracker asks: a host may put
 * together what the filter drops.
 */
static __always_inline void parse_ports(void *ctx, const enum hook hook, struct packet *packet)
{
	__be16 port_be[2];

	if (hook != HOOK_SKB || packet->left < sizeof(port_be) ||
	    load_bytes(ctx, hook, packet->offset, port_be, sizeof(port_be)))
		return;
	packet->source_port = bpf_ntohs(port_be[0]);
	packet->destination_port = bpf_ntohs(port_be[1]);
	packet->ported = 1;
}

static __always_inline void parse_tcp(void *ctx, const enum hook hook, struct packet *packet)
{
	struct tcphdr tcp;
	__u32 header;

	if (packet->left < sizeof(tcp) ||
	    load_bytes(ctx, hook, packet->offset, &tcp, sizeof(tcp))) {
		note_short_header(packet);
		parse_ports(ctx, hook, packet);
		return;
	}
	packet->ported = 1;
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

	if (packet->left < sizeof(udp) ||
	    load_bytes(ctx, hook, packet->offset, &udp, sizeof(udp))) {
		note_short_header(packet);
		parse_ports(ctx, hook, packet);
		return;
	}
	packet->ported = 1;
	length = bpf_ntohs(udp.len);
	packet->source_port = bpf_ntohs(udp.source);
	packet->destination_port = bpf_ntohs(udp.dest);
	/* in a first fragment the length counts the later fragments too */
	if (length < sizeof(udp) ||
	    (packet->fragment_position == FRAGMENT_NONE && length > packet->left))
		packet->malformed = 1;
}

/* A packet that ends before its type keeps type 0, and is not malformed for that. */
static __always_inline void parse_message_type(void *ctx, const enum hook hook,
					       struct packet *packet, __u32 offset)
{
	__u8 type[1] = {};

	if (packet->left <= offset ||
	    load_bytes(ctx, hook, packet->offset + offset, type, sizeof(type)))
		return;
	packet->message_type = packet->protocol == IPPROTO_DCCP ? type[0] >> 1 & 0xf : type[0];
}

static __always_inline void parse_sctp(void *ctx, const enum hook hook, struct packet *packet)
{
	__be16 port_be[6]; /* ports, tag, checksum: RFC 9260, 3.1 */

	if (packet->left < sizeof(port_be) ||
	    load_bytes(ctx, hook, packet->offset, port_be, sizeof(port_be))) {
		note_short_header(packet);
		parse_ports(ctx, hook, packet);
		return;
	}
	packet->ported = 1;
	packet->source_port = bpf_ntohs(port_be[0]);
	packet->destination_port = bpf_ntohs(port_be[1]);
	parse_message_type(ctx, hook, packet, SCTP_HEADER_BYTES);
}

/* The packet inside an ICMP error, up to its ports. An unreadable quote does not make the error
 * malformed. It then belongs to no flow.
 */
static __always_inline void parse_quote(void *ctx, const enum hook hook, struct packet *packet,
					__u32 offset, __u32 left)
{
	struct quote *quote = &packet->quote;
	__be16 head_be[4];
	__u32 header;

	if (packet->ip_version == 4) {
		struct iphdr ip;

		if (left < sizeof(ip) || load_bytes(ctx, hook, offset, &ip, sizeof(ip)))
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

		if (left < sizeof(ip) || load_bytes(ctx, hook, offset, &ip, sizeof(ip)))
			return;
		header = sizeof(ip);
		if (ip.version != 6)
			return;
		if (!is_address(&packet->destination, ip.saddr.s6_addr32) ||
		    !is_address(&packet->source, ip.daddr.s6_addr32))
			return;
		quote->protocol = ip.nexthdr;
		/* ordinary packets have no more extension headers than this */
#pragma clang loop unroll(full)
		for (int i = 0; i < QUOTED_EXTENSIONS_MAX; i++) {
			__u8 extension[8] = {};

			if (!is_extension(quote->protocol))
				break;
			if (header > DEEPEST_HEADER || left < header + sizeof(extension) ||
			    load_bytes(ctx, hook, offset + header, extension, sizeof(extension)))
				return;
			/* a later fragment has no ports */
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
	packet->ported = 1;
	packet->icmp_type = icmp.type;
	packet->icmp_code = icmp.code;
	packet->icmp_id = bpf_ntohs(icmp.id_be);
	if (hook == HOOK_XDP && is_icmp_error(packet->ip_version, icmp.type))
		parse_quote(ctx, hook, packet, packet->offset + sizeof(icmp),
			    packet->left - sizeof(icmp));
}

static __always_inline void parse_transport(void *ctx, const enum hook hook, struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP)
		parse_tcp(ctx, hook, packet);
	else if (packet->protocol == IPPROTO_UDP)
		parse_udp(ctx, hook, packet);
	else if (packet->protocol == IPPROTO_SCTP)
		parse_sctp(ctx, hook, packet);
	else if (is_icmp(packet))
		parse_icmp(ctx, hook, packet);
	else {
		packet->ported = 1;
		if (packet->protocol == IPPROTO_DCCP)
			parse_message_type(ctx, hook, packet, DCCP_TYPE_OFFSET);
		else if (packet->protocol == IPPROTO_IGMP)
			parse_message_type(ctx, hook, packet, 0);
	}
}

#endif
