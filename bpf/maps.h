/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, with its four facts: who writes it, who reads it, why this type,
 * and what happens when it is full. "The tool" is the control tool; the sizes
 * given here are defaults, which [tables] of the policy overrides at attach.
 *
 * One policy generation is a set of inner maps, built and filled before any
 * packet can see them and put into the same slot of each outer map below. The
 * word state[STATE_ACTIVE] then moves to that slot, so one packet, which reads
 * it once, sees one policy. (Inner maps give sizes and not types: clang reduces
 * a type that is only named in there to a forward declaration.)
 */
#ifndef PORTCULLIS_MAPS_H
#define PORTCULLIS_MAPS_H

#include "contract.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Written by the tool, read by every program for each packet. An array of
 * words: single-copy atomic, and its lookup is inlined. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATE_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} state SEC(".maps");

/* Written by the tool while the slot is not live, read by every program. An
 * array for its inlined lookup. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct settings);
} policies SEC(".maps");

/* The text of each slot's policy, in chunks. Written and read by the tool
 * alone: kept in the kernel so that what is live can be shown and explained
 * without trusting a file that has been edited since. Sized by the text.
 */
struct inner_sources {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, SOURCE_CHUNK_BYTES);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_sources);
} sources SEC(".maps");

/* Single addresses of servers. Written by the tool before its slot goes live,
 * read by every program. A hash, for one lookup whatever the number of
 * servers. Sized by the policy, so it can't fill.
 */
struct inner_hosts {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct address));
	__uint(value_size, sizeof(struct server));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_hosts);
} hosts SEC(".maps");

/* Prefixes of servers, asked only when `hosts` has no answer and the policy
 * has prefixes. As `hosts`, but a trie, for the longest prefix wins.
 */
struct inner_prefixes {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct prefix_key));
	__uint(value_size, sizeof(struct server));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_prefixes);
} prefixes SEC(".maps");

/* Needs on a single port. As `hosts`. */
struct inner_needs {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct need_key));
	__uint(value_size, sizeof(struct need));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_needs);
} needs SEC(".maps");

/* Needs on a range of ports, cut into aligned blocks: a block is a prefix of
 * the port, so a trie finds it. Asked only when `needs` has no answer and the
 * profile has ranges. As `hosts`.
 */
struct inner_ranges {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct range_key));
	__uint(value_size, sizeof(struct need));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_ranges);
} ranges SEC(".maps");

/* Sets of peers, named by a cell; the value is the rule that holds for the
 * prefix. As `prefixes`.
 */
struct inner_peers {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct peer_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_peers);
} peers SEC(".maps");

/* Rules with a `limit`, by rule id. As `hosts`. */
struct inner_rules {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct rule));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_rules);
} rules SEC(".maps");

/* Names of server ids. Written and read by the tool alone; kept apart from the
 * slots because ledger rows outlive policies. Full: the policy is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct name);
} names SEC(".maps");

/* Servers in quarantine, by id. Written by the tool, read by the filter when
 * state[STATE_QUARANTINES] is set. A hash. Full: the command is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct quarantine);
} quarantines SEC(".maps");

/* Tokens spent. Written and read by the filter. A hash and no LRU: an entry
 * that is pushed out would be a full purse again. The tool makes room for what
 * the live policy can need; should it be full all the same, the new flow is
 * dropped as `rate`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct limit_key);
	__type(value, struct limit);
} limits SEC(".maps");

/* TCP flows whose handshake is complete. Written by both programs, read by the
 * filter. LRU: full, the flow idle for longest goes. Only a peer that got the
 * server's SYN+ACK adds to it, so a flood of spoofed SYNs can't fill it unless a server
 * tells the numbers; during the
 * pickup servers do, for two minutes a flow unless the peer is heard.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct flow_key);
	__type(value, struct flow);
} established SEC(".maps");

/* TCP flows before that. Written by both programs, read by both. LRU: full,
 * the oldest handshake goes: its client tries again, or is
 * dropped as `no_flow` if it already has the server's SYN+ACK. A flood that turns
 * the table over within a round trip keeps new clients out; [tables] half_open
 * is the knob.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct half_open);
} half_open SEC(".maps");

/* Flows of UDP, SCTP and protocols without ports. Written by the tracker and
 * refreshed by the filter. LRU: full, the flow idle for longest goes, so a flood of
 * datagrams to a service can push out quiet flows of SCTP too.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} datagrams SEC(".maps");

/* ICMP requests of peers. As `datagrams`; a table of its own, so that neither
 * flood touches the other.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct flow);
} icmp_queries SEC(".maps");

/* What peers tried to open and no `in` service allows: the answer betrays a
 * listener. Written by the tracker, read by the filter. LRU: full, the oldest
 * goes, and its answer is dropped all the same under another name.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct opening);
} unlisted SEC(".maps");

/* First fragments that passed. Written and read by the filter. LRU: full, the
 * oldest goes, and the rest of its datagram is dropped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

/* The drop ledger: which row counts a kind of drop. Written by the filter, read
 * by it and the tool. A hash and no LRU: a count must not be pushed out. Full, or a
 * server's share of it used up: `ledger_overflow` counts on.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct ledger_key);
	__type(value, __u32);
} ledger SEC(".maps");

/* The rows themselves. Written by the filter, read by the tool. An array, so that
 * `verdict_cache` can name a row by its number, and the tool reads those in use
 * without a search; to be mapped, because such an array begins at a page and its rows
 * at cache lines. Its rows are given out in turn and never taken back; it
 * has one for each kind in `ledger` and `ledger_overflow`, and an eighth more, for those that
 * two CPUs made for one kind. Full: as `ledger`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 90112);
	__type(key, __u32);
	__type(value, struct ledger_row);
} ledger_rows SEC(".maps");

/* Which kinds `ledger` may have: two bits of a word for each, set before the row can be
 * found and never cleared (a Bloom filter). Written and read by the filter. An array, so that of a
 * kind that has no row this is known without a search. Can't fill; the more bits
 * are set, the more often the search is made in vain.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} ledger_bloom SEC(".maps");

/* Verdicts that were found before: TCP openings to a port that the policy does
 * not know, or that it permits to be called on anybody. Each CPU has its own part of
 * the array. Written and read by the filter alone. An array because its lookup is
 * inlined, which a hash's is not: a worm costs no call. Four places for a hash value,
 * in two cache lines (mapped, for that: as `ledger_rows`). Full: the newer verdict
 * takes an older one's place; what is not there is found again by decide().
 */
