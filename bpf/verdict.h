/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The state that the steps of a verdict share, and the ways in which they end.
 */
#ifndef PORTCULLIS_VERDICT_H
#define PORTCULLIS_VERDICT_H

#include "policy.h"

struct verdict_context {
	const struct packet *packet;
	const struct server *server; /* of the source address, or NULL */
	struct policy policy;
	struct flow_key key; /* of the flow in which the packet would be an answer */
	__u64 now_ns;
	bool router; /* of the policy, by address and MAC */
};

static __always_inline void pass(struct decision *decision, enum reason reason, __u32 rule,
				 __u32 effects)
{
	decision->verdict = VERDICT_PASS;
	decision->reason = reason;
	decision->rule = rule;
	decision->effects = effects;
}

static __always_inline void drop(struct decision *decision, enum reason reason, __u8 flags)
{
	decision->verdict = VERDICT_DROP;
	decision->reason = reason;
	decision->flags |= flags;
}

static __always_inline void drop_own_port(struct decision *decision, enum reason reason, __u16 port)
{
	drop(decision, reason, DROP_OWN_PORT);
	decision->port = port;
}

#endif
