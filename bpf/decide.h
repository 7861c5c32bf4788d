/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict: one function that reads the packet, the policy and the flows,
 * and writes nothing but its answer. The filter and `explain` both ask it. The
 * steps stand in the order in which docs/verdicts.md numbers them.
 */
#ifndef PORTCULLIS_DECIDE_H
#define PORTCULLIS_DECIDE_H

#include "flow.h"

enum {
	FAMILY_IPV6 = 10, /* AF_INET6, which no UAPI header names */
	ETHERTYPE_LLDP = 0x88cc,
	ETHERTYPE_EAPOL = 0x888e,
	ETHERTYPE_SLOW = 0x8809,
	PORT_DHCP4_SERVER = 67,
	PORT_DHCP4_CLIENT = 68,
	PORT_DHCP6_CLIENT = 546,
	PORT_DHCP6_SERVER = 547,
};

/* What the steps have in common. */
struct verdict_context {
	const struct packet *packet;
	const struct server *server;
	struct policy policy;
	struct flow_key key; /* of the flow that the packet would answer in */
	__u64 now_ns;
	__u32 assume;
};

static __always_inline void pass(struct decision *decision, enum reason reason, __u32 rule,
				 __u32 effects)
{
	decision->verdict = VERDICT_PASS;
	decision->reason = reason;
	decision->rule = rule;
	decision->effects = effects;
}

static __always_inline void drop(struct decision *decision, enum reason reason, __u8 flags)
{
	decision->verdict = VERDICT_DROP;
	decision->reason = reason;
	decision->flags |= flags;
}

static __always_inline void drop_own_port(struct decision *decision, enum reason reason, __u16 port)
{
	drop(decision, reason, DROP_OWN_PORT);
	decision->port = port;
}

static __always_inline bool is_link_layer(__u16 ethertype)
{
	return ethertype <= LENGTH_MAX || ethertype == ETH_P_ARP ||
	       ethertype == ETHERTYPE_LLDP || ethertype == ETHERTYPE_EAPOL ||
	       ethertype == ETHERTYPE_SLOW;
}

