/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Grants: addresses that names were seen to have. The upper half reads, for the verdict. The middle uses
 * them, for accounting. The lower half makes them, for the tracker.
 */
#ifndef PORTCULLIS_NAME_GRANT_H
#define PORTCULLIS_NAME_GRANT_H

#include "edits.h"
#include "name_query.h"

enum {
	GRANT_KEEP_S = 3600, /* that an opening keeps it open, within the cap */
	CANDIDATES = 8,      /* rows of a share of which one goes */
};

/* The rule that the live policy has for a name in a set, or 0. */
static __always_inline __u32 find_name_rule(__u32 slot, __u32 set, __u32 name)
{
	struct name_peer_key key = { .set = set, .name = name };
	void *table = bpf_map_lookup_elem(&name_peers, &slot);
	__u32 *rule = table ? bpf_map_lookup_elem(table, &key) : NULL;

	return rule ? *rule : 0;
}

static __always_inline bool is_open(const struct grant *grant, __u64 now_ns, __u64 cap_ns)
{
	return (__s64)(grant->open_until_ns - now_ns) > 0 &&
	       (__s64)(grant->answered_ns + cap_ns - now_ns) > 0;
}

/* With its grace, as an answer's time to live has one. */
static __always_inline __u64 find_cap_ns(__u32 slot)
{
	struct settings *settings = bpf_map_lookup_elem(&policies, &slot);

	return settings ? (settings->name_cap_s + GRANT_GRACE_S) * SECOND_NS : 0;
}

static __always_inline struct granted *find_granted(struct name_scratch *scratch,
						    const struct address *address, __u32 server)
{
	scratch->granted_key.address = *address;
	scratch->granted_key.server = server;
	return bpf_map_lookup_elem(&granted, &scratch->granted_key);
}

/* The grant at a place of a list, if it is for the address and server in the scratch. */
static __always_inline struct grant *find_listed(const struct name_scratch *scratch,
						 __u32 place_plus_one)
{
	struct share_key key = { .server = scratch->granted_key.server,
				 .place = place_plus_one - 1 };
	struct grant *grant;

	if (!place_plus_one)
		return NULL;
	grant = bpf_map_lookup_elem(&grants, &key);
	return grant && grant->server == scratch->granted_key.server &&
			       same_address(&grant->address, &scratch->granted_key.address) ?
		       grant :
		       NULL;
}

/* The rule by which a grant lets the server open the flow in the scratch; 0: none. One without a limit goes
 * first. The scratch gets the grant's name, for use_grant().
 */
static __always_inline __u32 search_grants(const struct policy *policy,
					   struct name_scratch *scratch, __u32 server)
{
	const struct granted *list = find_granted(scratch, &scratch->flow_key.peer, server);
	__u32 found = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < 2 * GRANTS_OF_ADDRESS_MAX; i++) {
		const struct grant *grant;
		__u32 rule;

		/* then those that all servers have */
		if (i == GRANTS_OF_ADDRESS_MAX) {
			if (found || !(policy->flags & SETTINGS_COMMON_GRANTS))
				break;
			list = find_granted(scratch, &scratch->flow_key.peer, 0);
		}
		if (!list)
			continue;
		grant = find_listed(scratch, list->place_plus_one[i & (GRANTS_OF_ADDRESS_MAX - 1)]);
		if (!grant || !is_open(grant, scratch->now_ns, scratch->cap_ns))
			continue;
		rule = find_name_rule(scratch->slot, scratch->set, grant->name);
		if (!rule)
			continue;
		found = rule;
		scratch->name = grant->name;
		if (!(rule & RULE_LIMITED))
			break;
	}
	return found;
}

/* The rule that the live policy has for a segment of the connection in the scratch, whose SYN a grant has let
 * pass; 0: none.
 */
static __always_inline __u32 find_connection_rule(const struct name_scratch *scratch, __u32 server)
{
	const struct name_connection *connection =
		bpf_map_lookup_elem(&name_connections, &scratch->flow_key);

	if (!connection || connection->server != server ||
	    !is_within(connection->last_ns, scratch->now_ns, TIMEOUT_ESTABLISHED_S))
		return 0;
	return find_name_rule(scratch->slot, scratch->set, connection->name);
}

