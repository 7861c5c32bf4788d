/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The memory of connections that servers began to open themselves: a peer's bare SYN may cross the
 * server's own (RFC 9293, 3.5), and the SYN+ACK that answers it reveals no listener.
 *
 * Both mistakes would hurt. An opening that is forgotten lets an outsider raise the alarm of a
 * backdoor, and one that never was hides a listener. So an entry is exact but for a tag of 32 bits,
 * and a bucket that is full of live entries says that it may have lost one. Then the SYN+ACK is
 * dropped, and quietly so.
 */
#ifndef PORTCULLIS_OWN_OPENINGS_H
#define PORTCULLIS_OWN_OPENINGS_H

#include "verdict_cache.h"

enum {
	OPENING_TICK_NS = 1 << OPENING_TICK_SHIFT,
	OPENING_SECOND = 1000000000 / OPENING_TICK_NS,
	/* 120 s. A SYN is sent again within this time. */
	OPENING_LIFE = 120000000000LL >> OPENING_TICK_SHIFT,
	/* Times that are less than so much ahead count as now: the coarse clock of another CPU may be ahead. */
	OPENING_LEAD = 1 << 20,
};

/* What find_own_opening() returns. */
enum own_opening {
	OPENING_NEVER = 0,
	OPENING_FOUND = 1,
	OPENING_LOST = 2, /* it is not there, but may have been pushed out within its time */
};

/* The upper 32 bits are the tag, and the lower ones select the bucket. */
static __always_inline __u64 hash_own_opening(const struct flow_key *key)
{
	__u64 hash = (hash_address(&key->server) ^ key->protocol) * GOLDEN_RATIO;

	hash = (hash ^ hash_address(&key->peer)) * GOLDEN_RATIO;
	hash = (hash ^ ((__u32)key->server_port_be << 16 | key->peer_port_be)) * GOLDEN_RATIO;
	return hash ^ hash >> 32;
}

/* By the id, so that no server pushes out another one's: ids count up, so few servers share a region. */
static __always_inline struct opening_bucket *locate_opening(__u32 server, __u64 hash)
{
	__u32 index = (server & (OPENING_REGIONS - 1)) * OPENING_BUCKETS +
		      ((__u32)hash & (OPENING_BUCKETS - 1));

	return bpf_map_lookup_elem(&own_openings, &index);
}

/* In ticks, and OPENING_LEAD too old. An empty entry is older than all others. */
static __always_inline __u32 opening_age(__u64 entry, __u64 now_ns)
{
	return entry ? (__u32)(now_ns >> OPENING_TICK_SHIFT) - (__u32)entry + OPENING_LEAD : ~0U;
}

/* Once a second for an opening, for CPUs share the map. Replaces the oldest of its bucket. If two CPUs
 * replace the same one at once, one of the two is lost.
 */
static __always_inline void add_own_opening(const struct flow_key *key, __u32 server, __u64 now_ns)
{
	__u64 hash = hash_own_opening(key);
	__u64 fresh = hash >> 32 << 32 | (__u32)(now_ns >> OPENING_TICK_SHIFT);
	struct opening_bucket *bucket = locate_opening(server, hash);
	__u32 oldest_age = 0, oldest = 0;

	if (!bucket)
		return;
	for (__u32 place = 0; place < OPENINGS_PER_BUCKET; place++) {
		__u64 entry = *(volatile __u64 *)&bucket->entries[place];
		__u32 age = opening_age(entry, now_ns);

		if (entry && entry >> 32 == hash >> 32) {
			if (age >= OPENING_SECOND + OPENING_LEAD)
				*(volatile __u64 *)&bucket->entries[place] = fresh;
			return;
		}
		if (age > oldest_age) {
			oldest_age = age;
			oldest = place;
		}
	}
	*(volatile __u64 *)&bucket->entries[oldest & (OPENINGS_PER_BUCKET - 1)] = fresh;
}

/* As add_own_opening(). A global function, for its own stack. */
__noinline int note_own_opening(const struct flow_key *key, __u32 server, __u64 now_ns)
{
	if (key)
		add_own_opening(key, server, now_ns);
	return 0;
}

/* Did the server itself begin to open this flow? Then a peer's SYN has crossed the server's own. Returns
 * enum own_opening. A global function: the verifier proves it once.
 */
__noinline int find_own_opening(const struct flow_key *key, __u32 server, __u64 now_ns)
{
	struct opening_bucket *bucket;
	__u32 live = 0;
	__u64 hash;

	if (!key)
		return OPENING_NEVER;
	hash = hash_own_opening(key);
	bucket = locate_opening(server, hash);
	if (!bucket)
		return OPENING_NEVER;
	for (__u32 place = 0; place < OPENINGS_PER_BUCKET; place++) {
		__u64 entry = *(volatile __u64 *)&bucket->entries[place];

		if (opening_age(entry, now_ns) > OPENING_LIFE + OPENING_LEAD)
			continue;
		if (entry >> 32 == hash >> 32)
			return OPENING_FOUND;
		live++;
	}
	return live == OPENINGS_PER_BUCKET ? OPENING_LOST : OPENING_NEVER;
}

#endif