static __always_inline bool is_link_local(const struct packet *packet)
{
	const __be32 *word_be = packet->source.word_be;

	if (packet->ip_version == 4)
		return !word_be[3] || (word_be[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return (word_be[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
	       (!word_be[0] && !word_be[1] && !word_be[2] && !word_be[3]);
}

/* Is the destination an address that no router forwards, by its form alone? */
static __always_inline bool is_link_scope(const struct packet *packet)
{
	const __be32 *word_be = packet->destination.word_be;

	if (packet->ip_version == 4)
		return word_be[3] == 0xffffffff;
	if ((word_be[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
		return bpf_ntohl(word_be[0] & bpf_htonl(0x000f0000)) <= 0x00020000;
	return (word_be[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Would the router keep this IPv6 packet on the link or to itself? What passes
 * before the server is known must not be a way out, so where the form of the
 * address does not tell, the routing table does. Not to be asked of a multicast
 * destination: of that another table tells.
 */
static __noinline bool stays_on_link(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_fib_lookup route = {};
	__u32 ifindex = ctx->ingress_ifindex;
	long result;

	/* one load, here: a second one tempts clang to keep a pointer into the
	 * context, which no verifier allows
	 */
	barrier_var(ifindex);
	route.ifindex = ifindex;
	route.family = FAMILY_IPV6;
	__builtin_memcpy(route.ipv6_src, &packet->source, sizeof(route.ipv6_src));
	__builtin_memcpy(route.ipv6_dst, &packet->destination, sizeof(route.ipv6_dst));
	result = bpf_fib_lookup(ctx, &route, sizeof(route), 0);
	if (result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED ||
	    result == BPF_FIB_LKUP_RET_UNREACHABLE || result == BPF_FIB_LKUP_RET_BLACKHOLE ||
	    result == BPF_FIB_LKUP_RET_PROHIBIT)
		return true;
	return (result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH) &&
	       route.ifindex == ifindex;
}

static __always_inline bool shares_prefix(const struct packet *packet)
{
	return packet->source.word_be[0] == packet->destination.word_be[0] &&
	       packet->source.word_be[1] == packet->destination.word_be[1];
}

/* Neighbour discovery (RFC 4861: hop limit 255) and MLD (RFC 3810: hop limit 1). */
static __always_inline bool is_neighbour_discovery(struct xdp_md *ctx, const struct verdict_context *context)
{
	const struct packet *packet = context->packet;
	__u8 type = packet->icmp_type;

	if (packet->ip_version != 6 || !is_icmp(packet) || packet->fragment_position != FRAGMENT_NONE)
		return false;
	if (!context->server && !is_link_local(packet))
		return false;
	if (type == ICMP6_MLD_REPORT || type == ICMP6_MLD_DONE || type == ICMP6_MLD2_REPORT)
		return packet->hop_limit == 1;
	if (type != ICMP6_ROUTER_SOLICIT && type != ICMP6_NEIGHBOUR_SOLICIT &&
	    type != ICMP6_NEIGHBOUR_ADVERT)
		return false;
	if (packet->hop_limit != 255)
		return false;
	/* no router forwards what comes from a link-local address (RFC 4291, 2.5.6) */
	if (is_link_scope(packet) || is_link_local(packet))
		return true;
	/* A solicitation for routers goes to all of them (RFC 4861, 4.1). The rest
	 * may go to an address of the link: both tests, for the routing table alone
	 * does not tell when policy routing or another interface's settings decide.
	 */
	return type != ICMP6_ROUTER_SOLICIT && shares_prefix(packet) && stays_on_link(ctx, packet);
}

static __always_inline bool is_rogue_router(const struct packet *packet)
{
	if (!is_icmp(packet) || packet->fragment_position == FRAGMENT_LATER)
		return false;
	if (packet->ip_version == 4)
		return packet->icmp_type == ICMP4_REDIRECT ||
		       packet->icmp_type == ICMP4_ROUTER_ADVERT;
	return packet->icmp_type == ICMP6_ROUTER_ADVERT || packet->icmp_type == ICMP6_REDIRECT;
}

/* RFC 2131 and RFC 8415: a client to a server. */
static __always_inline bool is_dhcp_client(const struct packet *packet)
{
	__u16 client = PORT_DHCP6_CLIENT, server = PORT_DHCP6_SERVER;

	if (packet->ip_version == 4) {
		client = PORT_DHCP4_CLIENT;
		server = PORT_DHCP4_SERVER;
	}
	return packet->protocol == IPPROTO_UDP && packet->fragment_position == FRAGMENT_NONE &&
	       packet->source_port == client && packet->destination_port == server;
}

/* Only where the destination's form keeps it on the link: a renewal by unicast
 * takes an `out` need, or its client broadcasts in the end.
 */
static __always_inline bool is_dhcp(const struct verdict_context *context)
{
	return context->policy.flags & SETTINGS_DHCP && is_dhcp_client(context->packet) &&
	       (context->server || is_link_local(context->packet)) &&
	       is_link_scope(context->packet);
}

static __always_inline bool is_spoofed(const struct server *server, const struct packet *packet)
{
	if (server->flags & SERVER_MAC && !same_mac(server->mac, packet->source_mac))
		return true;
	/* two tags with an id are a hop between VLANs, whatever they say */
	return server->flags & SERVER_VLAN &&
	       (packet->vlans != 1 || (packet->vlan & 0x0fff) != server->vlan);
}

/* An answer in a flow that a peer opened to a service that the live policy
 * has? Then the rule, and the decision is filled in; otherwise 0.
 */
static __always_inline __u32 find_reply(struct verdict_context *context, struct decision *decision)
{
	const struct packet *packet = context->packet;
	__u8 protocol = packet->protocol;
	__u16 service = packet->source_port;
	struct found_flow found;
	__u32 rule = 0;
	bool listed, reset;

	if (packet->fragment_position == FRAGMENT_LATER || packet->bad_fragment || is_foreign_icmp(packet))
		return 0;
	if (protocol == IPPROTO_TCP && is_bare_syn(packet))
		return 0;
	if (is_icmp(packet)) {
		int request = answered_icmp_request(packet->ip_version, packet->icmp_type);

		if (request < 0)
			return 0;
		service = request;
	}

	if (!(context->policy.flags & SETTINGS_STRICT)) {
		rule = find_service(&context->policy, context->server, protocol, service,
				    &packet->destination, &listed);
		if (rule)
			pass(decision, REASON_REPLY, rule, 0);
		return rule;
	}

	found = find_flow(&context->key, context->now_ns, context->assume & ASSUME_NO_FLOW);
	reset = packet->tcp_flags & TCP_RST;
	/* The tracker may have seen the SYN just before the gate came down, and nobody
	 * the SYN+ACK: such a flow would end as half-open ones do.
	 */
	if ((found.found ? found.unanswered && !reset : !(context->assume & ASSUME_OPENED)) &&
	    protocol == IPPROTO_TCP && !(packet->tcp_flags & TCP_SYN) &&
	    context->now_ns < read_state(STATE_PICKUP_UNTIL_NS)) {
		rule = find_service(&context->policy, context->server, protocol, service,
				    &packet->destination, &listed);
		/* a closed port's answers to forged segments must not fill `established` */
		if (rule)
			pass(decision, REASON_PICKUP, rule, reset ? 0 : EFFECT_OPEN_FLOW);
	} else if (found.found && found.generation == context->policy.generation) {
		rule = found.rule;
		pass(decision, REASON_REPLY, rule, EFFECT_TOUCH_FLOW);
	} else if (found.found || context->assume & ASSUME_OPENED) {
		/* not yet asked under this policy: the service may have been revoked */
		rule = find_service(&context->policy, context->server, protocol, service,
				    &packet->destination, &listed);
		if (rule)
			pass(decision, REASON_REPLY, rule, EFFECT_TOUCH_FLOW);
	}
	if (rule && protocol == IPPROTO_TCP && is_syn_ack(packet))
		decision->effects |= EFFECT_NOTE_SYN_ACK;
	return rule;
}

/* A later fragment goes as its first one went. `outdated` tells of a first one
 * that passed under another policy.
 */
static __always_inline __u32 find_first_fragment(const struct verdict_context *context, bool *outdated)
{
	const struct packet *packet = context->packet;
	struct fragment_key key;
	struct fragment *first;

	if (packet->fragment_position != FRAGMENT_LATER || packet->bad_fragment)
		return 0;
	fill_fragment_key(&key, packet);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || !is_within(first->passed_ns, context->now_ns, TIMEOUT_FRAGMENT_S) ||
	    first->protocol != packet->fragment_protocol)
		return 0;
	/* it would write over what the first one was judged by */
	if (packet->fragment_offset < first->headers_bytes)
		return 0;
	/* what let the first one pass may be gone with its policy */
	if (first->generation != context->policy.generation) {
		*outdated = true;
		return 0;
	}
	return first->rule;
}

/* One token, if the rule's purse has one (GCRA). The tool makes the purse; a
 * missing one is an empty one.
 */
static __always_inline bool is_over_limit(const struct verdict_context *context, struct decision *decision)
{
	const struct rule *rule = find_limit(&context->policy, decision->rule);
	struct limit_key key = { .server = context->server->id };
	struct limit *limit;

	if (!rule)
		return true;
	key.limit_key = rule->limit_key;
	limit = bpf_map_lookup_elem(&limits, &key);
	if (!limit)
		return true;
	if (limit->arrival_ns > context->now_ns + rule->tolerance_ns)
		return true;
	decision->limit_key = rule->limit_key;
	decision->interval_ns = rule->interval_ns;
	decision->effects |= EFFECT_SPEND_LIMIT;
	return false;
}

/* An error about a packet that a peer sent, in its own flow or in answer to
 * what an `out` need lets the server ask.
 */
static __always_inline __u32 find_quoted_flow(struct verdict_context *context)
{
	const struct packet *packet = context->packet;
	const struct quote *quote = &packet->quote;
	const struct server *server = context->server;
	const struct need *need;
	/* its own has no more to tell, and stack is scarce */
	struct flow_key *key = &context->key;
	__u16 service = quote->destination_port, asked = quote->source_port;
	__u32 rule = 0;
	bool asks = true, answers = true, listed;

	if (!quote->present)
		return 0;
	if (quote->protocol == (packet->ip_version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		int request = answered_icmp_request(packet->ip_version, service);

		/* either a peer's request, or the answer to one of the server's */
		asks = is_icmp_request(packet->ip_version, service);
		answers = request >= 0;
		asked = request;
		fill_flow_key(key, &packet->source, &packet->destination, quote->protocol,
			      quote->source_port, quote->destination_port);
	} else if (quote->protocol == IPPROTO_ICMP || quote->protocol == IPPROTO_ICMPV6) {
		return 0; /* of the other family: none that a need can name */
	} else {
		fill_flow_key(key, &packet->source, &packet->destination, quote->protocol,
			      quote->destination_port, quote->source_port);
	}
	if (asks &&
	    (!(context->policy.flags & SETTINGS_STRICT) || find_flow(key, context->now_ns, false).found))
		rule = find_service(&context->policy, server, quote->protocol, service,
				    &packet->destination, &listed);
	if (rule || !answers)
		return rule;
	need = find_need(&context->policy, server->profile, server->flags & SERVER_RANGES,
			 quote->protocol, asked);
	return need ? match_peer(&context->policy, &need->outbound, &packet->destination) : 0;
}

/* A TCP segment that is no bare SYN and that nothing permits. */
static __always_inline void drop_stray_segment(const struct verdict_context *context,
					       struct decision *decision)
{
	const struct packet *packet = context->packet;
	bool strict = context->policy.flags & SETTINGS_STRICT;
	bool syn_ack = is_syn_ack(packet);
	bool opened, listed;

	find_service(&context->policy, context->server, IPPROTO_TCP, packet->source_port,
		     &packet->destination, &listed);
	if (packet->tcp_flags & TCP_RST) {
		/* port 0: whoever scans us must not fill the ledger */
		drop_own_port(decision, REASON_BACKSCATTER, 0);
		return;
	}
	/* in service tracking a SYN+ACK alone is the sign that somebody opened */
	opened = strict ? context->assume & ASSUME_OPENED ||
				  was_opened_unlisted(&context->key, context->now_ns) :
			  syn_ack;
	if (opened && listed)
		drop_own_port(decision, REASON_STRANGER, packet->source_port);
	else if (opened && syn_ack)
		drop_own_port(decision, REASON_UNLISTED_SERVICE, packet->source_port);
	else if (listed)
		drop_own_port(decision, REASON_NO_FLOW, packet->source_port);
	else
		drop(decision, REASON_NO_FLOW, 0);
}

/* A UDP datagram or ICMP message that answers, permitted by nothing. Returns
 * whether it had a name.
 */
static __always_inline bool drop_stray_answer(const struct verdict_context *context,
					      struct decision *decision)
{
	const struct packet *packet = context->packet;
	bool listed;

	if (packet->protocol == IPPROTO_UDP) {
		if (!(context->policy.flags & SETTINGS_STRICT) ||
		    !(context->assume & ASSUME_OPENED ||
		      was_opened_unlisted(&context->key, context->now_ns)))
			return false;
		find_service(&context->policy, context->server, IPPROTO_UDP, packet->source_port,
			     &packet->destination, &listed);
		drop_own_port(decision, listed ? REASON_STRANGER : REASON_UNLISTED_SERVICE,
			      packet->source_port);
		return true;
	}
	if (is_icmp(packet)) {
		int request = answered_icmp_request(packet->ip_version, packet->icmp_type);

		if (request >= 0) {
			__u32 rule = find_service(&context->policy, context->server,
						  packet->protocol, request,
						  &packet->destination, &listed);

			drop(decision, listed && !rule ? REASON_STRANGER : REASON_BACKSCATTER,
			     DROP_OWN_PORT);
			return true;
		}
		if (is_icmp_error(packet->ip_version, packet->icmp_type)) {
			drop(decision, REASON_BACKSCATTER, DROP_OWN_PORT);
			return true;
		}
	}
	return false;
}

/* Steps 9 to 18: a packet of a known server that is its own. */
static __always_inline void decide_flow(struct verdict_context *context, struct decision *decision)
{
	const struct packet *packet = context->packet;
	const struct server *server = context->server;
	bool tcp = packet->protocol == IPPROTO_TCP;
	bool opening = !tcp || is_bare_syn(packet);
	const struct need *need = NULL;
	__u32 rule = 0;

	if (!is_foreign_icmp(packet))
		need = find_need(&context->policy, server->profile, server->flags & SERVER_RANGES,
				 packet->protocol, decision->port);
	if (need)
		rule = match_peer(&context->policy, &need->outbound, &packet->destination);

	/* A connection that the peer is known to have opened is not the server's own. */
	if (rule && tcp && is_syn_ack(packet) && context->policy.flags & SETTINGS_STRICT &&
	    was_opened_unlisted(&context->key, context->now_ns))
		rule = 0;
	if (rule) {
		pass(decision, opening ? REASON_NEED : REASON_OWN_CONNECTION, rule, 0);
		if (!opening)
			return;
		if (rule & RULE_LIMITED) {
			if (is_over_limit(context, decision))
				drop(decision, REASON_RATE, 0);
		} else if (!need->outbound.set) {
			decision->scope = SCOPE_PORT;
		}
		return;
	}
	if (!opening) {
		drop_stray_segment(context, decision);
		return;
	}
	if (is_icmp(packet) && is_icmp_error(packet->ip_version, packet->icmp_type)) {
		rule = find_quoted_flow(context);
		if (rule) {
			pass(decision, REASON_FLOW_ERROR, rule, 0);
			return;
		}
	}
	if (drop_stray_answer(context, decision))
		return;

	if (need && is_listed(&need->outbound))
		drop(decision, REASON_DESTINATION, 0);
	else if (!tcp && packet->protocol != IPPROTO_UDP && !is_icmp(packet))
		drop(decision, REASON_PROTOCOL, 0);
	else
		drop(decision, REASON_NEW_FLOW, 0);
	/* here no need permits the port to anyone; is it quiet whoever is called? */
	if (decision->reason == REASON_NEW_FLOW && (!need || !need->quiet.set))
		decision->scope = SCOPE_PORT;
	if (need && match_peer(&context->policy, &need->quiet, &packet->destination))
		decision->flags |= DROP_QUIET;
	/* the renewal of a client that may broadcast is no sign of anything */
	if (context->policy.flags & SETTINGS_DHCP && is_dhcp_client(packet))
		decision->flags |= DROP_QUIET;
}

/* Step 5. A link-local source names no server; what every server's `quiet`
 * has is quiet from there too (mDNS over IPv6 comes that way).
 */
static __always_inline void decide_unknown_source(const struct verdict_context *context,
						 struct decision *decision)
{
	const struct packet *packet = context->packet;
	const struct need *need;

	if (context->policy.flags & SETTINGS_UNKNOWN_ALLOW) {
		pass(decision, REASON_UNKNOWN_ALLOWED, 0, 0);
		return;
	}
	drop(decision, REASON_UNKNOWN_SOURCE,
	     context->policy.flags & SETTINGS_UNKNOWN_QUIET ? DROP_QUIET : 0);
	if (!is_link_local(packet) || packet->fragment_position == FRAGMENT_LATER || is_foreign_icmp(packet))
		return;
	need = find_need(&context->policy, 0, context->policy.flags & SETTINGS_RANGES,
			 packet->protocol, decision->port);
	if (need && match_peer(&context->policy, &need->quiet, &packet->destination))
		decision->flags |= DROP_QUIET;
}

static __always_inline void decide_steps(struct xdp_md *ctx, struct verdict_context *context,
				  struct decision *decision)
{
	const struct packet *packet = context->packet;
	const struct quarantine *quarantine;
	bool outdated = false;
	__u32 reply, first;

	if (packet->malformed) {
		drop(decision, REASON_MALFORMED, 0);
		return;
	}
	if (!packet->ip_version) {
		if (is_link_layer(packet->ethertype))
			pass(decision, REASON_LINK_LAYER, 0, 0);
		else
			drop(decision, REASON_ETHERTYPE, 0);
		return;
	}
	if (packet->source_routed) {
		drop(decision, REASON_SOURCE_ROUTE, 0);
		return;
	}
	if (is_rogue_router(packet)) {
		drop(decision, REASON_ROGUE_ROUTER, 0);
		return;
	}
	if (is_neighbour_discovery(ctx, context)) {
		pass(decision, REASON_NEIGHBOUR, 0, 0);
		return;
	}
	if (is_dhcp(context)) {
		pass(decision, REASON_DHCP, 0, 0);
		return;
	}
	if (!context->server) {
		decide_unknown_source(context, decision);
		return;
	}
	if (is_spoofed(context->server, packet)) {
		/* in observe the quarantine of the address's owner decides whether it only counts */
		if (!(context->policy.flags & SETTINGS_OBSERVE))
			decision->scope = SCOPE_PORT;
		drop(decision, REASON_SPOOFED, 0);
		return;
	}

	fill_reply_key(&context->key, packet);
	reply = find_reply(context, decision);
	first = find_first_fragment(context, &outdated);
	quarantine = find_quarantine(context->server->id, context->now_ns);
	if (quarantine && !((reply | first) & RULE_MANAGEMENT)) {
		decision->rule = 0;
		decision->scope = SCOPE_PORT;
		drop(decision, REASON_QUARANTINED, 0);
		return;
	}
	if (packet->bad_fragment || (packet->fragment_position == FRAGMENT_LATER && !first)) {
		/* a datagram that was under way when the policy changed is no sign of anything */
		drop(decision, REASON_FRAGMENT, outdated ? DROP_QUIET : 0);
		return;
	}
	if (first) {
		pass(decision, REASON_LATER_FRAGMENT, first, 0);
		return;
	}
	if (!reply)
		decide_flow(context, decision);
	if (packet->fragment_position == FRAGMENT_FIRST && decision->verdict == VERDICT_PASS)
		decision->effects |= EFFECT_REMEMBER_FRAGMENT;
}

/* Does a drop only count as one? A quarantine is an order about one server and holds
 * in observe too, whatever the drop is named after. A frame that by MAC or VLAN is
 * not that server's, malformed or not, has no part in its mode.
 */
static __always_inline bool is_observed(const struct verdict_context *context)
{
	const struct server *server = context->server;

	if (server && find_quarantine(server->id, context->now_ns))
		return false;
	if (server && !is_spoofed(server, context->packet))
		return server->flags & SERVER_OBSERVE;
	return context->policy.flags & SETTINGS_OBSERVE;
}

/* `assume` is 0 but for `explain`. Global, so that the verifier proves it once. */
__noinline int decide(struct xdp_md *ctx, const struct packet *packet, __u64 now_ns, __u32 assume,
		      struct decision *decision)
{
	struct verdict_context context = {};

	if (!packet || !decision)
		return 0;
	context.packet = packet;
	context.now_ns = now_ns;
	context.assume = assume;
	context.policy = live_policy();
	if (packet->addressed)
		context.server = find_server(&context.policy, &packet->source);

	decision->generation = context.policy.generation;
	if (!packet->ip_version)
		decision->port = packet->ethertype;
	else if (is_icmp(packet))
		decision->port = packet->icmp_type;
	else
		decision->port = packet->destination_port;
	if (context.server)
		decision->server = context.server->id;

	decide_steps(ctx, &context, decision);

	if (decision->verdict == VERDICT_DROP && is_observed(&context)) {
		decision->verdict = VERDICT_WOULD_DROP;
		decision->flags |= DROP_WOULD;
	}
	return 0;
}

#endif
