/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tracker: records the flows that peers open to the servers, for strict tracking. It gives no
 * verdict and drops nothing.
 */
#ifndef PORTCULLIS_TRACK_H
#define PORTCULLIS_TRACK_H

#include "flow.h"
#include "heard.h"
#include "link_scope.h"
#include "name_grant.h"

static __always_inline void add_half_open(const struct flow_key *key, __u32 generation, __u32 rule,
					  __u64 now_ns)
{
	struct half_open fresh = { .opened_ns = now_ns, .generation = generation, .rule = rule };
	struct half_open *half = bpf_map_lookup_elem(&half_open, key);

	/* a SYN that is sent again must not discard the SYN+ACK that is under way */
	if (half && is_within(half->opened_ns, now_ns, TIMEOUT_HALF_OPEN_S)) {
		half->opened_ns = now_ns;
		half->generation = generation;
		half->rule = rule;
		return;
	}
	if (bpf_map_update_elem(&half_open, key, &fresh, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
}

/* As find_service(), of the policy or of an edit. What an edit denies is recorded all the same: its peer may
 * go on when that is over.
 */
static __always_inline __u32 find_opened(const struct policy *policy, const struct server *server,
					 __u8 protocol, __u16 port, const struct address *peer,
					 __u64 now_ns, bool *listed)
{
	__u32 rule = find_service(policy, server, protocol, port, peer, listed), edit;

	if (rule || !has_edits(policy))
		return rule;
	edit = find_edit(policy->edits, server->id, join_flow(EDIT_IN, protocol, port), peer,
			 now_ns);
	return edit & EDIT_ALLOWS ? edit_rule(edit) : 0;
}

/* The flags of a first fragment may stand in a later one, or be overwritten by it. A host that listens
 * looks at a reset first (RFC 9293, 3.10.7.2), so a SYN with one opens nothing.
 */
static __always_inline bool may_be_syn(const struct packet *packet)
{
	return (is_bare_syn(packet) && !(packet->tcp_flags & TCP_RST)) ||
	       packet->fragment_position == FRAGMENT_FIRST;
}

static __always_inline void track_segment(const struct policy *policy, const struct packet *packet,
					  const struct flow_key *key, __u64 now_ns)
{
	const struct server *server;
	struct half_open *half;
	struct flow *flow;

	if (may_be_syn(packet)) {
		bool listed;
		__u32 rule;

		server = find_server(policy, &packet->destination);
		if (!server)
			return;
		rule = find_opened(policy, server, IPPROTO_TCP, packet->destination_port,
				   &packet->source, now_ns, &listed);
		if (rule)
			add_half_open(key, noted_generation(policy->generation, rule), rule,
				      now_ns);
		else
			note_unlisted(key, now_ns);
		if (is_bare_syn(packet))
			return;
	}
	/* only a segment that every host reads alike changes a flow */
	if (packet->malformed || packet->bad_fragment || is_bare_syn(packet))
		return;

	/* goes first: an older connection may have had the same addresses and ports */
	half = bpf_map_lookup_elem(&half_open, key);
	if (half && is_within(half->opened_ns, now_ns, TIMEOUT_HALF_OPEN_S) &&
	    (packet->tcp_flags & (TCP_ACK | TCP_RST)) == TCP_ACK &&
	    acknowledges(half, packet->acknowledgment)) {
		__u32 rule = half->rule;
		bool live = half->generation == policy->generation, listed;

		server = find_server(policy, &packet->destination);
		if (!server)
			return;
		make_established(key, half->generation, rule, live ? server->id : 0,
				 packet->tcp_flags & TCP_FIN ? FLOW_FIN_PEER : 0, now_ns);
		/* the one CPU that deletes it counts it */
		if (bpf_map_delete_elem(&half_open, key))
			return;
		if (!live)
			rule = find_service(policy, server, IPPROTO_TCP, packet->destination_port,
					    &packet->source, &listed);
		if (rule)
			note_use(policy->generation, rule, 1, now_ns);
		return;
	}

	flow = bpf_map_lookup_elem(&established, key);
	if (!flow)
		return;
	/* a flow that the live policy has permitted has a server there */
	if (flow->generation != policy->generation && !find_server(policy, &packet->destination))
		return;
	/* It may be forged, and then the server's socket stays open (RFC 5961, 3): the flow ends when
	 * the server agrees.
	 */
	if (packet->tcp_flags & TCP_RST)
		return;
	if (flow->flags & FLOW_PICKED_UP && is_alive(flow, IPPROTO_TCP, now_ns))
		__sync_fetch_and_and(&flow->flags, ~FLOW_PICKED_UP);
	if (packet->tcp_flags & TCP_FIN)
		add_flow_flags(flow, FLOW_FIN_PEER);
	if (is_alive(flow, IPPROTO_TCP, now_ns))
		refresh_flow(flow, now_ns);
}

/* Refreshes the flow while it lives, and else makes it. */
static __always_inline void open_datagram_flow(void *table, const struct flow_key *key,
					       __u32 generation, __u32 rule, __u32 server,
					       __u64 now_ns)
{
	struct flow fresh = {
		.last_ns = now_ns,
		.generation = generation,
		.rule = rule,
		.server = server,
	};
	struct flow *flow = bpf_map_lookup_elem(table, key);

	if (flow && is_alive(flow, key->protocol, now_ns)) {
		renew_flow(flow, generation, rule, server);
		if (!is_due(flow, now_ns))
			return;
		flow->last_ns = now_ns;
	} else if (bpf_map_update_elem(table, key, &fresh, BPF_ANY)) {
		add_statistic(STATISTIC_FLOW_LOST, 1);
	}
	remember_request(key, server, now_ns);
}

static __always_inline void track_datagram(const struct policy *policy, const struct server *server,
					   const struct packet *packet, const struct flow_key *key,
					   __u64 now_ns)
{
	bool listed;
	__u32 rule = find_opened(policy, server, packet->protocol, packet->destination_port,
				 &packet->source, now_ns, &listed);

	if (rule) {
		open_datagram_flow(&datagrams, key, noted_generation(policy->generation, rule),
				   rule, server->id, now_ns);
		return;
	}
	/* a service, though not for this peer: its answer is expected */
	if (listed)
		remember_request(key, server->id, now_ns);
	/* The type may stand in a later fragment. Such a peer opens something in any case. */
	if (is_connection_request(packet) ||
	    (packet->fragment_position == FRAGMENT_FIRST && packet->protocol == IPPROTO_SCTP))
		note_unlisted(key, now_ns);
	if (packet->protocol != IPPROTO_UDP)
		return;
	/* a lease, whose client is to renew it */
	if (policy->flags & SETTINGS_DHCP && is_dhcp_server(packet)) {
		note_lessor(server->id, &packet->source);
		return;
	}
	/* where the server may open the flow itself, this is most likely an answer */
	if (!may_open_itself(policy, server, key, now_ns, HOOK_SKB))
		note_unlisted(key, now_ns);
}

static __always_inline void track_icmp(const struct policy *policy, const struct server *server,
				       const struct packet *packet, const struct flow_key *key,
				       __u64 now_ns)
{
	bool listed;
	__u32 rule;

	if (!is_icmp_request(packet->ip_version, packet->icmp_type))
		return;
	rule = find_opened(policy, server, packet->protocol, packet->icmp_type, &packet->source,
			   now_ns, &listed);
	if (rule)
		open_datagram_flow(&icmp_queries, key, noted_generation(policy->generation, rule),
				   rule, server->id, now_ns);
}

/* Did the frame come from the DMZ, from an address that no server has? Such a stranger, which only
 * unknown_sources = "allow" and mode observe let pass, opens nothing: a server could send it in a
 * stranger's name, and answer it. What the router itself sends has no such interface: it is no stranger's,
 * even if a proxy on the router uses the addresses of its clients.
 */
static __always_inline bool is_stranger_of_link(const struct __sk_buff *skb,
						const struct policy *policy,
						const struct packet *packet)
{
	__u32 interface = skb->ingress_ifindex;

	if (!interface || (interface != skb->ifindex &&
			   (!(policy->flags & (SETTINGS_UNKNOWN_ALLOW | SETTINGS_OBSERVE)) ||
			    !bpf_map_lookup_elem(&own_interfaces, &interface))))
		return false;
	return !find_server(policy, &packet->source);
}

/* A global function, for its own stack: answers are read on top of the packet alone. It parses as well, for two
 * calls cost more than one.
 */
__noinline int track(struct __sk_buff *skb, struct packet *packet, __u64 now_ns)
{
	struct policy policy = live_policy(now_ns);
	const struct server *server;
	struct flow_key key;

	if (!packet)
		return 0;
	parse_skb(skb, packet);
	if (!packet->addressed || packet->fragment_position == FRAGMENT_LATER ||
	    is_foreign_icmp(packet) || !(policy.flags & SETTINGS_TRACKED) ||
	    is_stranger_of_link(skb, &policy, packet))
		return 0;
	if (!packet->ported) {
		/* The ports may stand in a later fragment, or behind more headers than are read. */
		if (packet->fragment_position != FRAGMENT_FIRST && !is_extension(packet->protocol))
			return 0;
		server = find_server(&policy, &packet->destination);
		if (server)
			remember_heard(server->id, &packet->source, HEARD_ANY, HEARD_ANY, now_ns);
		return 0;
	}
	if (packet->protocol == IPPROTO_TCP) {
		fill_flow_key(&key, &packet->destination, &packet->source, IPPROTO_TCP,
			      packet->destination_port, packet->source_port);
		track_segment(&policy, packet, &key, now_ns);
		return 0;
	}
	/* A DHCP server answers a client that has no address yet by broadcast. No router forwards that. */
	if (policy.flags & SETTINGS_DHCP && is_dhcp_server(packet) && is_link_scope(packet)) {
		note_lessor(LESSORS_OF_LINK, &packet->source);
		return 0;
	}
	server = find_server(&policy, &packet->destination);
	if (!server)
		return 0;
	if (is_icmp(packet)) {
		fill_flow_key(&key, &packet->destination, &packet->source, packet->protocol,
			      packet->icmp_id, packet->icmp_type);
		track_icmp(&policy, server, packet, &key, now_ns);
		return 0;
	}
	fill_flow_key(&key, &packet->destination, &packet->source, packet->protocol,
		      packet->destination_port, packet->source_port);
	track_datagram(&policy, server, packet, &key, now_ns);
	return 0;
}

#endif
