/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers in flows that peers opened, and ICMP errors about them.
 */
#ifndef PORTCULLIS_ANSWER_H
#define PORTCULLIS_ANSWER_H

#include "flow.h"
#include "name_grant.h"
#include "verdict.h"

/* The rule that permits the packet as an answer in a flow that a peer opened to a service of the
 * live policy or of an edit, with the decision filled in. If an edit denies the service, that edit, and the
 * decision is a drop. 0: it is no such answer.
 */
static __always_inline __u32 find_reply(struct verdict_context *context, struct decision *decision)
{
	const struct packet *packet = context->packet;
	__u8 protocol = packet->protocol;
	__u16 service = packet->source_port;
	struct found_flow found;
	__u32 rule = 0, effects = 0, edit;
	enum reason reason = REASON_REPLY;
	bool listed, reset, known = false;

	if (packet->fragment_position == FRAGMENT_LATER || packet->bad_fragment ||
	    is_foreign_icmp(packet))
		return 0;
	if (protocol == IPPROTO_TCP && is_bare_syn(packet))
		return 0;
	if (is_icmp(packet)) {
		int request = answered_icmp_request(packet->ip_version, packet->icmp_type);

		if (request < 0)
			return 0;
		service = request;
	}

	if (context->policy->flags & SETTINGS_STRICT) {
		found = find_flow(&context->key, context->now_ns,
				  context->policy->assume & ASSUME_NO_FLOW);
		reset = packet->tcp_flags & TCP_RST;
		/* The tracker may have seen the SYN just before the filter was attached, so that the
		 * SYN+ACK was seen by neither. Such a flow would time out as half-open. The pickup
		 * takes it over.
		 */
		if ((found.found ? found.unanswered && !reset :
				   !(context->policy->assume & ASSUME_OPENED)) &&
		    protocol == IPPROTO_TCP && !(packet->tcp_flags & TCP_SYN) &&
		    context->now_ns < read_state(STATE_PICKUP_UNTIL_NS)) {
			reason = REASON_PICKUP;
			/* anybody can provoke resets of a closed port: these must not fill the table */
			effects = reset ? 0 : EFFECT_OPEN_FLOW | EFFECT_SEE_USE;
		} else if (found.found || context->policy->assume & ASSUME_OPENED) {
			effects = EFFECT_TOUCH_FLOW;
			if (protocol == IPPROTO_TCP && is_syn_ack(packet))
				effects |= EFFECT_NOTE_SYN_ACK;
			/* else the first packet under this policy, which may have revoked the service */
			known = found.found && found.generation == context->policy->generation;
			rule = known ? found.rule : 0;
		} else {
			return 0;
		}
	} else {
		/* of TCP a SYN+ACK shows that something opens, and of all else each answer */
		effects = protocol != IPPROTO_TCP || is_syn_ack(packet) ? EFFECT_COUNT_USE :
									  EFFECT_SEE_USE;
	}
	if (!known)
		rule = find_service(context->policy, context->server, protocol, service,
				    &packet->destination, &listed);
	if (has_edits(context->policy)) {
		edit = find_edit(context->policy->edits, context->server->id,
				 join_flow(EDIT_IN, protocol, service), &packet->destination,
				 context->now_ns);
		if (edit & EDIT_DENIES && (rule || edit & EDIT_ALLOWS)) {
			drop_own_port(decision, REASON_DENIED, service);
			decision->rule = edit_rule(edit);
			return decision->rule;
		}
		rule = permit_by_edit(rule, edit);
	}
	if (rule)
		pass(decision, reason, rule, effects);
	return rule;
}

/* The rule by which a flow is permitted that an ICMP error quotes: `rule`, or an edit's. 0: it is not. */
static __always_inline __u32 permit_quoted(const struct verdict_context *context, __u32 rule,
					   enum edit_direction direction, __u16 port)
{
	const struct packet *packet = context->packet;

	if (!has_edits(context->policy))
		return rule;
	return permit_by_edit(rule, find_edit(context->policy->edits, context->server->id,
					      join_flow(direction, packet->quote.protocol, port),
					      &packet->destination, context->now_ns));
}

/* The rule that permits an ICMP error: it is about a peer's packet, either in a flow that the peer
 * opened or in answer to a flow that an `out` need permits. 0: there is none.
 */
static __always_inline __u32 find_quoted_flow(struct verdict_context *context)
{
	const struct packet *packet = context->packet;
	const struct quote *quote = &packet->quote;
	const struct server *server = context->server;
	const struct need *need;
	/* reused: the packet's own flow is no longer needed, and stack is scarce */
	struct flow_key *key = &context->key;
	__u16 service = quote->destination_port, asked = quote->source_port;
	__u32 rule = 0;
	bool asks = true, answers = true, listed;

	if (!quote->present)
		return 0;
	if (quote->protocol == (packet->ip_version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		int request = answered_icmp_request(packet->ip_version, service);

		/* either a peer's request, or the answer to a request of the server */
		asks = is_icmp_request(packet->ip_version, service);
		answers = request >= 0;
		asked = request;
		fill_flow_key(key, &packet->source, &packet->destination, quote->protocol,
			      quote->source_port, quote->destination_port);
	} else if (quote->protocol == IPPROTO_ICMP || quote->protocol == IPPROTO_ICMPV6) {
		return 0; /* of the other IP version, which no need can name */
	} else {
		fill_flow_key(key, &packet->source, &packet->destination, quote->protocol,
			      quote->destination_port, quote->source_port);
	}
	if (asks && (!(context->policy->flags & SETTINGS_STRICT) ||
		     find_flow(key, context->now_ns, false).found)) {
		rule = find_service(context->policy, server, quote->protocol, service,
				    &packet->destination, &listed);
		rule = permit_quoted(context, rule, EDIT_IN, service);
	}
	if (rule || !answers)
		return rule;
	need = find_need(context->policy, server->profile, server->flags & SERVER_RANGES,
			 quote->protocol, asked);
	if (need)
		rule = match_peer(context->policy, &need->outbound, &packet->destination);
	if (!rule && server->flags & SERVER_SPORTS) {
		rule = match_sport(context->policy, key, server->profile);
		if (!is_permitted(rule))
			rule = 0;
	}
	if (need && !rule && context->policy->flags & SETTINGS_NAMES)
		rule = find_by_name(context->policy, key,
				    (__u64)server->id << 32 | need->outbound.set |
					    (quote->protocol == IPPROTO_TCP ? OF_CONNECTION : 0),
				    0, context->now_ns);
	return permit_quoted(context, rule, EDIT_OUT, asked);
}

#endif
