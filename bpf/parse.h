/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frame to struct packet. Headers are read within the IP packet's own length and within the frame,
 * so Ethernet padding is never taken for a header. The parser knows nothing of the policy.
 */
#ifndef PORTCULLIS_PARSE_H
#define PORTCULLIS_PARSE_H

#include "parse_ip.h"
#include "parse_transport.h"

/* Ethernet and up to two VLAN tags. Returns the offset of the payload, or 0 if there is none. */
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

/* All headers up to the transport header, without IPv6 extensions. False: the parser stops here. */
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

/* Global functions: the verifier proves each once, and not for each state of its callers. */
__noinline int parse_extensions_of_frame(struct xdp_md *ctx, struct packet *packet)
{
	return packet ? parse_extensions(ctx, packet) : 0;
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
	return packet ? parse_extensions_leniently(ctx, packet) : 0;
}

static __always_inline int parse_skb(struct __sk_buff *ctx, struct packet *packet)
{
	if (!packet || !parse_network(ctx, HOOK_SKB, packet))
		return 0;
	if (packet->ip_version == 6 && !parse_extensions_of_skb(ctx, packet))
		return 0;
	parse_transport(ctx, HOOK_SKB, packet);
	return 0;
}

#endif
