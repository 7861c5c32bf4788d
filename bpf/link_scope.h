/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that belong to the link itself, and never leave it: steps 1 and 4 of docs/verdicts.md.
 */
#ifndef PORTCULLIS_LINK_SCOPE_H
#define PORTCULLIS_LINK_SCOPE_H

#include "verdict.h"

enum {
	FAMILY_IPV6 = 10, /* AF_INET6, which no UAPI header names */
	ETHERTYPE_LLDP = 0x88cc,
	ETHERTYPE_EAPOL = 0x888e,
	ETHERTYPE_SLOW = 0x8809,
	LENGTH_MAX = 1500,
	PORT_DHCP4_SERVER = 67,
	PORT_DHCP4_CLIENT = 68,
	PORT_DHCP6_CLIENT = 546,
	PORT_DHCP6_SERVER = 547,
	PROTOCOL_IGMP = 2,
	PROTOCOL_VRRP = 112,
	VRRP_GROUP_IPV4 = 0xe0000012, /* 224.0.0.18 */
};

static __always_inline bool is_link_layer(__u16 ethertype)
{
	return ethertype <= LENGTH_MAX || ethertype == ETH_P_ARP || ethertype == ETHERTYPE_LLDP ||
	       ethertype == ETHERTYPE_EAPOL || ethertype == ETHERTYPE_SLOW;
}

