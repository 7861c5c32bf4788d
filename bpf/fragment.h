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
};

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

/* The rule of the first fragment, if it passed and this later one may follow it, or 0. `outdated`:
 * the first one passed under another policy.
 */
static __always_inline __u32 find_first_fragment(const struct verdict_context *context,
						 bool *outdated)
{
	const struct packet *packet = context->packet;
	struct fragment_key key;
	struct fragment *first;

	if (packet->fragment_position != FRAGMENT_LATER || packet->bad_fragment)
		return 0;
	fill_fragment_key(&key, packet);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || !is_within(first->passed_ns, context->now_ns, TIMEOUT_FRAGMENT_S) ||
	    first->protocol != packet->fragment_protocol)
		return 0;
	/* it would overwrite headers by which the first one was permitted */
	if (packet->fragment_offset < first->headers_bytes)
		return 0;
	/* the live policy may no longer permit the first one */
	if (first->generation != context->policy.generation) {
		*outdated = true;
		return 0;
	}
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
	};
	struct fragment *earlier;

	fill_fragment_key(&key, packet);
	earlier = bpf_map_lookup_elem(&fragments, &key);
	/* a second first fragment with a shorter chain must not expose the headers of the other */
	if (earlier && is_within(earlier->passed_ns, now_ns, TIMEOUT_FRAGMENT_S) &&
	    earlier->headers_bytes > fragment.headers_bytes)
		fragment.headers_bytes = earlier->headers_bytes;

	if (bpf_map_update_elem(&fragments, &key, &fragment, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
}

#endif
