/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, with four facts: who writes it, who reads it, why it has this type, and what happens
 * when it is full. "The tool" is the control tool. The sizes given here are defaults, which
 * [tables] of the policy overrides when the gate is attached. The file has more than 500 lines,
 * because every map stands here and nowhere else, but for those of names in name_maps.h.
 *
 * Over 500 lines on purpose: it is one list, and half of it are the four facts.
 *
 * One generation of the policy is a set of inner maps. The tool builds and fills them before any
 * packet can see them, and puts them into the same slot of each outer map below. Then it writes the
 * slot into the word state[STATE_ACTIVE]. A packet reads that word once, so it sees one policy.
 *
 * Inner maps give the sizes of keys and values instead of their types, because clang reduces a type
 * that is only named there to a forward declaration.
 */
#ifndef PORTCULLIS_MAPS_H
#define PORTCULLIS_MAPS_H

#include "contract.h"
#include "name_maps.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Words of enum state. Written by the tool, read by every program for each packet. An array of
 * words: each is read and written at once, and the lookup is inlined. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATE_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} state SEC(".maps");

/* The settings of each slot's policy. Written by the tool while the slot is not live, read by every
 * program. An array for its inlined lookup. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct settings);
} policies SEC(".maps");

/* The text of each slot's policy, in chunks. Written and read by the tool alone. The kernel keeps
 * it so that `show` and `explain` speak of the live policy, although its file may have been edited
 * since. An array, because chunks are read in order. Sized by the text, so it can't fill.
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

/* Single addresses of servers. Written by the tool before the slot goes live, read by every
 * program. A hash: one lookup costs the same for any number of servers. Sized by the policy, so it
 * can't fill.
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

/* Prefixes of servers, looked up after `hosts` when the policy has prefixes. As `hosts`, but a
 * trie, because the longest prefix wins.
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

/* Needs on a range of ports, looked up after `needs` when the profile has ranges. As `hosts`, but a
 * trie: a range is cut into aligned blocks, and each block is a prefix of the port.
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

/* Sets of peers, which struct peer_match names. The value is the rule that holds for the prefix. As
 * `prefixes`.
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

/* MACs of the policy. Key with the server's id: a further MAC of that server. Key with server 0: any
 * MAC of the policy, with the id of its server in the lower 32 bits, or 0 for a router. The upper 32
 * bits are the VLAN of that server plus one, or 0 for any. As `hosts`.
 */
struct inner_macs {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct mac_key));
	__uint(value_size, sizeof(__u64));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_macs);
} macs SEC(".maps");

/* Routers of the policy, by address and MAC. The value has no meaning. As `hosts`. */
struct inner_routers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct router_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_routers);
} routers SEC(".maps");

/* `out` needs with a `sport`: from (profile, protocol, source port) to the profile whose needs hold
 * for packets from that port. A trie, for its rows are ranges, cut into blocks as in `ranges`. Read
 * only for servers with SERVER_SPORTS. As `hosts`.
 */
struct inner_sports {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct range_key));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_sports);
} sports SEC(".maps");

/* The number of the need of each rule, by which `need_uses` counts. Copies of a rule have the same. As
 * `hosts`, but an array, for rules are numbered. 0: the need is not counted.
 */
struct inner_need_numbers {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_need_numbers);
} need_numbers SEC(".maps");

/* How often each need was used, by its number. Written by the filter when something opens, and by the
 * tracker when a peer's handshake is complete; read by the tool. Per CPU, for the fast path counts here
 * too. Entry 0 is of all needs without a number. Can't fill, for the tool gives the numbers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEED_NUMBERS_MAX);
	__type(key, __u32);
	__type(value, struct need_use);
} need_uses SEC(".maps");

/* Which need has a number. Written and read by the tool alone. A hash outside the slots, because counts
 * outlive policies. Full: numbers of needs that no slot has are given to others, and needs for which none
 * is left are not counted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NEED_NUMBERS_MAX);
	__type(key, __u32);
	__type(value, struct counted_need);
} counted_needs SEC(".maps");

/* Names of server ids. Written and read by the tool alone. A hash outside the slots, because the
 * ledger's rows outlive policies. Full: the policy is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct name);
} names SEC(".maps");

/* Servers in quarantine, by id. Written by the tool, read by the filter when
 * state[STATE_QUARANTINES] is set. A hash, because ids are sparse. Full: the command is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct quarantine);
} quarantines SEC(".maps");

/* Addresses in quarantine, whatever server has them: single machines of a server that is a prefix, and
 * what a server in quarantine has lost to another name. As `quarantines`, but a trie, for a server may
 * lose a prefix. A longer prefix hides a shorter one, so the tool never lets it end before that one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix_key);
	__type(value, struct quarantine);
} quarantined_addresses SEC(".maps");

/* MACs in quarantine: a machine whose address was cut off may take another address of the same server.
 * Keyed by server and MAC, for a router's MAC may stand for many servers. Server 0: addresses that no
 * server has. As `quarantines`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct mac_key);
	__type(value, struct quarantine);
} quarantined_macs SEC(".maps");

/* The edits: what `allow` and `deny` have added to servers and taken away, with the time at which each
 * ends. Written by the tool, which fills a new table for each change and moves STATE_EDITS to it; read by
 * filter and tracker while that word has a slot. One table for ports, peers and numbers, so that one
 * packet sees one table. A trie, for ports and peers are prefixes. Two slots: the table of the change
 * before may still be read. Sized by the edits, so it can't fill; the tool refuses too many.
 */
