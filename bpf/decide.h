/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict: one function that reads the packet, the policy and the flows, and writes its
 * decision only. The filter and `explain` both call it. The steps stand in the order of
 * docs/verdicts.md.
 */
#ifndef PORTCULLIS_DECIDE_H
#define PORTCULLIS_DECIDE_H

#include "answer.h"
#include "fragment.h"
#include "link_scope.h"
#include "stray.h"

static __always_inline bool is_spoofed(const struct server *server, const struct packet *packet)
{
	if (server->flags & SERVER_MAC && !same_mac(server->mac, packet->source_mac))
		return true;
	/* two tags with an id are an attempt to hop between VLANs */
	return server->flags & SERVER_VLAN &&
	       (packet->vlans != 1 || (packet->vlan & 0x0fff) != server->vlan);
}

/* Is the rule's token bucket (GCRA) empty? The tool makes it, and a missing one counts as empty. */
static __always_inline bool is_over_limit(const struct verdict_context *context,
					  struct decision *decision)
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

/* Steps 10 to 18: a packet that its server sent, and that is no answer in a flow. */
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

	/* the peer opened this connection, so the server's `out` need does not cover it */
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
	/* No need permits the port. So the verdict is the same for all peers, unless a `quiet` need
	 * lists some.
	 */
	if (decision->reason == REASON_NEW_FLOW && (!need || !need->quiet.set))
		decision->scope = SCOPE_PORT;
	if (need && match_peer(&context->policy, &need->quiet, &packet->destination))
		decision->flags |= DROP_QUIET;
	/* expected of a DHCP client that renews by unicast, so no alarm */
	if (context->policy.flags & SETTINGS_DHCP && is_dhcp_client(packet))
		decision->flags |= DROP_QUIET;
}

/* Step 5. A link-local source belongs to no server. A `quiet` need that all servers have holds for
 * it too, for example for mDNS over IPv6.
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
	if (!is_link_local(packet) || packet->fragment_position == FRAGMENT_LATER ||
	    is_foreign_icmp(packet))
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
		/* in mode observe a quarantine of the address's owner changes the verdict */
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
		/* expected of a datagram that was under way during a policy swap, so no alarm */
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

/* Is a drop only counted, and the packet passed? A quarantine drops in mode observe too, for any
 * reason. A spoofed frame, malformed or not, never gets the mode of the address's owner.
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

/* `assume`: enum assumption. A global function: the verifier proves it once. */
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
