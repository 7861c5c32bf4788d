/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers that nothing permits, and the reason for which each is dropped.
 */
#ifndef PORTCULLIS_STRAY_H
#define PORTCULLIS_STRAY_H

#include "flow.h"
#include "link_scope.h"
#include "verdict.h"

/* A TCP segment other than a bare SYN. */
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
		/* port 0, so that a scan from outside makes one row, and not thousands */
		drop_own_port(decision, REASON_BACKSCATTER, 0);
		return;
	}
	/* in service tracking only a SYN+ACK shows that a peer opened the flow */
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

/* A UDP datagram or ICMP message. False: it is no answer, and nothing is decided yet. */
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
			__u32 rule =
				find_service(&context->policy, context->server, packet->protocol,
					     request, &packet->destination, &listed);

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

#endif
