/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Kinds of drops that have no row, because their server's quota is used up. A kind that goes to many
 * destinations gets one all the same, from a small reserve: so a worm rises out of a flood of ports.
 */
#ifndef PORTCULLIS_HOT_KINDS_H
#define PORTCULLIS_HOT_KINDS_H

#include "contacts.h"
#include "policy.h"
#include "verdict_cache.h"

enum {
	HOT_WINDOW_SHIFT = 33, /* a window of time is 2^33 ns, which is 8.6 s */
	HOT_WINDOW_MASK = 0x7fff,
	HOT_SAMPLED = 0x8000,
	HOT_DESTINATIONS = 2, /* make a kind hot while no reserve row is taken */
	NEVER_HOT = 255,      /* more destinations than a kind can have */
};

/* What this CPU knows of a kind without a row in this window of time. */
static __always_inline struct hot_kind *find_hot_kind(const struct ledger_key *kind, __u64 now_ns)
{
	__u64 owner = ((__u64)kind->server << 8 | kind->protocol) * GOLDEN_RATIO;
	__u16 tag = (owner ^ ((__u64)kind->reason << 8 | kind->flags)) * GOLDEN_RATIO >> 48;
	__u16 window = now_ns >> HOT_WINDOW_SHIFT & HOT_WINDOW_MASK;
	__u32 index = bpf_get_smp_processor_id() * HOT_KINDS_PER_CPU +
		      ((kind->port ^ owner >> 48) & (HOT_KINDS_PER_CPU - 1));
	struct hot_kind *hot = bpf_map_lookup_elem(&hot_kinds, &index);

	if (hot && (hot->tag != tag || (hot->window & HOT_WINDOW_MASK) != window)) {
		hot->destinations = 0;
		hot->tag = tag;
		hot->window = window;
	}
	return hot;
}

static __always_inline __u32 count_bits(__u32 word)
{
	word -= word >> 1 & 0x55555555;
	word = (word & 0x33333333) + (word >> 2 & 0x33333333);
	return ((word + (word >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24;
}

/* Notes a destination. Returns how many there are, or 0 if it was noted before. */
static __always_inline __u32 add_destination(struct cpu *cpu, struct hot_kind *hot,
					     const struct address *destination)
{
	__u64 hash = (hash_address(destination) ^ read_secret(cpu)) * read_secret(cpu);
	__u32 bit = 1U << (hash >> 59);

	if (hot->destinations & bit)
		return 0;
	hot->destinations |= bit;
	return count_bits(hot->destinations);
}

static __always_inline bool was_sampled(const struct hot_kind *hot)
{
	return hot->window & HOT_SAMPLED;
}

#endif