struct inner_edits {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct edit_key));
	__uint(value_size, sizeof(struct edit_cell));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EDIT_SLOTS);
	__type(key, __u32);
	__array(values, struct inner_edits);
} edit_tables SEC(".maps");

/* What tells most datagrams from answers. Two tables in one map, for a program may use 64 maps
 * (kernel/bpf/verifier.c, MAX_USED_MAPS). An array for its inlined lookup, and mappable for the tool. Can't
 * fill.
 *
 * First the UDP ports that are surely no service: a datagram from there is no answer. A bit for each port
 * that no row of `needs` and `ranges` has inbound, of whatever profile, by the slot of the policy, and then
 * for each port that no edit has inbound, by the slot of the edits. Written by the tool before the slot is in
 * use, read by the filter. Where it is empty, each datagram takes the full path.
 *
 * From UNLISTED_PLACE on: when a row of UDP was last written to `unlisted`, by a hash of the server's address
 * and port: up to a second too early, and of all pairs that share the place. Written by the tracker, once a
 * second for a place, and read by the filter. Pairs that share a place cost a lookup and change no verdict.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, UNLISTED_PLACE + UNLISTED_PLACES);
	__type(key, __u32);
	__type(value, __u64);
} datagram_ports SEC(".maps");

/* The edits as the tool wrote them, with who, when and why: the text of each slot, in chunks. As
 * `sources`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, EDIT_SLOTS);
	__type(key, __u32);
	__array(values, struct inner_sources);
} edit_texts SEC(".maps");

/* Token buckets of limits. Made by the tool, written and read by the filter. A hash and no LRU:
 * evicting an entry would refill its token bucket. The tool makes room for every bucket of the live
 * policy. Full all the same: a new flow whose bucket is missing is dropped as `rate`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct limit_key);
	__type(value, struct limit);
} limits SEC(".maps");

/* TCP flows whose handshake is complete. Written and read by filter and tracker. An LRU. Full: the
 * flow that was idle longest is evicted.
 * Only a peer that received the server's SYN+ACK adds an entry, so a flood of spoofed SYNs can't
 * fill the table, unless a server tells the flooder its sequence numbers. During the pickup servers
 * add entries too. Such an entry lasts two minutes, or longer once its peer is heard.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct flow_key);
	__type(value, struct flow);
} established SEC(".maps");

/* TCP flows whose handshake has begun. Written and read by filter and tracker. An LRU. Full: the
 * oldest handshake is evicted. Its client tries again. If it already has the SYN+ACK, the server's
 * next segments are dropped as `no_flow`.
 * A flood that replaces the whole table within a round trip keeps new clients out. [tables]
 * half_open makes the table larger.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct half_open);
} half_open SEC(".maps");

/* Flows of UDP, SCTP and protocols without ports. Written by the tracker, read and refreshed by the
 * filter. An LRU. Full: the flow that was idle longest is evicted, so a flood of datagrams to a
 * service can evict idle flows of SCTP too.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} datagrams SEC(".maps");

/* ICMP requests of peers. As `datagrams`, but a table of its own: a flood of one kind evicts
 * nothing of the other.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct flow);
} icmp_queries SEC(".maps");

/* Flows that peers tried to open to ports that are no `in` service. An answer to one reveals a
 * listener that the policy does not know. Written by the tracker, read by the filter. An LRU. Full:
 * the oldest is evicted, and its answer is dropped for another reason.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct opening);
} unlisted SEC(".maps");

/* Connections that servers began to open themselves, see own_openings.h. OPENING_REGIONS regions of
 * OPENING_BUCKETS buckets, and the server's id selects the region: a server that opens much pushes out
 * its own. Written and read by the filter. An array for its inlined lookup, and mappable to begin at a
 * page, so that no bucket lies in two cache lines. Full: the oldest entry of the bucket goes, and the
 * bucket shows it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, OPENING_REGIONS *OPENING_BUCKETS);
	__type(key, __u32);
	__type(value, struct opening_bucket);
} own_openings SEC(".maps");

/* First fragments that passed. Written and read by the filter. An LRU. Full: the oldest is evicted,
 * and the later fragments of its datagram are dropped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

/* First fragments that were dropped, so that later ones are counted as the same kind of drop.
 * Written and read by the filter. A table of its own, for a server that floods with forbidden
 * fragments must not push out those of others that passed. LRU: when it is full, the oldest goes, and
 * its later fragments are dropped as `fragment`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, struct refused_fragment);
} refused_fragments SEC(".maps");

/* Peers that asked a service of a server within the last ten to twenty minutes: a Bloom filter in two
 * halves, which take turns by epochs of HEARD_EPOCH_S. A word holds the epoch in its upper 16 bits and
 * 48 bits of the filter below. A word of another epoch is empty, so nobody has to clear the map. Each
 * half has HEARD_REGIONS regions, and the server's id selects the region: a flood to one server
 * leaves the memory of most others alone. Written by the tracker, read by the filter for answers of no
 * flow. An array, for its inlined lookup. When half of a region's bits are set, it counts as full: then
 * every peer counts as heard, with DROP_PRESUMED.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * HEARD_REGIONS);
	__type(key, __u32);
	__type(value, __u64);
} heard SEC(".maps");

/* How many bits of each region of `heard` are set: below the epoch in the upper 16 bits. Written by
 * the tracker when it sets a bit that was clear, read by the filter. An array. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * HEARD_REGIONS);
	__type(key, __u32);
	__type(value, __u64);
} heard_bits SEC(".maps");

/* DHCP servers that have answered a server of the policy: it may renew its lease there. Written by the
 * tracker when the policy has `dhcp`, read by the filter for requests that it drops. Keyed by the
 * server's id, or LESSORS_OF_LINK, so a hash. It has room for each, so it can't fill. The first LESSORS_MAX
 * count. When there are more, everybody counts, for a flood of forged answers must raise no alarm.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct lessors);
} lessors SEC(".maps");

/* MACs to which frames from the DMZ may be sent so that this machine takes or forwards them: those of the
 * devices above and below the NIC (VLAN, macvlan, bridge, bond), and those of hosts behind the other ports
 * of its bridge. The NIC's own is in STATE_OWN_MAC too. The key has the first byte in bits 40 to 47, the
 * value is of enum own_mac_flag. Written by the tool, at attach and by the daemon; read by the filter for
 * drops. A hash. Full: no frame is `elsewhere`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} own_macs SEC(".maps");

/* Indexes of the NIC and of the devices above it. Written as `own_macs`, the NIC's first; read by the
 * tracker, which ignores what strangers of the DMZ send back into the DMZ. A hash. Full: what comes back by
 * the devices without an entry may open flows.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192); /* more than there are VLANs */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} own_interfaces SEC(".maps");