union cached_result {
	struct {
		__u32 number : 24; /* of the row; REASON_NEED: of the server */
		__u32 reason : 6;
		__u32 quiet : 1;
		__u32 overflow : 1; /* the row is of `ledger_overflow` */
	};
	__u32 word; /* read and written at once, see match_opening() */
};
struct cached_verdict {
	struct address source;
	__u64 sender; /* MAC and, in the last 16 bits, the port that it calls */
	__u32 epoch; /* of struct cpu; 0: nothing here, or half of it */
	union cached_result result;
};
struct verdict_bucket {
	struct cached_verdict verdicts[VERDICTS_PER_BUCKET];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct verdict_bucket);
} verdict_cache SEC(".maps");

/* Servers that found the ledger full, or their share of it used up, by address: their openings
 * to ports without a need count in this row, unless `ledger_bloom` knows better. Each
 * CPU has its own part. Written and read by the filter alone. An array, for its
 * inlined lookup. Full: as `verdict_cache`.
 */
struct cached_quota {
	struct address source;
	__u32 epoch; /* of struct cpu; 0: nothing here, or half of it */
	__u32 row;
	__u32 server;
	__u32 profile;
	__u32 ranges; /* not 0: the profile has rows in `ranges` */
	__u32 zero;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUOTA_CACHE_PER_CPU);
	__type(key, __u32);
	__type(value, struct cached_quota);
} quota_cache SEC(".maps");

/* What each CPU has found out for itself. The time, asked once in a tick:
 * CLOCK_MONOTONIC_COARSE moves no faster, and asking costs as much as half a lookup.
 * And an epoch, which counts up when policy or quarantines are others than before: what
 * was kept in an older one is known to be old. Written and read by
 * each CPU for itself, so per CPU. Can't fill.
 */
struct cpu {
	__u64 tick; /* jiffies */
	__u64 now_ns;
	__u32 generation;
	__u32 quarantine_changes;
	__u32 epoch;
	__u32 writes; /* not 0: an entry of this CPU is being written */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* How many rows of the ledger each server has, so that none takes the room of
 * the others. Written and read by the filter, when a row is made and never
 * else. A hash whose entries come with a server's first drop; server ids are
 * the policy's, so it can't fill. Without its entry a drop counts in
 * `ledger_overflow`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65538);
	__type(key, __u32);
	__type(value, struct row_quota);
} ledger_quotas SEC(".maps");

/* Drops that found the ledger full, or their server's share of it, by server
 * and reason; protocol and port are 0. As `ledger`, with the row in it. Full: `counters` still has
 * them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct ledger_key);
	__type(value, __u32);
} ledger_overflow SEC(".maps");

/* Packets and bytes by reason: passes and drops at the reason's number,
 * would-be drops REASON_COUNT higher. Written by the filter, read by the tool.
 * Per CPU: counted for each packet, without a shared cache line. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * REASON_COUNT);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* Events inside the programs, enum statistic. As `counters`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATISTIC_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} statistics SEC(".maps");

/* The perf buffer of samples. Written by the filter, read by the daemon and
 * nobody else: a second reader would take the first one's place. Full: the
 * sample is counted as lost, and the ledger makes up for it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} samples SEC(".maps");

#endif
