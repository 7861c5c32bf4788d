/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers that nothing permits, and the reason for which each is dropped.
 */
#ifndef PORTCULLIS_STRAY_H
#define PORTCULLIS_STRAY_H

#include "flow.h"
#include "heard.h"
#include "link_scope.h"
#include "verdict.h"

/* A TCP segment other than a bare SYN. */
static __always_inline void drop_stray_segment(const struct verdict_context *context,
					       struct decision *decision)
{
	const struct packet *packet = context->packet;
	bool strict = context->policy->flags & SETTINGS_STRICT;
	bool syn_ack = is_syn_ack(packet);
	bool opened, listed, own, lost = decision->flags & DROP_PRESUMED;

	decision->flags &= ~DROP_PRESUMED;
	find_service(context->policy, context->server, IPPROTO_TCP, packet->source_port,
		     &packet->destination, &listed);
	if (packet->tcp_flags & TCP_RST) {
		drop_own_port(decision, REASON_BACKSCATTER, packet->source_port);
		return;
	}
	/* in service tracking only a SYN+ACK shows that a peer opened the flow */
	opened = strict ? context->policy->assume & ASSUME_OPENED ||
				  was_opened_unlisted(&context->key, context->now_ns) :
			  syn_ack;
	/* the peer may have opened it by a packet whose ports can't be read */
	if (strict && !opened && syn_ack && !listed)
		opened = find_heard(decision->server, &packet->destination, HEARD_ANY, HEARD_ANY,
				    context->now_ns) &
			 HEARD_FOUND;
	/* no need permits the server's own SYN, or no longer, but no listener answers here */
	own = syn_ack && !(context->policy->assume & ASSUME_OPENED) &&
	      (lost ||
	       find_own_opening(&context->key, decision->server, context->now_ns) == OPENING_FOUND);
	if (opened && listed)
		drop_own_port(decision, REASON_STRANGER, packet->source_port);
	else if (opened && syn_ack && !own)
		drop_own_port(decision, REASON_UNLISTED_SERVICE, packet->source_port);
	else if (listed)
		drop_own_port(decision, REASON_NO_FLOW, packet->source_port);
	else
		drop(decision, REASON_NO_FLOW, own && lost ? DROP_PRESUMED : 0);
}

/* An answer of an `in` service in no flow: expected if the peer has asked, however late it comes.
 * False: the peer was never heard, so it is no answer.
 */
static __always_inline bool drop_late_answer(const struct verdict_context *context,
					     struct decision *decision, __u16 service)
{
	const struct packet *packet = context->packet;
	int heard = find_heard(decision->server, &packet->destination, packet->protocol, service,
			       context->now_ns);

	if (heard != HEARD_FOUND) {
		int any = find_heard(decision->server, &packet->destination, HEARD_ANY, HEARD_ANY,
				     context->now_ns);

		heard = any == HEARD_FOUND ? any : heard | any;
	}
	if (heard == HEARD_NEVER)
		return false;
	drop_own_port(decision, REASON_NO_FLOW, service);
	if (heard & HEARD_FULL)
		decision->flags |= DROP_PRESUMED;
	return true;
}

/* A datagram of UDP or another protocol than TCP and ICMP. False: it is no answer. */
static __always_inline bool drop_stray_datagram(const struct verdict_context *context,
						struct decision *decision)
{
	const struct packet *packet = context->packet;
	__u16 service = has_ports(packet->protocol) ? packet->source_port : 0;
	bool strict = context->policy->flags & SETTINGS_STRICT, accepts = is_acceptance(packet);
	bool listed, opened;

	if (is_reset(packet)) {
		/* as of TCP */
		drop_own_port(decision, REASON_BACKSCATTER, service);
		return true;
	}
	/* as of TCP, for no other message shows that a peer has opened it */
	if (!strict && !accepts)
		return false;
	/* expected of a DHCP client that renews by unicast */
	if (context->policy->flags & SETTINGS_DHCP && is_dhcp_client(packet))
		return false;
	find_service(context->policy, context->server, packet->protocol, service,
		     &packet->destination, &listed);
	opened = (packet->protocol == IPPROTO_UDP || accepts) &&
		 (!strict || context->policy->assume & ASSUME_OPENED ||
		  was_opened_unlisted(&context->key, context->now_ns));
	if (opened && !listed && accepts && !(context->policy->assume & ASSUME_OPENED) &&
	    find_own_opening(&context->key, decision->server, context->now_ns) == OPENING_FOUND) {
		/* two openings have crossed */
		drop_own_port(decision, REASON_NO_FLOW, service);
		return true;
	}
	if (opened) {
		drop_own_port(decision, listed ? REASON_STRANGER : REASON_UNLISTED_SERVICE,
			      service);
		return true;
	}
	return strict && listed && drop_late_answer(context, decision, service);
}