/* MACs of hosts on the link, learnt from their ARP and neighbour discovery: frames to these are
 * `elsewhere`. Keys as in `own_macs`. Written and read by the filter. The tool adds the hosts that the
 * kernel knows, at attach and by the daemon. LRU: when it is full, the oldest goes, and a drop of a frame to
 * it keeps its reason. A host that sends ARP from thousands of MACs pushes out the others. The daemon puts
 * back those that the kernel knows, and cuts off nobody for a frame to a MAC that is not ours for certain.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u32);
} neighbour_macs SEC(".maps");

/* The drop ledger: which row counts a kind of drop. Written and read by the filter, read by the
 * tool. A hash and no LRU: no count may be evicted. Full, or the server's quota used up: further
 * kinds are counted in `ledger_overflow`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct ledger_key);
	__type(value, __u32);
} ledger SEC(".maps");

/* The facts of the rows. Written by the filter when it makes a row and at most once a second for a
 * sample, read by filter and tool. An array: `verdict_cache` names a row by its index, and the tool
 * reads the used rows without a search. Mappable, because such an array begins at a page, which puts
 * its rows at cache lines. Rows are given out in order, those that were given back first. There is one
 * for each kind in `ledger` and `ledger_overflow`, and an eighth more, for rows that two CPUs made for
 * one kind. Full: as `ledger`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 90112);
	__type(key, __u32);
	__type(value, struct ledger_row);
} ledger_rows SEC(".maps");

/* What each CPU has counted in each row: STATE_LEDGER_ROWS entries for the first CPU, then as many for
 * the next. Written by the filter, for every drop, each CPU in its own part: no CPU waits for the
 * cache line of another. The tool adds up the parts of all CPUs, also of those that are offline. An
 * array and not a per-CPU array, for its inlined lookup on all kernels, and because the tool can map
 * it. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 90112);
	__type(key, __u32);
	__type(value, struct row_counts);
} ledger_counts SEC(".maps");

/* Numbers of rows that were given back: a ring, as long as `ledger_rows`. QUOTA_ROWS_FREED and
 * QUOTA_ROWS_REUSED count its ends. Written by portcullis_sweep, read by the filter when it makes a
 * row. An array, because two numbers are enough to use it as a queue from all CPUs. Can't fill.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 90112);
	__type(key, __u32);
	__type(value, __u32);
} ledger_free SEC(".maps");

/* What rows had counted that were given back, by server, reason and flags: protocol and port are 0. All
 * of it was reported. Written by portcullis_sweep, read by the tool. A hash, as `ledger_overflow`. Full:
 * the row is not given back.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct ledger_key);
	__type(value, struct given_back);
} ledger_given_back SEC(".maps");

/* Nothing. An update of a map of maps waits until every program has ended that may have seen its old
 * content, and that is what this one is for. Written by the tool alone. Can't fill.
 */
