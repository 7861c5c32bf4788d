/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How often each need was used, and when last. Each CPU counts for itself, by the number that the tool
 * gave to the need: it stays the same across policies.
 */
#ifndef PORTCULLIS_USE_H
#define PORTCULLIS_USE_H

#include "policy.h"

/* The slot of a generation. A packet may have read it just before a swap, and its slot stays whole until
 * the packet is done.
 */
static __always_inline __u32 find_slot(__u32 generation, __u64 now_ns)
{
	__u32 live = find_live_slot(now_ns);
	const struct settings *live_settings = bpf_map_lookup_elem(&policies, &live);

	if (live_settings && (__u32)live_settings->generation == generation)
		return live;
	for (__u32 slot = 0; slot < SLOTS; slot++) {
		__u32 index = slot;
		struct settings *settings = bpf_map_lookup_elem(&policies, &index);

		if (settings && (__u32)settings->generation == generation)
			return slot;
	}
	return SLOTS;
}

/* `number`: of the need; 0: it is not counted. */
static __always_inline void add_use(__u32 number, __u32 openings, __u64 now_ns)
{
	struct need_use *use = bpf_map_lookup_elem(&need_uses, &number);

	if (!use)
		return;
	use->openings += openings;
	use->last_ns = now_ns;
}

/* A packet passed by this rule, and opened something or not. Returns the need's number. A global function:
 * the verifier proves it once.
 */
__noinline __u32 note_use(__u32 generation, __u32 rule, __u32 openings, __u64 now_ns)
{
	__u32 slot, number, *found;
	void *table;

	/* by an edit, and so by no need */
	if (rule & RULE_EDIT)
		return 0;
	slot = find_slot(generation, now_ns);
	table = bpf_map_lookup_elem(&need_numbers, &slot);
	rule &= RULE_ID_MASK;
	found = table ? bpf_map_lookup_elem(table, &rule) : NULL;
	number = found ? *found : 0;
	add_use(number, openings, now_ns);
	return number;
}

#endif