static __always_inline bool is_link_local(const struct packet *packet)
{
	const __be32 *word_be = packet->source.word_be;

	if (packet->ip_version == 4)
		return !word_be[3] || (word_be[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return (word_be[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       (!word_be[0] && !word_be[1] && !word_be[2] && !word_be[3]);
}

/* Does the form of the destination alone say that no router forwards the packet? */
static __always_inline bool is_link_scope(const struct packet *packet)
{
	const __be32 *word_be = packet->destination.word_be;

	if (packet->ip_version == 4)
		return word_be[3] == 0xffffffff;
	if ((word_be[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
		return bpf_ntohl(word_be[0] & bpf_htonl(0x000f0000)) <= 0x00020000;
	return (word_be[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* To a group that only hosts of the link can be in (RFC 5771, 4; RFC 4291, 2.7)? */
static __always_inline bool is_link_group(const struct packet *packet)
{
	const __be32 *word_be = packet->destination.word_be;

	if (packet->ip_version == 4)
		return (word_be[3] & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000);
	return (word_be[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) &&
	       is_link_scope(packet);
}

/* Does the routing table keep this IPv6 packet on the link, or on the router itself? Packets that
 * pass before their server is known must not leave, so this is asked where the form of the address
 * leaves it open. Not for a multicast destination, which has another routing table.
 */
static __noinline bool stays_on_link(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_fib_lookup route = {};
	__u32 ifindex = ctx->ingress_ifindex;
	long result;

	/* One load: with a second one clang may keep a pointer into the context, which the verifier
	 * refuses.
	 */
	barrier_var(ifindex);
	route.ifindex = ifindex;
	route.family = FAMILY_IPV6;
	__builtin_memcpy(route.ipv6_src, &packet->source, sizeof(route.ipv6_src));
	__builtin_memcpy(route.ipv6_dst, &packet->destination, sizeof(route.ipv6_dst));
	result = bpf_fib_lookup(ctx, &route, sizeof(route), 0);
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED ||
	    result == BPF_FIB_LKUP_RET_UNREACHABLE || result == BPF_FIB_LKUP_RET_BLACKHOLE ||
	    result == BPF_FIB_LKUP_RET_PROHIBIT)
		return true;
	return (result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       route.ifindex == ifindex;
}

static __always_inline bool shares_prefix(const struct packet *packet)
{
	return packet->source.word_be[0] == packet->destination.word_be[0] &&
	       packet->source.word_be[1] == packet->destination.word_be[1];
}

/* Neighbour discovery (RFC 4861: hop limit 255) and MLD (RFC 3810: hop limit 1). */
static __always_inline bool is_neighbour_discovery(struct xdp_md *ctx,
						   const struct verdict_context *context)
{
	const struct packet *packet = context->packet;
	__u8 type = packet->icmp_type;

	if (packet->ip_version != 6 || !is_icmp(packet) ||
	    packet->fragment_position != FRAGMENT_NONE)
		return false;
	if (!context->server && !context->router && !is_link_local(packet))
		return false;
	if (type == ICMP6_MLD_REPORT || type == ICMP6_MLD_DONE || type == ICMP6_MLD2_REPORT)
		return packet->hop_limit == 1;
	if (type != ICMP6_ROUTER_SOLICIT && type != ICMP6_NEIGHBOUR_SOLICIT &&
	    type != ICMP6_NEIGHBOUR_ADVERT)
		return false;
	if (packet->hop_limit != 255)
		return false;
	/* no router forwards a packet from a link-local address (RFC 4291, 2.5.6) */
	if (is_link_scope(packet) || is_link_local(packet))
		return true;
	/* Router solicitations go to the group of all routers (RFC 4861, 4.1). The others may go to
	 * an address of the link. Both tests have to hold, because the routing table alone is not
	 * reliable: policy routing or another interface's settings may decide.
	 */
	return type != ICMP6_ROUTER_SOLICIT && shares_prefix(packet) && stays_on_link(ctx, packet);
}

/* Does the form of the packet say that it is for hosts of the link: to a group of the link, a question about
 * the members of any group (RFC 3376, 4.1; RFC 3810, 5.1), or neighbour discovery within one prefix?
 */
static __always_inline bool is_for_link(const struct packet *packet)
{
	bool ipv6 = packet->ip_version == 6;
	bool icmp6 = ipv6 && is_icmp(packet) && packet->fragment_position != FRAGMENT_LATER;
	__u32 first = bpf_ntohl(packet->destination.word_be[ipv6 ? 0 : 3]);
	bool group = ipv6 ? first >> 24 == 0xff : first >> 28 == 0xe;

	if (is_link_group(packet))
		return true;
	if (group && packet->hop_limit == 1)
		return icmp6 ? packet->icmp_type == ICMP6_MLD_QUERY :
			       packet->protocol == PROTOCOL_IGMP;
	return icmp6 && packet->hop_limit == 255 && shares_prefix(packet) &&
	       (packet->icmp_type == ICMP6_NEIGHBOUR_SOLICIT ||
		packet->icmp_type == ICMP6_NEIGHBOUR_ADVERT);
}

static __always_inline bool is_rogue_router(const struct packet *packet)
{
	if (!is_icmp(packet) || packet->fragment_position == FRAGMENT_LATER)
		return false;
	if (packet->ip_version == 4)
		return packet->icmp_type == ICMP4_REDIRECT ||
		       packet->icmp_type == ICMP4_ROUTER_ADVERT;
	return packet->icmp_type == ICMP6_ROUTER_ADVERT || packet->icmp_type == ICMP6_REDIRECT;
}

static __always_inline bool is_vrrp(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_VRRP;
}

/* To the group of all VRRP routers (RFC 9568, 5.1), with the TTL that no router forwards. */
static __always_inline bool is_vrrp_advertisement(const struct packet *packet)
{
	const __be32 *word_be = packet->destination.word_be;

	if (!is_vrrp(packet) || packet->hop_limit != 255 ||
	    packet->fragment_position != FRAGMENT_NONE)
		return false;
	if (packet->ip_version == 4)
		return word_be[3] == bpf_htonl(VRRP_GROUP_IPV4);
	return word_be[0] == bpf_htonl(0xff020000) && !word_be[1] && !word_be[2] &&
	       word_be[3] == bpf_htonl(0x12);
}

/* Does the policy deny frames of this EtherType without an alarm? */
static __always_inline bool is_quiet_ethertype(const struct policy *policy, __u16 ethertype)
{
	__u32 slot = policy->slot;
	const struct settings *settings = bpf_map_lookup_elem(&policies, &slot);

	if (!settings || !policy->generation)
		return false;
	for (int i = 0; i < QUIET_ETHERTYPES_MAX; i++)
		if (settings->quiet_ethertypes[i] == ethertype)
			return true;
	return false;
}

/* A DHCP server's message to a client. */
static __always_inline bool is_dhcp_server(const struct packet *packet)
{
	__u16 client = PORT_DHCP6_CLIENT, server = PORT_DHCP6_SERVER;

	if (packet->ip_version == 4) {
		client = PORT_DHCP4_CLIENT;
		server = PORT_DHCP4_SERVER;
	}
	return packet->protocol == IPPROTO_UDP && packet->source_port == server &&
	       packet->destination_port == client;
}

/* A client's message to a DHCP server (RFC 2131, RFC 8415). */
static __always_inline bool is_dhcp_client(const struct packet *packet)
{
	__u16 client = PORT_DHCP6_CLIENT, server = PORT_DHCP6_SERVER;

	if (packet->ip_version == 4) {
		client = PORT_DHCP4_CLIENT;
		server = PORT_DHCP4_SERVER;
	}
	return packet->protocol == IPPROTO_UDP && packet->fragment_position == FRAGMENT_NONE &&
	       packet->source_port == client && packet->destination_port == server;
}

/* A global function, for its own stack. */
__noinline int note_lessor(__u32 server, const struct address *lessor)
{
	struct lessors *entry;
	__u32 id = server, at;

	if (!lessor)
		return 0;
	entry = bpf_map_lookup_elem(&lessors, &id);
	if (!entry) {
		struct lessors fresh = {};

		/* when another CPU has just added the entry, this one finds it */
		bpf_map_update_elem(&lessors, &id, &fresh, BPF_NOEXIST);
		entry = bpf_map_lookup_elem(&lessors, &id);
		if (!entry)
			return 0;
	}
	if (entry->count > LESSORS_MAX)
		return 0;
	for (__u32 i = 0; i < LESSORS_MAX; i++)
		if (i < entry->count && same_address(&entry->known[i], lessor))
			return 0;
	at = __sync_fetch_and_add(&entry->count, 1);
	if (at < LESSORS_MAX)
		entry->known[at & (LESSORS_MAX - 1)] = *lessor;
	return 0;
}

/* May the server renew a lease there? A global function, as above. */
__noinline int is_lessor(__u32 server, const struct address *lessor)
{
	const struct lessors *entry;
	__u32 id = server;

	if (!lessor)
		return 0;
	entry = bpf_map_lookup_elem(&lessors, &id);
	if (!entry)
		return 0;
	if (entry->count > LESSORS_MAX)
		return 1;
	for (__u32 i = 0; i < LESSORS_MAX; i++)
		if (i < entry->count && same_address(&entry->known[i], lessor))
			return 1;
	return 0;
}

/* DHCP that passes. The form of its destination has to keep it on the link. A renewal by unicast
 * needs an `out` need. Without one the client broadcasts in the end.
 */
static __always_inline bool is_dhcp(const struct verdict_context *context)
{
	return context->policy->flags & SETTINGS_DHCP && is_dhcp_client(context->packet) &&
	       (context->server || is_link_local(context->packet)) &&
	       is_link_scope(context->packet);
}

#endif