struct inner_fence {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct inner_fence);
} fence SEC(".maps");

/* The first distinct addresses of each row, by its number. Written by the filter, at most 17 times at
 * either end of a row; read by filter and tool. An array, as `ledger_rows`. Full: further addresses
 * are not listed, and the tool says so.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 90112);
	__type(key, __u32);
	__type(value, struct row_addresses);
} ledger_addresses SEC(".maps");

/* The addresses that each CPU sees most often in a row, FREQUENT_PER_CPU entries for each CPU. Rows
 * whose numbers have the same lowest bits share an entry, and the busiest has it in the end. Written
 * by the filter, each CPU in its own part; read by the tool. An array, as `ledger_counts`. Full: as
 * add_frequent_address() says.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FREQUENT_PER_CPU);
	__type(key, __u32);
	__type(value, struct frequent);
} frequent SEC(".maps");

/* Kinds that have no row, HOT_KINDS_PER_CPU entries for each CPU: how many destinations each has, and
 * whether it was sampled, in a window of time. The port is part of the index, so the ports of one
 * server never share an entry. Written and read by the filter, each CPU in its own part. An array for
 * its inlined lookup. Full: a kind of another server takes the entry.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOT_KINDS_PER_CPU);
	__type(key, __u32);
	__type(value, struct hot_kind);
} hot_kinds SEC(".maps");

/* A Bloom filter of the kinds in `ledger`: two bits of one word each, set before the row can be
 * found. It has two halves, of which one is in use. After rows were given back, the tool builds the
 * other one of the rows that are left, see enum bloom_word. Written and read by the filter. An array
 * for its inlined lookup: most kinds without a row are recognised without a search in the hash. Can't
 * fill. The more bits are set, the more searches find no row.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} ledger_bloom SEC(".maps");

/* Verdicts on TCP openings that hold for every destination of a port, see SCOPE_PORT. A cached drop
 * stores its reason and where this CPU counts its row, a cached pass stores its server and need. Each CPU has its own part
 * of the array. Written and read by the filter alone. An array, because its lookup is inlined while
 * a hash's is a call. A bucket holds four verdicts in two cache lines, and the array is mappable to
 * begin at one, as `ledger_rows`. Full: a newer verdict replaces an older one, and decide() finds
 * the older one again.
 */
