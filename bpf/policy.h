/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Look-ups in the live policy. A program reads the active slot once, into a struct policy, and
 * makes all look-ups through that. So one packet sees one policy.
 */
#ifndef PORTCULLIS_POLICY_H
#define PORTCULLIS_POLICY_H

#include "maps.h"
#include "parse.h"

struct policy {
	__u16 slot;   /* two fields share a word, for stack is scarce */
	__u16 assume; /* enum assumption: what the verdict takes as given beside the policy */
	__u32 flags;  /* enum settings_flag */
	__u32 generation;
	__u32 edits; /* the lower half of STATE_EDITS */
};

static __always_inline __u64 read_state(__u32 index)
{
	__u64 *word = bpf_map_lookup_elem(&state, &index);

	/* volatile makes it one load, so the value can't change between two uses */
	return word ? *(volatile __u64 *)word : 0;
}

/* The slot of the live policy. The way back from a trial is here: once its time is over, each packet takes
 * the policy before, whether or not a tool still runs. Before the first policy it is no slot.
 */
static __always_inline __u32 find_live_slot(__u64 now_ns)
{
	__u64 active = read_state(STATE_ACTIVE), deadline = active >> ACTIVE_DEADLINE_SHIFT;

	if (deadline && now_ns >> ACTIVE_TICK_BITS >= deadline)
		active >>= ACTIVE_SLOT_BITS;
	return (__u32)(active & ACTIVE_SLOT_MASK) - 1;
}

/* NULL: before the first policy. */
static __always_inline const struct settings *find_live_settings(__u64 now_ns)
{
	__u32 slot = find_live_slot(now_ns);

	return bpf_map_lookup_elem(&policies, &slot);
}

/* Before the first policy its generation is 0: every table is empty, and no server is known. `now_ns`: of
 * this packet, so that all its look-ups see one policy.
 */
static __always_inline struct policy live_policy(__u64 now_ns)
{
	struct policy policy = {};
	const struct settings *settings;
	__u32 slot = find_live_slot(now_ns);

	settings = bpf_map_lookup_elem(&policies, &slot);
	if (!settings)
		return policy;
	policy.slot = slot;
	policy.flags = settings->flags;
	policy.generation = (__u32)settings->generation;
	policy.edits = read_state(STATE_EDITS);
	return policy;
}

/* The server of an address, or NULL. A single address goes before the longest prefix. */
static __always_inline const struct server *find_server(const struct policy *policy,
							const struct address *address)
{
	__u32 slot = policy->slot;
	/* a copy: Linux 6.1 wants the key on the stack */
	struct prefix_key key = { .prefix_bits = 128, .address = *address };
	struct server *server;
	void *table;

	if (!policy->generation)
		return NULL;
	table = bpf_map_lookup_elem(&hosts, &slot);
	if (!table)
		return NULL;
	server = bpf_map_lookup_elem(table, &key.address);
	if (server || !(policy->flags & SETTINGS_PREFIXES))
		return server;
	table = bpf_map_lookup_elem(&prefixes, &slot);
	return table ? bpf_map_lookup_elem(table, &key) : NULL;
}

/* The needs of a profile for one port (ICMP: type) of one protocol, or NULL. `ranged`: the profile
 * has rows in `ranges`.
 */
static __always_inline const struct need *find_need(const struct policy *policy, __u32 profile,
						    bool ranged, __u8 protocol, __u16 port)
{
	__u32 slot = policy->slot;
	struct range_key key = {
		.prefix_bits = 64,
		.need = { .profile = profile, .protocol = protocol, .port_be = bpf_htons(port) },
	};
	struct need *need;
	void *table;

	if (!policy->generation)
		return NULL;
	table = bpf_map_lookup_elem(&needs, &slot);
	if (!table)
		return NULL;
	need = bpf_map_lookup_elem(table, &key.need);
	if (need || !ranged)
		return need;
	table = bpf_map_lookup_elem(&ranges, &slot);
	return table ? bpf_map_lookup_elem(table, &key) : NULL;
}

/* The rule that permits this peer, or 0. */
static __always_inline __u32 match_peer(const struct policy *policy, const struct peer_match *match,
					const struct address *peer)
{
	__u32 slot = policy->slot;

	if (match->set) {
		struct peer_key key = { .prefix_bits = 160, .set = match->set, .address = *peer };
		void *table = bpf_map_lookup_elem(&peers, &slot);
		__u32 *rule = table ? bpf_map_lookup_elem(table, &key) : NULL;

		if (rule)
			return *rule;
	}
	return match->any;
}

