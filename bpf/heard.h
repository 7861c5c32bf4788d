/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The memory of peers that asked a service. A late answer to such a peer is expected, and an answer
 * to anybody else is an attack.
 */
#ifndef PORTCULLIS_HEARD_H
#define PORTCULLIS_HEARD_H

#include "packet.h"
#include "verdict_cache.h"

enum {
	HEARD_WORD_BITS = 48, /* of the filter in a word */
	HEARD_BITS = 4,       /* that each entry sets */
	/* In place of protocol and port: the peer sent a packet whose ports the tracker can't read. */
	HEARD_ANY = 0,
};

/* Bits of what find_heard() returns. In a full region an entry may be found by chance. */
enum heard {
	HEARD_NEVER = 0,
	HEARD_FOUND = 1,
	HEARD_FULL = 2, /* the region is full: everybody counts as heard */
};

/* Where an entry stands in a half, and its bits. */
struct heard_entry {
	__u64 bits;
	__u32 region;
	__u32 index; /* in its region */
	__u32 words; /* of a region */
};

/* By the id, for a server with several addresses may answer from another one than was asked. */
static __always_inline void fill_heard_entry(struct heard_entry *entry, __u32 server,
					     const struct address *peer, __u8 protocol, __u16 port)
{
	__u64 hash = server * GOLDEN_RATIO;

	entry->region = (hash >> 40) & (HEARD_REGIONS - 1);
	hash = (hash * GOLDEN_RATIO ^ hash_address(peer)) * GOLDEN_RATIO;
	hash = (hash ^ ((__u32)protocol << 16 | port)) * GOLDEN_RATIO;
	hash ^= hash >> 32;
	entry->words = read_state(STATE_HEARD_WORDS);
	entry->index = (__u32)hash & (entry->words - 1);
	hash *= GOLDEN_RATIO;
	entry->bits = 0;
	for (int i = 0; i < HEARD_BITS; i++) {
		entry->bits |= 1ULL << ((hash >> 58) * HEARD_WORD_BITS >> 6);
		hash <<= 6;
	}
}

static __always_inline __u64 heard_epoch(__u64 now_ns)
{
	return now_ns / (HEARD_EPOCH_S * 1000000000ULL) & 0xffff;
}

/* Index of a region in `heard_bits`. The halves take turns. */
static __always_inline __u32 heard_region(const struct heard_entry *entry, __u64 epoch)
{
	return (epoch & 1) * HEARD_REGIONS + entry->region;
}

static __always_inline __u64 *locate_heard_word(const struct heard_entry *entry, __u64 epoch)
{
	__u32 index = heard_region(entry, epoch) * entry->words + entry->index;

	return entry->words ? bpf_map_lookup_elem(&heard, &index) : NULL;
}

/* Sets bits below the epoch in a word, and empties it first if it is of another epoch. Returns how
 * many bits were clear. CPUs may meet here: then one of them may be counted for another.
 */
static __always_inline __u32 set_heard_bits(__u64 *word, __u64 epoch, __u64 bits)
{
	__u64 old = *(volatile __u64 *)word, missing;
	__u32 count = 0;

	if (old >> HEARD_WORD_BITS != epoch) {
		__u64 fresh = epoch << HEARD_WORD_BITS | bits;
		__u64 found = __sync_val_compare_and_swap(word, old, fresh);

		old = found == old ? epoch << HEARD_WORD_BITS : found;
		if (old >> HEARD_WORD_BITS != epoch)
			return 0;
	}
	missing = bits & ~old;
	if (missing)
		__sync_fetch_and_or(word, bits);
	for (int i = 0; i < HEARD_BITS; i++) {
		count += !!missing;
		missing &= missing - 1;
	}
	return count;
}

static __always_inline void count_heard_bits(__u64 *word, __u64 epoch, __u32 count)
{
	__u64 old = *(volatile __u64 *)word;

	if (old >> HEARD_WORD_BITS != epoch &&
	    __sync_val_compare_and_swap(word, old, epoch << HEARD_WORD_BITS | count) == old)
		return;
	__sync_fetch_and_add(word, count);
}

/* A global function: the verifier proves it once. */
__noinline int remember_heard(__u32 server, const struct address *peer, __u8 protocol, __u16 port,
			      __u64 now_ns)
{
	__u64 epoch = heard_epoch(now_ns), *word;
	struct heard_entry entry;
	__u32 region, count;

	if (!peer)
		return 0;
	fill_heard_entry(&entry, server, peer, protocol, port);
	word = locate_heard_word(&entry, epoch);
	if (!word)
		return 0;
	count = set_heard_bits(word, epoch, entry.bits);
	if (!count)
		return 0;
	region = heard_region(&entry, epoch);
	word = bpf_map_lookup_elem(&heard_bits, &region);
	if (word)
		count_heard_bits(word, epoch, count);
	return 0;
}

/* The peer asked in this flow, or its server still answers there: for answers that come after the flow's
 * end. As often as the flow itself is written.
 */
static __always_inline void remember_request(const struct flow_key *key, __u32 server, __u64 now_ns)
{
	bool icmp = key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6;

	remember_heard(server, &key->peer, key->protocol,
		       bpf_ntohs(icmp ? key->peer_port_be : key->server_port_be), now_ns);
}

/* Returns bits of enum heard, and HEARD_FOUND alone if the entry is surely there. A global function,
 * as above.
 */
__noinline int find_heard(__u32 server, const struct address *peer, __u8 protocol, __u16 port,
			  __u64 now_ns)
{
	const __u64 filter = (1ULL << HEARD_WORD_BITS) - 1;
	struct heard_entry entry;
	int result = HEARD_NEVER;

	if (!peer)
		return HEARD_NEVER;
	fill_heard_entry(&entry, server, peer, protocol, port);
	for (int age = 0; age < 2; age++) {
		__u64 epoch = (heard_epoch(now_ns) - age) & 0xffff;
		__u32 region = heard_region(&entry, epoch);
		__u64 *word = locate_heard_word(&entry, epoch);

		bool found = word && *word >> HEARD_WORD_BITS == epoch &&
			     (*word & entry.bits) == entry.bits;
		bool full;

		word = bpf_map_lookup_elem(&heard_bits, &region);
		full = word && *word >> HEARD_WORD_BITS == epoch &&
		       (*word & filter) > (__u64)entry.words * HEARD_WORD_BITS / 2;
		if (found && !full)
			return HEARD_FOUND;
		result |= (found ? HEARD_FOUND : 0) | (full ? HEARD_FULL : 0);
	}
	return result;
}

#endif
