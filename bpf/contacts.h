/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The addresses of a row's drops: the first ones, exactly, and the most frequent ones. An alarm about a
 * server that is a prefix names the machines of it by these.
 */
#ifndef PORTCULLIS_CONTACTS_H
#define PORTCULLIS_CONTACTS_H

#include "policy.h"
#include "verdict_cache.h"

enum {
	EXACT_PACKETS = 64,    /* of a row on one CPU, each of which counts for `frequent` */
	PACKETS_PER_PICK = 64, /* later ones, of which one is picked at random and counts for all */
};

/* ---- the first ones --------------------------------------------------- */

/* Adds an address to a list that all CPUs share, unless it is there. Two CPUs that add the same one at
 * the same moment list it twice, which the tool sees. True: the list is full, and nobody needs to look
 * at it again.
 */
static __always_inline bool list_address(struct address *list, __u32 *places,
					 const struct address *address)
{
	__u32 taken = *(volatile __u32 *)places, place;

	if (taken > FIRST_ADDRESSES)
		return true;
	for (place = 0; place < FIRST_ADDRESSES && place < taken; place++)
		if (same_address(&list[place], address))
			return false;
	place = __sync_fetch_and_add(places, 1);
	if (place >= FIRST_ADDRESSES)
		return true;
	list[place] = *address;
	return false;
}

/* ---- the most frequent ones ------------------------------------------- */

/* Space-Saving (Metwally 2005): an address without a place takes that of the least frequent one, and its
 * count. So a frequent address is never missing, and a count is never too low. True: it took a place.
 */
static __always_inline bool add_frequent_address(struct frequent_address *list,
						 const struct address *address, __u32 weight)
{
	__u32 least = 0;

	for (__u32 at = 0; at < FREQUENT_ADDRESSES; at++) {
		if (same_address(&list[at].address, address)) {
			list[at].packets += weight;
			return false;
		}
		if (list[at].packets < list[least].packets)
			least = at;
	}
	list[least].address = *address;
	list[least].packets += weight;
	return list[least].packets > weight;
}

/* Counts a packet for the most frequent addresses of its row. */
static __always_inline void note_frequent(__u32 number, const struct address *source,
					  const struct address *destination, __u32 weight)
{
	__u32 index =
		bpf_get_smp_processor_id() * FREQUENT_PER_CPU + (number & (FREQUENT_PER_CPU - 1));
	struct frequent *entry = bpf_map_lookup_elem(&frequent, &index);

	if (!entry)
		return;
	if (entry->row != number || !entry->packets) {
		/* a row that is busier than the other takes its entry in the end */
		if (entry->packets > weight) {
			entry->packets -= weight;
			entry->estimated = 1;
			return;
		}
		__builtin_memset(entry, 0, sizeof(*entry));
		entry->row = number;
	}
	entry->packets += weight;
	if (weight > 1)
		entry->estimated = 1;
	if (add_frequent_address(entry->source, source, weight))
		entry->estimated = 1;
	if (add_frequent_address(entry->destination, destination, weight))
		entry->estimated = 1;
}

/* Notes the addresses of a packet of the row `number`. `full`: lists that are full, or whose address was
 * that of this CPU's last packet in the row; enum counts_flag. Returns the lists that are full from now
 * on, for certain. A global function: the verifier proves it once.
 */
__noinline int note_addresses(__u32 number, const struct address *source,
			      const struct address *destination, __u32 full, __u32 weight)
{
	struct row_addresses *lists;
	__u32 index = number;
	int found = 0;

	if (!source || !destination)
		return 0;
	if (weight)
		note_frequent(number, source, destination, weight);
	if (full == COUNTS_FLAGS)
		return 0;
	lists = bpf_map_lookup_elem(&ledger_addresses, &index);
	if (!lists)
		return 0;
	if (!(full & COUNTS_SOURCES_FULL) && list_address(lists->source, &lists->sources, source))
		found |= COUNTS_SOURCES_FULL;
	if (!(full & COUNTS_DESTINATIONS_FULL) &&
	    list_address(lists->destination, &lists->destinations, destination))
		found |= COUNTS_DESTINATIONS_FULL;
	return found;
}

/* A number that a sender can't know. It is odd. */
static __always_inline __u64 read_secret(struct cpu *cpu)
{
	if (!cpu->secret)
		cpu->secret = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	return cpu->secret;
}

/* By how much a row's packet counts for the most frequent addresses; 0: it is not picked. The packets of a
 * CPU are counted down to the next one that it picks. How many lie between two is drawn at random, so a
 * sender can't know which ones it picks.
 */
static __always_inline __u32 pick_packet(struct cpu *cpu, __u64 packets)
{
	if (packets <= EXACT_PACKETS)
		return 1;
	if (cpu->until_pick--)
		return 0;
	/* 0 to 126: one of 64 in the mean */
	cpu->until_pick = bpf_get_prandom_u32() % (2 * PACKETS_PER_PICK - 1);
	return PACKETS_PER_PICK;
}

#endif