static __always_inline bool is_listed(const struct peer_match *match)
{
	return match->any || match->set;
}

/* The rule that permits this peer to open an `in` service of the server, or 0. `listed`: the port
 * is an `in` service, perhaps of other peers only.
 */
static __always_inline __u32 find_service(const struct policy *policy, const struct server *server,
					  __u8 protocol, __u16 port, const struct address *peer,
					  bool *listed)
{
	const struct need *need =
		find_need(policy, server->profile, server->flags & SERVER_RANGES, protocol, port);

	*listed = need && is_listed(&need->inbound);
	return need ? match_peer(policy, &need->inbound, peer) : 0;
}

static __always_inline const struct rule *find_limit(const struct policy *policy, __u32 rule)
{
	__u32 slot = policy->slot;
	void *table = bpf_map_lookup_elem(&rules, &slot);

	rule &= RULE_ID_MASK;
	return table ? bpf_map_lookup_elem(table, &rule) : NULL;
}

static __always_inline bool is_in_force(const struct quarantine *quarantine, __u64 now_ns)
{
	return quarantine && (!quarantine->until_ns || quarantine->until_ns > now_ns);
}

/* Is the server in quarantine, or this address? Server 0: no server has the address. */
static __always_inline bool is_cut_off(__u32 server, const struct address *address, __u64 now_ns)
{
	/* copies: to Linux 6.1 a key has to lie on the stack */
	struct prefix_key key;
	__u32 id = server;

	if (is_in_force(bpf_map_lookup_elem(&quarantines, &id), now_ns))
		return true;
	key.prefix_bits = 128;
	key.address = *address;
	return is_in_force(bpf_map_lookup_elem(&quarantined_addresses, &key), now_ns);
}

static __always_inline bool is_mac_cut_off(__u32 server, __u64 mac, __u64 now_ns)
{
	struct mac_key key = { .mac = mac, .server = server };

	return is_in_force(bpf_map_lookup_elem(&quarantined_macs, &key), now_ns);
}

/* Global functions from here on: the verifier proves each once, and each has its own stack. */
__noinline int find_quarantine(__u32 server, const struct address *address, __u64 mac, __u64 now_ns)
{
	return !address || is_cut_off(server, address, now_ns) ||
	       is_mac_cut_off(server, mac, now_ns);
}

/* As find_quarantine(), for a caller whose stack is scarce. */
__noinline int find_quarantine_of_sender(__u32 server, const struct packet *packet, __u64 now_ns)
{
	if (!packet || is_cut_off(server, &packet->source, now_ns))
		return 1;
	return is_mac_cut_off(server, read_mac(packet->source_mac), now_ns);
}

static __always_inline bool is_quarantined(__u32 server, const struct address *address, __u64 mac,
					   __u64 now_ns)
{
	return read_state(STATE_QUARANTINES) && find_quarantine(server, address, mac, now_ns);
}

static __always_inline bool is_sender_quarantined(__u32 server, const struct packet *packet,
						  __u64 now_ns)
{
	return read_state(STATE_QUARANTINES) && find_quarantine_of_sender(server, packet, now_ns);
}

enum {
	MAC_OF_ROUTER = 1, /* that find_mac() returns for server 0 */
};

static __always_inline const __u64 *look_up_mac(const struct policy *policy, __u32 server,
						__u64 mac)
{
	struct mac_key key = { .mac = mac, .server = server };
	__u32 slot;
	void *table;

	if (!policy->generation)
		return NULL;
	slot = policy->slot;
	table = bpf_map_lookup_elem(&macs, &slot);
	return table ? bpf_map_lookup_elem(table, &key) : NULL;
}

/* Has the policy this MAC for the server (`macs`)? Returns the id in the entry plus one, or 0. */
__noinline int find_mac(const struct policy *policy, __u32 server, __u64 mac)
{
	const __u64 *value = policy ? look_up_mac(policy, server, mac) : NULL;

	return value ? (__u32)*value + 1 : 0;
}

/* As find_mac() for server 0 and the packet's MAC, but 0 also if the frame is of another VLAN than that
 * server's.
 */
