/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * IPv4 and IPv6 headers, with options, extension headers and fragments.
 */
#ifndef PORTCULLIS_PARSE_IP_H
#define PORTCULLIS_PARSE_IP_H

#include "load.h"
#include "packet.h"
#include <linux/ip.h>
#include <linux/ipv6.h>

enum {
	EXTENSIONS_MAX = 8,
	/* More than a frame of 1,500 bytes holds. */
	LENIENT_EXTENSIONS_MAX = 192,
	IPV4_OPTIONS_MAX = 40,
	IP_PACKET_MAX = 65535,
};

struct option_walk {
	__u32 at;
	__u32 bytes;
	__u8 option[IPV4_OPTIONS_MAX];
	bool malformed;
	bool source_routed;
};

/* One IPv4 option (RFC 791, 3.1). Returns 1 to end the walk. */
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

/* A loop by callback: the verifier proves its body once, and not forty times. The filter alone
 * calls it, for the tracker gives no verdict.
 */
__noinline int parse_ipv4_options(struct xdp_md *ctx, __u32 offset, __u32 bytes,
				  struct packet *packet)
{
	struct option_walk walk = { .bytes = bytes };
	__u32 above_one = bytes - 1;

	if (!packet)
		return 0;
	/* shows the verifier of Linux 6.1 that the length is at least 1 */
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

/* For a fragment of either IP version. `offset` and `bytes` are those of its data. */
static __always_inline void note_fragment(struct packet *packet, __u32 id, __u32 offset, bool more,
					  __u32 bytes, __u8 protocol)
{
	packet->fragment_id = id;
	packet->fragment_protocol = protocol;
	packet->fragment_data_offset = packet->offset;
	packet->fragment_offset = offset;
	packet->fragment_position = offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	if (!bytes || (more && bytes % 8) || offset + bytes > IP_PACKET_MAX)
		packet->malformed = 1;
	/* RFC 1858: it would overwrite the flags of the TCP header in the first fragment */
	if (protocol == IPPROTO_TCP && offset == 8)
		packet->bad_fragment = 1;
}

/* Up to the transport header. False: there is none to read. */
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
	/* the kernel's segmentation offload builds packets beyond 64 KiB, whose length is 0 */
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
	/* a host may put together what the filter drops, so the tracker reads on */
	return packet->fragment_position != FRAGMENT_LATER &&
	       (hook == HOOK_SKB || !packet->malformed);
}

/* The chain of extension headers (RFC 8200, 4), up to the transport header, as the filter reads it.
 * False: there is none to read.
 */
static __always_inline bool parse_extensions(struct xdp_md *ctx, struct packet *packet)
{
	bool fragmented = false;

	/* Unrolled: Linux 6.1 refuses a loop whose head is reached by falling through, and the
	 * compiler decides whether it is.
	 */
#pragma clang loop unroll(full)
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		__u8 type = packet->protocol;
		/* Initialised: the verifier of Linux 6.18 fails (EFAULT) where a helper is the
		 * first to write to the stack of its function.
		 */
		__u8 head[8] = {};
		__u32 bytes;

		if (!is_extension(type))
			return true;
		/* a packet has one fragment header at most, also an atomic one */
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
		if (load_bytes(ctx, HOOK_XDP, packet->offset, head, sizeof(head)))
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
		/* Type 0 is refused in any state (RFC 5095). With segments left, the other types
		 * hide the final destination from the policy.
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

struct extension_walk {
	struct __sk_buff *ctx;
	struct packet *packet;
	bool fragmented;
};

/* One extension header, as leniently as any host may read it. Returns 1 to end the walk. Packets that
 * the filter would call malformed are marked so: they open flows, and change none.
 */
static long walk_extension(__u32 index, struct extension_walk *walk)
{
	struct packet *packet = walk->packet;
	__u8 type = packet->protocol;
	__u8 head[8] = {};
	__u32 bytes;

	if (!is_extension(type))
		return 1;
	if (index >= EXTENSIONS_MAX || (type == IPPROTO_HOPOPTS && index > 0))
		packet->malformed = 1;
	if (packet->left < sizeof(head) ||
	    load_bytes(walk->ctx, HOOK_SKB, packet->offset, head, sizeof(head)))
		return 1;

	if (type == IPPROTO_FRAGMENT) {
		__u16 field = (__u16)head[2] << 8 | head[3];
		__u32 id =
			(__u32)head[4] << 24 | (__u32)head[5] << 16 | (__u32)head[6] << 8 | head[7];

		if (walk->fragmented)
			packet->malformed = 1;
		walk->fragmented = true;
		packet->protocol = head[0];
		packet->offset += sizeof(head);
		packet->left -= sizeof(head);
		if (!(field & 0xfff9))
			return 0;
		note_fragment(packet, id, field & 0xfff8, field & 1, packet->left, head[0]);
		return packet->fragment_position == FRAGMENT_LATER;
	}
	bytes = (head[1] + 1) * 8;
	if (bytes > packet->left)
		return 1;
	packet->protocol = head[0];
	packet->offset += bytes;
	packet->left -= bytes;
	return 0;
}

/* As parse_extensions(), for the tracker. A loop by callback, for the chain may be long. */
static __always_inline bool parse_extensions_leniently(struct __sk_buff *ctx, struct packet *packet)
{
	struct extension_walk walk = { .ctx = ctx, .packet = packet };

	bpf_loop(LENIENT_EXTENSIONS_MAX, walk_extension, &walk, 0);
	return packet->fragment_position != FRAGMENT_LATER && !is_extension(packet->protocol);
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
	/* Length 0 means a packet that ends with this header, or a jumbogram (RFC 2675), which is
	 * malformed here.
	 */
	if (packet->offset + payload > packet->length || (!payload && ip.nexthdr != IPPROTO_NONE)) {
		packet->malformed = 1;
		return false;
	}
	packet->left = payload;
	return true;
}

#endif
