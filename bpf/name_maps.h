/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of names as destinations, a part of maps.h, with the same four facts. All tables that a server's
 * traffic fills are shared out by server: a row's key begins with its server, and a new row takes the place of
 * an old one of the same server. So no server costs another one a row.
 */
#ifndef PORTCULLIS_NAME_MAPS_H
#define PORTCULLIS_NAME_MAPS_H

#include "contract.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The names of the policy. One lookup of a question finds the longest of them that it ends in. Written by the
 * tool before the slot goes live, read by filter and tracker. A trie: a name and what is below it share the
 * beginning of a key. Sized by the policy, so it can't fill.
 */
struct inner_name_patterns {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct name_key));
	__uint(value_size, sizeof(struct name_pattern));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_name_patterns);
} name_patterns SEC(".maps");

/* Which profile has a need with which name. The value has no meaning. Written as `name_patterns`, read by
 * filter and tracker: what no need of a server has takes no row of its share. A hash: one lookup costs the
 * same for any number of names. Can't fill.
 */
struct inner_name_needs {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct name_need_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_name_needs);
} name_needs SEC(".maps");

/* The names of sets of peers, with the rule that holds for each. Written as `name_patterns`, read by the
 * filter. A name that the live policy has not in the set opens nothing, whatever was granted. A hash, as
 * `name_needs`. Can't fill.
 */
struct inner_name_peers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct name_peer_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_name_peers);
} name_peers SEC(".maps");

/* The resolvers whose answers count, and the ways by which these come. Written as `name_patterns`, and by
 * the daemon when a route changes; read by filter and tracker. A hash, as `name_needs`. Can't fill.
 */
struct inner_resolvers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct address));
	__uint(value_size, sizeof(struct resolver));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_resolvers);
} resolvers SEC(".maps");

/* Addresses that no name may have, and those that one may have all the same. Values: enum name_range. Written
 * as `name_patterns`, read by the tracker. A trie: the longest prefix wins. Can't fill.
 */
struct inner_name_ranges {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct prefix_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_name_ranges);
} name_ranges SEC(".maps");

/* The addresses of this machine and the prefixes on the NIC's link, which no name may have either. Values:
 * enum own_network. Written by the tool, at attach and by the daemon; read by the tracker. A trie, as
 * `name_ranges`. Full: the tool says so, and `name_ranges` alone decides about the rest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct prefix_key);
	__type(value, __u32);
} own_networks SEC(".maps");

/* The names of the policy by their ids. Written and read by the tool alone. A name keeps its id across
 * policies, for grants outlive them. A hash, because ids are sparse. Full: the policy is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct domain);
} domains SEC(".maps");

/* Where the next row of each server goes. Written and read by filter and tracker. A hash, because ids are
 * sparse. An entry comes with a server's first row. Sized by the number of servers, so it can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65538);
	__type(key, __u32);
	__type(value, struct name_share);
} name_shares SEC(".maps");

/* Grants, by server and place. Written by the tracker for answers and by the tool, read by filter and tool;
 * the filter notes when one is used. A hash, because shares grow as they are used. A server's share full: of
 * eight rows the one that is longest unused goes, over or not. The table full: no grant.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct share_key);
	__type(value, struct grant);
} grants SEC(".maps");

/* Where the grants of an address stand. Written by the tracker and the tool, read by the filter. A row of
 * `grants` says itself for whom and for what it is, so a place that is out of date does no harm. A hash, and
 * no entry outlives the last of its grants, so it has no more than `grants`. Full: no grant.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct granted_key);
	__type(value, struct granted);
} granted SEC(".maps");

/* TCP connections that a grant has let a server open. Written and read by the filter. A hash, no LRU: a
 * server must not end the connections of others. Share full: as `grants`. The table full: the SYN passes and
 * no other segment.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct name_connection);
} name_connections SEC(".maps");

/* The connections of each server by their places, to find one that may go. As `name_connections`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct share_key);
	__type(value, struct flow_key);
} connection_places SEC(".maps");

/* Questions that servers have asked, by server and place; port and id of a question say the first of four
 * places. Written by the filter, read by the tracker, which takes a question with its answer. A hash, as
 * `grants`. Share full: of four the oldest goes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct share_key);
	__type(value, struct query);
} queries SEC(".maps");

/* TCP connections to resolvers, with the place where the next message begins. Written and read by the
 * tracker. As `queries`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct share_key);
	__type(value, struct stream);
} streams SEC(".maps");

/* What servers were answered for any name, so that people read names beside addresses. It decides nothing. By
 * server and place; the address says the first of four places. Written by the tracker, read by the tool. A hash, as
 * `grants`. Share full: of four the oldest goes. The table full: the address stays without a name.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, struct share_key);
	__type(value, struct lookup);
} lookups SEC(".maps");

/* What went wrong with answers, enum name_count. Written by filter and tracker, read by the tool. Per CPU, as
 * `statistics`. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NAME_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} name_counts SEC(".maps");

/* Answers that are a matter for people. Written by the tracker, read by the daemon. A hash: one entry for each
 * server and name. Full: counted as NAME_EVENT_LOST.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct name_event_key);
	__type(value, struct name_event);
} name_events SEC(".maps");

enum {
	MESSAGE_BYTES = 4096, /* of a message that are read; a power of two */
};

/* What the functions of a CPU hand on to each other: neither a message nor the state of a loop over it fits
 * the stack. Without a stack, a step of a loop forgets what the one before it knew, and the verifier ends.
 */
struct name_scratch {
	__u8 message[MESSAGE_BYTES + 512]; /* what is read at a masked offset may run over */
	__u32 message_bytes;
	struct name_key key;
	/* the loops */
	__u32 at;
	__u32 name_bytes; /* of the question's name, with its root; 0: it has none */
	__u32 labels;
	__u32 high_bytes; /* with the highest bit set */
	__u32 records;    /* that are left */
	__u32 outcome;    /* enum name_count */
	__u32 remembered; /* addresses of the answer, in `lookups` */
	__u64 hash[4];
	/* whose answer it is */
	struct address resolver;
	__u32 slot; /* of the policy */
	__u32 set;
	__u32 profile;
	__u32 server;
	__u32 grantee; /* whose the grants are: the server, or 0 */
	__u32 interface;
	__u32 port;
	__u32 name; /* of the answer, 0: none of the policy; in the filter: whose grant lets the packet pass */
	__u64 now_ns;
	__u64 floor_ns;
	__u64 cap_ns;
	__u64 checked; /* as in struct grant, of this moment */
	/* keys and values that would burden the stack */
	__u64 until_ns;
	struct granted_key granted_key;
	struct granted_key forgotten_key;
	struct granted granted;
	struct grant grant;
	struct prefix_key prefix_key;
	struct name_event_key event_key;
	struct name_event event;
	struct query query;
	struct stream stream;
	struct flow_key flow_key;
	struct lookup lookup;
};

/* One for each program and CPU: the filter may run in the middle of the tracker. Per CPU. Can't fill. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct name_scratch);
} name_scratches SEC(".maps");

#endif
