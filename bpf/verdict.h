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
	const struct policy *policy;
	struct flow_key key; /* of the flow in which the packet would be an answer */
	__u64 now_ns;
	bool router; /* of the policy, by address and MAC */
	bool edited; /* an edit has the port, so the verdict holds for this packet alone */
};

/* The function that completes a decision. Each is called from decide() itself, for stack is scarce. */
enum step {
	STEP_NONE,
	STEP_UNKNOWN_SOURCE,
	STEP_ROUTER, /* unknown as well, but expected */
	STEP_QUARANTINED,
	STEP_QUARANTINED_REPLY,
	STEP_FLOW,
	STEP_STRAY,
	STEP_MASK = 7,
	STEP_EDITED = 16, /* beside one of these: see `edited` of struct verdict_context */
};

enum {
	/* What decides which needs a server has, beside its profile. No bits of enum step. */
	PACKED_FLAGS = SERVER_RANGES | SERVER_SPORTS | SERVER_NAMED,
	PACKED_PROFILE_SHIFT = 8,
};

/* A server in the word that one global function hands to the next, so that none looks it up again. A
 * pointer to it can't be handed on, and stack is scarce. A table has 2^24 entries at most.
 */
static __always_inline __u32 pack_server(const struct server *server)
{
	return server->profile << PACKED_PROFILE_SHIFT | (server->flags & PACKED_FLAGS);
}

static __always_inline void unpack_server(struct server *server, __u32 packed)
{
	server->profile = packed >> PACKED_PROFILE_SHIFT;
	server->flags = packed & PACKED_FLAGS;
}

/* These stay whatever the verdict is in the end. */
enum {
	EFFECTS_OF_QUESTIONS = EFFECT_COUNT_ASKED | EFFECT_COUNT_REFUSED,
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
