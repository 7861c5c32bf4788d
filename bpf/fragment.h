/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The memory of first fragments that passed, by which later fragments pass.
 */
#ifndef PORTCULLIS_FRAGMENT_H
#define PORTCULLIS_FRAGMENT_H

#include "flow.h"
#include "verdict.h"

enum {
	/* The part of a transport header that a verdict depends on, rounded up to 8 bytes. */
	PORTS_BYTES = 8,
	TCP_HEAD_BYTES = 16,
	/* The data of a datagram. Later fragments carry no more, so a `limit` bounds bytes too. */
	DATAGRAM_MAX = 65535,
};

/* No rule has this number, see enum rule_flag. */
static const __u32 FIRST_OUTDATED = 0x80000000;
static const __u32 FIRST_CONTRADICTED = 0x80000001;

/* How long a receiver may keep a first fragment: net.ipv4.ipfrag_time, net.ipv6.ip6frag_time. */
static __always_inline __u32 reassembly_timeout_s(const struct packet *packet)
{
	return packet->ip_version == 6 ? TIMEOUT_FRAGMENT_IPV6_S : TIMEOUT_FRAGMENT_S;
}

/* The fields by which receivers reassemble a datagram. In IPv6 the protocol is not among them (RFC
 * 8200, 4.5).
 */
static __always_inline void fill_fragment_key(struct fragment_key *key, const struct packet *packet)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = packet->source;
	key->destination = packet->destination;
	key->id = packet->fragment_id;
	if (packet->ip_version == 4)
		key->protocol = packet->fragment_protocol;
}

/* The rule of the first fragment, if it passed and this later one may follow it. FIRST_OUTDATED: it
 * passed under another policy, or under edits that have changed or ended. FIRST_CONTRADICTED: this one can't be a part of the same datagram. 0: it
 * is not known. A global function: the verifier proves it once.
 */
__noinline __u32 find_first_fragment(const struct packet *packet, const struct policy *policy,
				     __u64 now_ns)
{
	struct fragment_key key;
	struct fragment *first;

	if (!packet || !policy || packet->fragment_position != FRAGMENT_LATER ||
	    packet->bad_fragment)
		return 0;
	fill_fragment_key(&key, packet);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || !is_within(first->passed_ns, now_ns, reassembly_timeout_s(packet)))
		return 0;
	/* it would overwrite headers by which the first one was permitted */
	if (first->protocol != packet->fragment_protocol ||
	    packet->fragment_offset < first->headers_bytes ||
	    first->later_bytes + packet->left > DATAGRAM_MAX)
		return FIRST_CONTRADICTED;
	/* the live policy and the edits may no longer permit the first one */
	if (first->generation != policy->generation || first->edits != policy->edits)
		return FIRST_OUTDATED;
	if (first->rule & RULE_EDIT && !is_edit_in_force(policy, first->rule, now_ns))
		return FIRST_OUTDATED;
	return first->rule;
}

static __always_inline void remember_fragment(const struct packet *packet,
					      const struct decision *decision, __u64 now_ns)
{
	struct fragment_key key;
	struct fragment fragment = {
		.passed_ns = now_ns,
		.rule = decision->rule,
		.generation = decision->generation,
		.headers_bytes = packet->offset - packet->fragment_data_offset +
				 (packet->protocol == IPPROTO_TCP ? TCP_HEAD_BYTES : PORTS_BYTES),
		.protocol = packet->fragment_protocol,
		.edits = decision->edits,
	};
	struct fragment *earlier;

	fill_fragment_key(&key, packet);
	earlier = bpf_map_lookup_elem(&fragments, &key);
	/* a second first fragment with a shorter chain must not expose the headers of the other */
	if (earlier && is_within(earlier->passed_ns, now_ns, reassembly_timeout_s(packet)) &&
	    earlier->headers_bytes > fragment.headers_bytes)
		fragment.headers_bytes = earlier->headers_bytes;

	if (bpf_map_update_elem(&fragments, &key, &fragment, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
}

/* A global function, as remember_refused(). */
__noinline int count_fragment(const struct packet *packet)
{
	struct fragment_key key;
	struct fragment *first;

	if (!packet)
		return 0;
	fill_fragment_key(&key, packet);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (first)
		__sync_fetch_and_add(&first->later_bytes, packet->left);
	return 0;
}

/* Drops a later fragment under the kind of its first one. `reason`: only if that was the first one's;
 * 0: any. Returns 0 if no such first one was dropped. A global function: the verifier proves it once.
 */
__noinline int drop_like_first(const struct packet *packet, __u64 now_ns, __u32 reason,
			       struct decision *decision)
{
	const struct refused_fragment *first;
	struct fragment_key key;

	if (!packet || !decision || packet->fragment_position != FRAGMENT_LATER)
		return 0;
	fill_fragment_key(&key, packet);
	first = bpf_map_lookup_elem(&refused_fragments, &key);
	if (!first || !is_within(first->refused_ns, now_ns, reassembly_timeout_s(packet)) ||
	    first->fragment_protocol != packet->fragment_protocol ||
	    (reason && first->reason != reason))
		return 0;
	drop(decision, first->reason, first->flags);
	decision->port = first->port;
	decision->protocol = first->protocol;
	return 1;
}

/* A global function, for its own stack: account()'s is full. */
__noinline int remember_refused(const struct packet *packet, const struct decision *decision,
				__u64 now_ns)
{
	struct fragment_key key;
	struct refused_fragment fragment = {};

	if (!packet || !decision)
		return 0;
	fragment.refused_ns = now_ns;
	fragment.port = decision->port;
	fragment.protocol = decision->protocol;
	fragment.fragment_protocol = packet->fragment_protocol;
	fragment.reason = decision->reason;
	/* the mode is the live policy's when the later fragment comes */
	fragment.flags = decision->flags & ~DROP_WOULD;
	fill_fragment_key(&key, packet);
	bpf_map_update_elem(&refused_fragments, &key, &fragment, BPF_ANY);
	return 0;
}

#endif