union cached_result {
	/* of a drop */
	struct {
		__u32 index : 24; /* in `ledger_counts` */
		__u32 reason : 6; /* below REASON_ETHERTYPE: it is no drop */
		__u32 quiet : 1;
		__u32 overflow : 1; /* the row's kind stands in `ledger_overflow` */
	};
	/* of a pass, which is one by REASON_NEED */
	struct {
		__u32 server : 16;
		__u32 use : 13; /* in `need_uses` */
		__u32 zero : 3; /* the first of these bits tells it from a drop */
	};
	__u32 word; /* read and written at once, see match_opening() */
};
_Static_assert(REASON_COUNT <= 64, "cached_result.reason has 6 bits");
_Static_assert(REASON_ETHERTYPE == 32, "a drop has the upper bit of cached_result.reason");
_Static_assert(NEED_NUMBERS_MAX <= 1 << 13, "cached_result.use has 13 bits");
struct cached_verdict {
	struct address source;
	__u64 sender; /* the MAC, and in the lower 16 bits the port that it calls */
	__u32 epoch;  /* see tag_epoch(); 0: empty, or being written */
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

/* Servers whose quota of ledger rows is used up, by address. Their openings to ports without a need
 * are counted in one row, unless `ledger_bloom` says that the kind may have its own. Each CPU has
 * its own part of the array. Written and read by the filter alone. An array for its inlined lookup.
 * Full: as `verdict_cache`.
 */
struct cached_quota {
	struct address source;
	__u32 epoch; /* of struct cpu; 0: empty, or being written */
	__u32 index; /* in `ledger_counts` */
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

/* The state of each CPU. It has the time, which is read once a tick: CLOCK_MONOTONIC_COARSE moves
 * no faster, and reading it costs half as much as a lookup. It also has an epoch, which counts up
 * whenever the policy, a quarantine or an edit changes: cached verdicts of an older epoch don't count.
 * Written and read by the filter, the time by the tracker too. Per CPU, because no CPU needs
 * another's. Can't fill.
 */
struct cpu {
	__u64 tick; /* jiffies */
	__u64 now_ns;
	__u32 generation;
	__u32 changes;        /* of quarantines and edits */
	__u32 epoch;          /* even, see tag_epoch() */
	__u32 writes;         /* not 0: a packet on this CPU is writing a cache entry */
	__u64 secret;         /* an odd random number; 0: not yet drawn */
	__u32 until_pick;     /* drops before the next that pick_packet() picks */
	__u32 verdicts_mask;  /* of struct settings, under the policy of this epoch */
	__u32 asked_s;        /* the second in which conntrack was last asked in vain */
	__u32 asked_in_vain;  /* how often in that second */
	__u32 keeps_evidence; /* not 0: since this tick or an earlier one, see evidence.h */
	__u32 zero;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* How many rows of the ledger each server has, so that no server takes the room of the others.
 * Written by the filter when it makes a row, read by filter and tool. A hash, because ids are
 * sparse. A server's entry comes with its first drop. Sized by the number of servers, so it can't
 * fill. Were an entry missing, the drop would be counted in `ledger_overflow`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65538);
	__type(key, __u32);
	__type(value, struct row_quota);
} ledger_quotas SEC(".maps");

/* Drops whose kind got no row in the ledger, because it or the server's quota was full. Counted by
 * server and reason: protocol and port are 0. As `ledger`. Full: the drops are counted in
 * `counters` alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct ledger_key);
	__type(value, __u32);
} ledger_overflow SEC(".maps");

/* Answered openings by server, direction, service and peer, for `learn`. Written by filter and tracker while
 * the policy observes or STATE_EVIDENCE_UNTIL_NS says so, read by the tool. A hash that takes no memory before
 * it has rows, and no LRU: what was seen once must not be pushed out. Full, or a quota used up: counted in the
 * row of the service, else of the server, else in STATISTIC_EVIDENCE_LOST.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct evidence_key);
	__type(value, struct evidence);
} evidence SEC(".maps");

/* Who opened what, until it is answered and counted. Written and read by filter and tracker, as `evidence`.
 * An LRU. Full: the oldest goes, and if nobody has answered it yet, its answer is no evidence.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flow_key);
	__type(value, struct exchange);
} exchanges SEC(".maps");

/* Packets and bytes by reason: passes and drops at the reason's number, would-be drops at
 * REASON_COUNT plus that. Written by the filter, read by the tool. Per CPU, because every packet is
 * counted, and a shared cache line would slow all CPUs down. Can't fill.
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

/* The perf buffer of samples. Written by the filter, read by the daemon alone: a second reader
 * would replace the first. A perf event array, because its helper appends the frame's bytes, also
 * of a frame in several buffers. Full: the sample is counted as lost, and the daemon reports the
 * drop from the ledger.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} samples SEC(".maps");

#endif
