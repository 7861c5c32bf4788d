/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames to other hosts of the link. A NIC that is promiscuous, or in a bridge, sees what a switch
 * floods. This machine does not forward such a frame, so its drop says nothing about the sender.
 */
#ifndef PORTCULLIS_ELSEWHERE_H
#define PORTCULLIS_ELSEWHERE_H

#include "verdict.h"

enum {
	MAC_GROUP_BIT = 1, /* of the first byte, IEEE 802 */
	/* Five bytes, before the id of a VRRP router (RFC 9568, 7.3). */
	MAC_VRRP_IPV4 = 0x00005e0001,
	MAC_VRRP_IPV6 = 0x00005e0002,
};

/* Does this machine take frames to this MAC for certain? */
static __always_inline bool is_own_mac(__u64 mac)
{
	return mac == read_state(STATE_OWN_MAC) || mac >> 40 & MAC_GROUP_BIT ||
	       mac >> 8 == MAC_VRRP_IPV4 || mac >> 8 == MAC_VRRP_IPV6;
}

/* A MAC is another host's only if the policy has it, or if that host was heard on the link. In a bridge with
 * several ports a host of the policy may be behind another one, so it has to be heard on this link. A global
 * function, for the verifier.
 */
__noinline int is_elsewhere(const struct policy *policy, const struct packet *packet)
{
	__u64 mac, nic;
	__u32 *flags;

	if (!policy || !packet)
		return 0;
	mac = read_mac(packet->destination_mac);
	nic = read_state(STATE_OWN_MAC);
	/* nothing is known of this machine's MACs: then each may be its own */
	if (!nic || is_own_mac(mac) || bpf_map_lookup_elem(&own_macs, &mac))
		return 0;
	if (bpf_map_lookup_elem(&neighbour_macs, &mac))
		return 1;
	flags = bpf_map_lookup_elem(&own_macs, &nic);
	return !(flags && *flags & OWN_MAC_BRIDGED) && find_mac(policy, 0, mac);
}

/* A global function, for its own stack: account()'s is full. */
__noinline int learn_mac(const struct packet *packet)
{
	__u32 known = 1;
	__u64 mac;

	if (!packet)
		return 0;
	mac = read_mac(packet->source_mac);
	/* read first: a hash of all CPUs is written as seldom as possible */
	if (!(mac >> 40 & MAC_GROUP_BIT) && !bpf_map_lookup_elem(&neighbour_macs, &mac))
		bpf_map_update_elem(&neighbour_macs, &mac, &known, BPF_ANY);
	return 0;
}

#endif