enum {
	OF_CONNECTION = 0x80000000, /* added to a set: asks for a segment that is no opening */
};

/* The rule by which the server may send this packet: the one that it has, or one by a name of the set. The
 * lower half of `asked` is the set, and the upper half the server. Of what is returned, the lower half is the
 * rule, and the upper half are effects. So no branch of the caller depends on names, which would double the
 * verifier's work there. Global functions from here on, for their own stacks.
 */
__noinline __u64 find_by_name(const struct policy *policy, const struct flow_key *flow, __u64 asked,
			      __u32 rule, __u64 now_ns)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	__u32 set = asked & ~OF_CONNECTION, server = asked >> 32, found;
	__u64 effect = asked & OF_CONNECTION ? EFFECT_TOUCH_CONNECTION : EFFECT_USE_GRANT;

	if (!policy || !flow || !scratch || !set || (rule && !(rule & RULE_LIMITED)))
		return rule;
	scratch->flow_key = *flow;
	scratch->slot = policy->slot;
	scratch->set = set;
	scratch->now_ns = now_ns;
	scratch->cap_ns = find_cap_ns(policy->slot);
	found = asked & OF_CONNECTION ? find_connection_rule(scratch, server) :
					search_grants(policy, scratch, server);
	return found ? effect << 32 | found : rule;
}

/* Was the peer in the scratch granted to the server by a name of the set, whether it is open or not? */
static __always_inline bool was_granted(struct name_scratch *scratch, __u32 server)
{
	const struct granted *list = find_granted(scratch, &scratch->flow_key.peer, server);

	if (!list)
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < GRANTS_OF_ADDRESS_MAX; i++) {
		const struct grant *grant = find_listed(scratch, list->place_plus_one[i]);

		if (grant && find_name_rule(scratch->slot, scratch->set, grant->name))
			return true;
	}
	return false;
}

/* Is this a peer that the server may have asked by a name? `asked`: as for find_by_name(). `hook`: of the caller. */
__noinline int is_named_peer(const struct policy *policy, const struct address *peer, __u64 asked,
			     __u32 hook)
{
	struct name_scratch *scratch = find_scratch(hook);

	if (!policy || !peer || !scratch)
		return 0;
	scratch->slot = policy->slot;
	scratch->set = asked;
	scratch->flow_key.peer = *peer;
	return was_granted(scratch, asked >> 32) ||
	       (policy->flags & SETTINGS_COMMON_GRANTS && was_granted(scratch, 0));
}

/* May the server open the flow itself, by a need, a name or an edit? `hook`: of the caller. */
static __always_inline bool may_open_itself(const struct policy *policy,
					    const struct server *server, const struct flow_key *key,
					    __u64 now_ns, __u32 hook)
{
	__u16 port = bpf_ntohs(key->peer_port_be);
	const struct need *need = find_need(policy, server->profile, server->flags & SERVER_RANGES,
					    key->protocol, port);

	if (need && match_peer(policy, &need->outbound, &key->peer))
		return true;
	if (need && need->outbound.set && policy->flags & SETTINGS_NAMES &&
	    is_named_peer(policy, &key->peer, (__u64)server->id << 32 | need->outbound.set, hook))
		return true;
	if (server->flags & SERVER_SPORTS &&
	    is_permitted(match_sport(policy, key, server->profile)))
		return true;
	return has_edits(policy) &&
	       find_edit(policy->edits, server->id, join_flow(EDIT_OUT, key->protocol, port),
			 &key->peer, now_ns) &
		       EDIT_ALLOWS;
}

/* ---- use --------------------------------------------------------------- */

/* Notes an opening in the open grant of this name, and keeps it open. False: the owner has none. */
static __noinline bool keep_open(const struct address *address, __u32 name, __u32 owner,
				 __u64 now_ns)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	const struct granted *list = scratch ? find_granted(scratch, address, owner) : NULL;

	if (!list)
		return false;