__noinline int find_link_sender(const struct policy *policy, const struct packet *packet)
{
	const __u64 *value;
	__u32 vlan;

	if (!policy || !packet)
		return 0;
	value = look_up_mac(policy, 0, read_mac(packet->source_mac));
	if (!value)
		return 0;
	vlan = *value >> 32;
	if (vlan && (packet->vlans != 1 || (packet->vlan & 0x0fff) != vlan - 1))
		return 0;
	return (__u32)*value + 1;
}

/* The server in quarantine, by its name, to which the policy gives this MAC, or 0. */
__noinline __u32 find_cut_off_holder(const struct policy *policy, __u64 mac, __u64 now_ns)
{
	const __u64 *value = policy ? look_up_mac(policy, 0, mac) : NULL;
	__u32 id = value ? *value : 0;

	/* not find_mac(), for the stack of its callers has no room left; 0: a router's */
	if (!id)
		return 0;
	return is_in_force(bpf_map_lookup_elem(&quarantines, &id), now_ns) ? id : 0;
}

/* Is the sender's machine in quarantine, under an address that is not its own: nobody's, or one that it has
 * borrowed? The tool notes the MACs of servers in quarantine too.
 */
__noinline int find_machine_quarantine(const struct policy *policy, const struct packet *packet,
				       __u64 now_ns)
{
	__u64 mac;

	if (!policy || !packet)
		return 0;
	mac = read_mac(packet->source_mac);
	return is_mac_cut_off(0, mac, now_ns) || find_cut_off_holder(policy, mac, now_ns);
}

static __always_inline bool is_machine_quarantined(const struct policy *policy,
						   const struct packet *packet, __u64 now_ns)
{
	return read_state(STATE_QUARANTINES) && find_machine_quarantine(policy, packet, now_ns);
}

/* The id of the server with whose quarantine this packet of `server` is cut off, or 0: its own, or that of
 * another server, whose MAC the frame has. A server that has MACs has shown one of them already.
 */
static __always_inline __u32 find_sender_quarantine(const struct policy *policy,
						    const struct server *server,
						    const struct packet *packet, __u64 now_ns)
{
	if (!read_state(STATE_QUARANTINES))
		return 0;
	if (find_quarantine_of_sender(server->id, packet, now_ns))
		return server->id;
	if (server->flags & SERVER_MAC)
		return 0;
	return find_cut_off_holder(policy, read_mac(packet->source_mac), now_ns);
}

/* Is the packet from a router of the policy? */
__noinline int find_router(const struct policy *policy, const struct packet *packet)
{
	struct router_key key;
	__u32 slot;
	void *table;

	if (!policy || !packet || !policy->generation)
		return 0;
	key.address = packet->source;
	key.mac = read_mac(packet->source_mac);
	slot = policy->slot;
	table = bpf_map_lookup_elem(&routers, &slot);
	return table && bpf_map_lookup_elem(table, &key);
}

/* An `out` need with a `sport` has the port, but not this peer. No rule has this number, see enum
 * rule_flag.
 */
static const __u32 SPORT_OF_OTHERS = 0x80000000;

/* The rule by which the server may open a flow between these ports: of the needs whose `sport` has its
 * own port, and of the others with a limit. 0 or SPORT_OF_OTHERS: none.
 */
__noinline __u32 match_sport(const struct policy *policy, const struct flow_key *flow,
			     __u32 profile)
{
	struct range_key key = {}; /* with a constant in it, the object gets a map of constants */
	const struct need *need;
	struct address peer;
	__u32 slot, rule, *found;
	void *table;

	if (!policy || !flow || !policy->generation || !has_ports(flow->protocol))
		return 0;
	key.prefix_bits = 64;
	key.need.profile = profile;
	key.need.protocol = flow->protocol;
	key.need.port_be = flow->server_port_be;
	slot = policy->slot;
	table = bpf_map_lookup_elem(&sports, &slot);
	found = table ? bpf_map_lookup_elem(table, &key) : NULL;
	if (!found)
		return 0;
	need = find_need(policy, *found, true, flow->protocol, bpf_ntohs(flow->peer_port_be));
	if (!need || !is_listed(&need->outbound))
		return 0;
	peer = flow->peer;
	rule = match_peer(policy, &need->outbound, &peer);
	return rule ? rule : SPORT_OF_OTHERS;
}

static __always_inline bool is_permitted(__u32 rule)
{
	return rule && rule != SPORT_OF_OTHERS;
}

#endif
