/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Edits: needs that somebody has added to a server or taken away from it by hand, for a time. They lie
 * beside the policy, in a table of their own, and the kernel itself knows when each ends. So no daemon
 * has to live until then.
 *
 * The tool flattens them as it flattens a policy: a row of ports names a set of peers, and the longest
 * prefix of that set which has the peer decides. Where several edits overlap, a row has the latest end
 * of those that allow, and of those that deny. That is all that the time can ask.
 */
#ifndef PORTCULLIS_EDITS_H
#define PORTCULLIS_EDITS_H

#include "policy.h"

/* What find_edit() returns, beside RULE_EDIT and the number of the edit that decides. */
enum edit_answer {
	EDIT_CONCERNED =
		0x20000000, /* an edit has the port: the verdict may depend on peer and time */
	EDIT_ALLOWS = 0x40000000,
	EDIT_DENIES = 0x80000000, /* goes before all that permits the packet */
};

/* In struct edit_key, above the port. */
enum {
	EDIT_DIRECTION_SHIFT = 24,
	EDIT_PROTOCOL_SHIFT = 16,
};

static __always_inline bool has_edits(const struct policy *policy)
{
	return policy->edits & EDITS_SLOT_MASK;
}

static __always_inline void *find_edit_table(__u32 edits)
{
	__u32 slot = (edits & EDITS_SLOT_MASK) - 1;

	return bpf_map_lookup_elem(&edit_tables, &slot);
}

/* What the edits say about a flow between a server and a peer, see enum edit_answer. 0: none has the
 * port. `edits`: of struct policy. `what`: see join_flow(). A global function, for its own stack.
 */
__noinline __u32 find_edit(__u32 edits, __u32 server, __u32 what, const struct address *peer,
			   __u64 now_ns)
{
	const struct edit_cell *cell, *of_peer;
	struct edit_key key = {};
	__u32 answer = EDIT_CONCERNED;
	void *table = find_edit_table(edits);

	if (!table || !peer)
		return 0;
	key.prefix_bits = 64;
	key.scope = server;
	key.place.word_be[0] = bpf_htonl(what);
	cell = bpf_map_lookup_elem(table, &key);
	if (!cell)
		return 0;
	if (cell->set) {
		key.prefix_bits = 160;
		key.scope = EDIT_SCOPE_SET | cell->set;
		key.place = *peer;
		of_peer = bpf_map_lookup_elem(table, &key);
		if (of_peer)
			cell = of_peer;
	}
	if (cell->allow_until_ns > now_ns)
		answer = EDIT_ALLOWS | EDIT_CONCERNED | RULE_EDIT | cell->allow;
	if (cell->deny_until_ns > now_ns)
		answer = (answer & ~RULE_ID_MASK) | EDIT_DENIES | RULE_EDIT | cell->deny;
	return answer;
}

/* A flow as find_edit() takes it. `port`: of the server for `in`, of the peer for `out`; ICMP: the type of
 * the request.
 */
static __always_inline __u32 join_flow(enum edit_direction direction, __u8 protocol, __u16 port)
{
	return (__u32)direction << EDIT_DIRECTION_SHIFT | (__u32)protocol << EDIT_PROTOCOL_SHIFT |
	       port;
}

/* The edit that decided, in the form of a rule. */
static __always_inline __u32 edit_rule(__u32 answer)
{
	return answer & (RULE_EDIT | RULE_ID_MASK);
}

/* The rule by which a flow is permitted: `rule` of the policy, or an edit's. 0: it is not. */
static __always_inline __u32 permit_by_edit(__u32 rule, __u32 answer)
{
	if (answer & EDIT_DENIES)
		return 0;
	return !rule && answer & EDIT_ALLOWS ? edit_rule(answer) : rule;
}

/* Does the edit of this rule still hold? */
static __always_inline bool is_edit_in_force(const struct policy *policy, __u32 rule, __u64 now_ns)
{
	void *table = find_edit_table(policy->edits);
	const struct edit_cell *cell;
	struct edit_key key = {};

	if (!table)
		return false;
	key.prefix_bits = 160;
	key.scope = EDIT_SCOPE_NUMBER | (rule & RULE_ID_MASK);
	cell = bpf_map_lookup_elem(table, &key);
	return cell && cell->allow_until_ns > now_ns;
}

/* The generation that a flow notes: of the policy that permitted it, or 0, which no policy has. So a flow
 * that an edit permitted is asked anew for each packet.
 */
static __always_inline __u32 noted_generation(__u32 generation, __u32 rule)
{
	return rule & RULE_EDIT ? 0 : generation;
}

#endif