#pragma clang loop unroll(disable)
	for (int i = 0; i < GRANTS_OF_ADDRESS_MAX; i++) {
		struct grant *grant = find_listed(scratch, list->place_plus_one[i]);
		__u64 until_ns = now_ns + GRANT_KEEP_S * SECOND_NS;

		if (!grant || grant->name != name || !is_open(grant, now_ns, scratch->cap_ns))
			continue;
		/* once a second, for CPUs share the table */
		if (now_ns - grant->used_ns < TOUCH_NS)
			return true;
		grant->used_ns = now_ns;
		if ((__s64)(until_ns - grant->open_until_ns) > 0)
			grant->open_until_ns = until_ns;
		return true;
	}
	return false;
}

static __always_inline struct name_share *find_share(__u32 server)
{
	struct name_share *share = bpf_map_lookup_elem(&name_shares, &server), fresh = {};

	if (share)
		return share;
	bpf_map_update_elem(&name_shares, &server, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&name_shares, &server);
}

/* Lets the segments of this connection pass from now on. It takes the place of one that has ended, or of the
 * one of eight that is longest unused.
 */
__noinline int add_name_connection(const struct flow_key *flow, __u32 server, __u32 name,
				   __u64 now_ns)
{
	struct share_key key = { .server = server };
	struct name_connection fresh = { .last_ns = now_ns, .server = server, .name = name };
	struct name_connection *known;
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	__u32 room = read_state(STATE_CONNECTION_ROOM), first, best;
	__u64 best_ns = ~0ULL;
	struct name_share *share;
	const struct flow_key *old;

	if (!flow || !scratch || !room)
		return 0;
	scratch->flow_key = *flow;
	known = bpf_map_lookup_elem(&name_connections, &scratch->flow_key);
	if (known && known->server == server) {
		known->name = name;
		known->last_ns = now_ns;
		known->ended = 0;
		return 0;
	}
	share = find_share(server);
	if (!share)
		return 0;
	first = __sync_fetch_and_add(&share->connections, 1);
	best = first & (room - 1);
	for (int i = 0; i < CANDIDATES; i++) {
		const struct flow_key *other;

		key.place = (first + i) & (room - 1);
		other = bpf_map_lookup_elem(&connection_places, &key);
		known = other ? bpf_map_lookup_elem(&name_connections, other) : NULL;
		if (!known || known->ended || known->server != server ||
		    known->place != key.place) {
			best = key.place;
			best_ns = 0;
			break;
		}
		if (known->last_ns < best_ns) {
			best_ns = known->last_ns;
			best = key.place;
		}
	}
	key.place = best;
	old = bpf_map_lookup_elem(&connection_places, &key);
	known = old ? bpf_map_lookup_elem(&name_connections, old) : NULL;
	if (known && known->server == server && known->place == best) {
		if (best_ns && is_within(best_ns, now_ns, TIMEOUT_ESTABLISHED_S))
			add_name_count(NAME_CONNECTION_PUSHED, 1);
		bpf_map_delete_elem(&name_connections, old);
	}
	fresh.place = best;
	if (bpf_map_update_elem(&connection_places, &key, &scratch->flow_key, BPF_ANY) ||
	    bpf_map_update_elem(&name_connections, &scratch->flow_key, &fresh, BPF_ANY))
		add_name_count(NAME_CONNECTION_LOST, 1);
	return 0;
}

/* An opening that a grant has let pass. */
__noinline int use_grant(const struct packet *packet, const struct decision *decision, __u64 now_ns)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	struct flow_key key;
	__u32 name;

	if (!packet || !decision || !scratch)
		return 0;
	name = scratch->name;
	if (!keep_open(&packet->destination, name, decision->server, now_ns))
		keep_open(&packet->destination, name, 0, now_ns);
	if (packet->protocol != IPPROTO_TCP)
		return 0;
	fill_reply_key(&key, packet);
	return add_name_connection(&key, decision->server, name, now_ns);
}

/* A segment of a connection that a grant has let pass. */
__noinline int touch_name_connection(const struct packet *packet, __u64 now_ns)
{
	struct name_connection *connection;
	struct flow_key key;

	if (!packet)
		return 0;
	fill_reply_key(&key, packet);
	connection = bpf_map_lookup_elem(&name_connections, &key);
	if (!connection)
		return 0;
	if (packet->tcp_flags & (TCP_FIN | TCP_RST))
		connection->ended = 1;
	if (now_ns - connection->last_ns > TOUCH_NS)
		connection->last_ns = now_ns;
	return 0;
}

#endif