static __always_inline bool drop_stray_icmp(const struct verdict_context *context,
					    struct decision *decision)
{
	const struct packet *packet = context->packet;
	int request = answered_icmp_request(packet->ip_version, packet->icmp_type);
	bool listed;
	__u32 rule;

	if (request < 0) {
		if (!is_icmp_error(packet->ip_version, packet->icmp_type))
			return false;
		drop(decision, REASON_BACKSCATTER, DROP_OWN_PORT);
		return true;
	}
	rule = find_service(context->policy, context->server, packet->protocol, request,
			    &packet->destination, &listed);
	if (rule && context->policy->flags & SETTINGS_STRICT)
		return drop_late_answer(context, decision, request);
	drop(decision, listed && !rule ? REASON_STRANGER : REASON_BACKSCATTER, DROP_OWN_PORT);
	return true;
}

/* While a router takes over, flows of its predecessor come that conntrack does not know yet. Their answers are
 * expected: their peers go on to ask.
 */
static __always_inline void quiet_takeover(const struct verdict_context *context,
					   struct decision *decision)
{
	const struct packet *packet = context->packet;
	int service = has_ports(packet->protocol) ? packet->source_port : 0;
	bool listed;

	if ((decision->reason != REASON_NO_FLOW && decision->reason != REASON_NEW_FLOW) ||
	    (packet->protocol == IPPROTO_TCP && is_bare_syn(packet)) || is_foreign_icmp(packet) ||
	    context->now_ns >= read_state(STATE_TAKEOVER_UNTIL_NS))
		return;
	if (is_icmp(packet))
		service = answered_icmp_request(packet->ip_version, packet->icmp_type);
	if (service >= 0 && find_service(context->policy, context->server, packet->protocol,
					 service, &packet->destination, &listed))
		decision->flags |= DROP_QUIET;
}

/* A packet that would open a flow. `need`: of its port, or NULL. */
static __always_inline void drop_opening(const struct verdict_context *context,
					 const struct need *need, struct decision *decision)
{
	const struct packet *packet = context->packet;
	bool sports = context->server->flags & SERVER_SPORTS;

	if ((need && is_listed(&need->outbound)) ||
	    (sports && match_sport(context->policy, &context->key, context->server->profile)))
		drop(decision, REASON_DESTINATION, 0);
	else if (is_vrrp(packet))
		/* a server that claims a router's address takes over the link's traffic */
		drop(decision, REASON_ROGUE_ROUTER, 0);
	else if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
		 !is_icmp(packet))
		drop(decision, REASON_PROTOCOL, 0);
	/* No need permits the port, so all peers are alike, but for a `quiet` need with peers. With
	 * a `sport` the source port counts too.
	 */
	else if (!sports && (!need || !need->quiet.set))
		decision->scope = SCOPE_PORT;
	if (need && match_peer(context->policy, &need->quiet, &packet->destination))
		decision->flags |= DROP_QUIET;
	/* Expected of a DHCP client that renews by unicast, so no alarm. Service tracking does not know
	 * who has leased.
	 */
	if (context->policy->flags & SETTINGS_DHCP && is_dhcp_client(packet) &&
	    (!(context->policy->flags & SETTINGS_STRICT) ||
	     is_lessor(decision->server, &packet->destination) ||
	     is_lessor(LESSORS_OF_LINK, &packet->destination)))
		decision->flags |= DROP_QUIET;
}

static __always_inline void find_stray_reason(const struct verdict_context *context,
					      struct decision *decision)
{
	const struct packet *packet = context->packet;
	const struct need *need = NULL;

	if (packet->protocol == IPPROTO_TCP && !is_bare_syn(packet)) {
		drop_stray_segment(context, decision);
		return;
	}
	if (is_icmp(packet) ? drop_stray_icmp(context, decision) :
			      packet->protocol != IPPROTO_TCP && !is_foreign_icmp(packet) &&
				      drop_stray_datagram(context, decision))
		return;
	if (!is_foreign_icmp(packet))
		need = find_need(context->policy, context->server->profile,
				 context->server->flags & SERVER_RANGES, packet->protocol,
				 decision->port);
	drop_opening(context, need, decision);
}

/* The reason of a packet that nothing permits: steps 13 to 18. A global function: the verifier proves
 * it once. `packed`: its server.
 */
__noinline int decide_stray(const struct packet *packet, const struct policy *policy, __u64 now_ns,
			    __u32 packed, struct decision *decision)
{
	struct verdict_context context = {};
	struct server server = {};

	if (!packet || !policy || !decision)
		return 0;
	context.packet = packet;
	context.policy = policy;
	context.now_ns = now_ns;
	unpack_server(&server, packed);
	context.server = &server;
	/* fails closed */
	drop(decision, REASON_NEW_FLOW, 0);
	fill_reply_key(&context.key, packet);
	find_stray_reason(&context, decision);
	quiet_takeover(&context, decision);
	return 0;
}

#endif
