/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict: one function that reads the packet, the policy and the flows, and writes its
 * decision only. The filter and `explain` both call it. The steps stand in the order of
 * docs/verdicts.md.
 *
 * Over 500 lines on purpose: the steps are one list, and they are read in their order.
 */
#ifndef PORTCULLIS_DECIDE_H
#define PORTCULLIS_DECIDE_H

#include "answer.h"
#include "edits.h"
#include "elsewhere.h"
#include "fragment.h"
#include "handover.h"
#include "link_scope.h"
#include "name_ask.h"
#include "name_grant.h"
#include "stray.h"

static __always_inline bool is_spoofed(const struct policy *policy, const struct server *server,
				       const struct packet *packet)
{
	if (server->flags & SERVER_MAC && !same_mac(server->mac, packet->source_mac) &&
	    !(server->flags & SERVER_MACS &&
	      find_mac(policy, server->id, read_mac(packet->source_mac))))
		return true;
	/* two tags with an id are an attempt to hop between VLANs */
	return server->flags & SERVER_VLAN &&
	       (packet->vlans != 1 || (packet->vlan & 0x0fff) != server->vlan);
}

/* Has the decision's rule, or another one that is asked after it, a token left (GCRA)? The decision then names that
 * rule. The tool makes the buckets, and a missing one counts as empty. `other`: a rule that is asked after all
 * these, if it isn't the same. A global function: the verifier proves it once.
 */
__noinline int has_token(const struct policy *policy, __u64 now_ns, __u32 other,
			 struct decision *decision)
{
	struct limit_key key = {};

	if (!policy || !decision)
		return 0;
	key.server = decision->server;
	if (other == decision->rule)
		other = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 2 * LIMITS_OF_FLOW_MAX; i++) {
		const struct rule *rule = find_limit(policy, decision->rule);
		struct limit *limit;

		if (!rule)
			return 0;
		key.limit_key = rule->limit_key;
		limit = bpf_map_lookup_elem(&limits, &key);
		if (limit && limit->arrival_ns <= now_ns + rule->tolerance_ns) {
			decision->effects |= EFFECT_SPEND_LIMIT;
			return 1;
		}
		if (rule->next) {
			decision->rule = rule->next;
			continue;
		}
		if (!other)
			return 0;
		decision->rule = other;
		other = 0;
	}
	return 0;
}

/* Has the server that has the source address sent a SYN of its own in this flow? A global function, for its
 * own stack.
 */
__noinline int sent_opening(const struct packet *packet, const struct policy *policy, __u64 now_ns)
{
	const struct server *server;
	struct flow_key key;

	if (!packet || !policy)
		return 0;
	server = find_server(policy, &packet->source);
	if (!server)
		return 0;
	fill_reply_key(&key, packet);
	return find_own_opening(&key, server->id, now_ns) == OPENING_FOUND;
}

/* An answer to a visitor is counted under the server's own port, and is no sign of its own: visitors
 * go on to ask. A global function, as drop_stray().
 */
__noinline int drop_quarantined(const struct packet *packet, const struct policy *policy,
				__u64 now_ns, __u32 step, struct decision *decision)
{
	struct server server = {};
	bool answers = (step & STEP_MASK) == STEP_QUARANTINED_REPLY, listed = false, readable;
	__u16 service;

	if (!packet || !policy || !decision)
		return 0;
	unpack_server(&server, step);
	service = has_ports(packet->protocol) ? packet->source_port : 0;
	/* of a fragment the type, the ports or the flags may be unknown, and no need has foreign ICMP */
	readable = packet->fragment_position != FRAGMENT_LATER && !packet->bad_fragment &&
		   !is_foreign_icmp(packet);
	decision->rule = 0;
	decision->scope = SCOPE_PORT;
	decision->effects &= EFFECTS_OF_QUESTIONS;
	if (readable && is_icmp(packet)) {
		int request = answered_icmp_request(packet->ip_version, packet->icmp_type);

		answers |= request >= 0 || is_icmp_error(packet->ip_version, packet->icmp_type);
		service = packet->icmp_type;
	} else if (readable && !is_bare_syn(packet)) {
		find_service(policy, &server, packet->protocol, service, &packet->destination,
			     &listed);
		/* The peer's SYN crossed one that the server had sent before. It goes on to ask. The
		 * port stays the destination's, for the server's own is any.
		 */
		if (!answers && !listed && is_acceptance(packet) &&
		    sent_opening(packet, policy, now_ns))
			decision->flags |= DROP_QUIET;
		answers |= is_reset(packet) || is_group_report(packet);
	}
	drop(decision, REASON_QUARANTINED, 0);
	if (answers || listed) {
		decision->flags |= DROP_OWN_PORT | DROP_QUIET;
		decision->port = service;
	}
	return 0;
}

/* Finds the need that permits a packet. The decision stays open if none does. */
static __always_inline void find_permission(struct verdict_context *context,
					    struct decision *decision)
{
	const struct packet *packet = context->packet;
	const struct server *server = context->server;
	bool tcp = packet->protocol == IPPROTO_TCP;
	bool opening = !tcp || is_bare_syn(packet);
	const struct need *need = NULL;
	/* needs with a `sport` make the verdict depend on the source port */
	bool any_sport = !(server->flags & SERVER_SPORTS);
	__u32 rule = 0, other, by_sport, edit = 0;

	if (!is_foreign_icmp(packet)) {
		need = find_need(context->policy, server->profile, server->flags & SERVER_RANGES,
				 packet->protocol, decision->port);
		if (has_edits(context->policy))
			edit = find_edit(context->policy->edits, server->id,
					 join_flow(EDIT_OUT, packet->protocol, decision->port),
					 &packet->destination, context->now_ns);
	}
	context->edited = edit;
	if (need)
		rule = match_peer(context->policy, &need->outbound, &packet->destination);
	/* a need with a `sport` may have no limit, or room where this one has none */
	if (!any_sport && (!rule || rule & RULE_LIMITED)) {
		by_sport = match_sport(context->policy, &context->key, server->profile);
		if (is_permitted(by_sport))
			rule = by_sport;
	}
	other = rule;
	if (need && context->policy->flags & SETTINGS_NAMES) {
		__u64 asked = (__u64)server->id << 32 | need->outbound.set;
		__u64 found;

		if (!opening)
			asked |= OF_CONNECTION;
		found = find_by_name(context->policy, &context->key, asked, rule, context->now_ns);
		rule = found;
		decision->effects = found >> 32;
	}
	/* an edit has no limit, but goes behind what the policy has without one */
	if (edit & EDIT_ALLOWS && (!rule || rule & RULE_LIMITED)) {
		rule = edit_rule(edit);
		decision->effects = 0;
	}

	/* The peer opened this connection, so the server's `out` need does not cover it. It may have
	 * done so by a packet whose ports can't be read. But where the server sent a SYN of its own,
	 * the peer's SYN has only crossed it.
	 */
	if (rule && tcp && is_syn_ack(packet) && context->policy->flags & SETTINGS_STRICT) {
		int own = find_own_opening(&context->key, server->id, context->now_ns);

		if (own != OPENING_FOUND && (was_opened_unlisted(&context->key, context->now_ns) ||
					     find_heard(server->id, &packet->destination, HEARD_ANY,
							HEARD_ANY, context->now_ns) &
						     HEARD_FOUND)) {
			rule = 0;
			/* for drop_stray_segment(): it may be that the SYN was forgotten */
			if (own == OPENING_LOST)
				decision->flags |= DROP_PRESUMED;
		}
	}
	if (rule && edit & EDIT_DENIES) {
		drop(decision, REASON_DENIED, 0);
		decision->rule = edit_rule(edit);
		return;
	}
	if (rule) {
		pass(decision, opening ? REASON_NEED : REASON_OWN_CONNECTION, rule,
		     decision->effects | (is_connection_request(packet) ? EFFECT_NOTE_OPENING : 0) |
			     (opening ? EFFECT_COUNT_USE : EFFECT_SEE_USE));
		if (!opening)
			return;
		if (rule & RULE_LIMITED) {
			if (!has_token(context->policy, context->now_ns, other, decision))
				drop(decision, REASON_RATE, 0);
		} else if (any_sport && need && !need->outbound.set && !edit) {
			decision->scope = SCOPE_PORT;
		}
		return;
	}
	/* decide_stray() names the reason */
	if (is_icmp(packet) && is_icmp_error(packet->ip_version, packet->icmp_type)) {
		rule = find_quoted_flow(context);
		if (rule)
			pass(decision, REASON_FLOW_ERROR, rule, 0);
	}
}

/* Steps 10 to 12: a packet that its server sent, and that is no answer in a flow. Returns enum step. A global
 * function, as drop_stray(). `packed`: its server.
 */
__noinline int decide_flow(const struct packet *packet, const struct policy *policy, __u64 now_ns,
			   __u32 packed, struct decision *decision)
{
	struct verdict_context context = {};
	struct server server = {};

	if (!packet || !policy || !decision)
		return STEP_NONE;
	context.packet = packet;
	context.policy = policy;
	context.now_ns = now_ns;
	unpack_server(&server, packed);
	server.id = decision->server;
	context.server = &server;
	fill_reply_key(&context.key, packet);
	find_permission(&context, decision);
	if (packet->fragment_position == FRAGMENT_FIRST && decision->verdict == VERDICT_PASS)
		decision->effects |= EFFECT_REMEMBER_FRAGMENT;
	if (decision->verdict)
		return STEP_NONE;
	return context.edited ? STEP_STRAY | STEP_EDITED : STEP_STRAY;
}

/* A link-local source, with the MAC of a server, asks a service of the router (`link_services`).
 * False: it does not. The unspecified address is none, for nobody could answer it.
 */
static __always_inline bool pass_link_service(const struct policy *policy,
					      const struct packet *packet, __u64 now_ns,
					      struct decision *decision)
{
	const struct need *need;
	__u32 rule, server;

	if (!(policy->flags & SETTINGS_LINK_SERVICES) || packet->ip_version != 6 ||
	    !packet->source.word_be[0] || packet->fragment_position != FRAGMENT_NONE ||
	    !is_link_scope(packet) || is_foreign_icmp(packet))
		return false;
	need = find_need(policy, 0, policy->flags & SETTINGS_RANGES, packet->protocol,
			 decision->port);
	rule = need ? match_peer(policy, &need->outbound, &packet->destination) : 0;
	server = rule ? find_link_sender(policy, packet) : 0;
	if (server <= MAC_OF_ROUTER)
		return false;
	decision->server = server - 1;
	if (is_sender_quarantined(decision->server, packet, now_ns) ||
	    is_machine_quarantined(policy, packet, now_ns)) {
		drop(decision, REASON_QUARANTINED, 0);
		/* an order about one server holds in mode observe too */
		decision->observed = 0;
	} else {
		pass(decision, REASON_NEED, rule, EFFECT_COUNT_USE);
	}
	return true;
}

/* Step 5. A link-local source belongs to no server. A `quiet` need that all servers have holds for
 * it too, for example for mDNS over IPv6. A global function, as drop_stray().
 */
__noinline int decide_unknown_source(const struct packet *packet, const struct policy *policy,
				     __u64 now_ns, bool router, struct decision *decision)
{
	const struct need *need;

	if (!packet || !policy || !decision)
		return 0;

	if (is_link_local(packet) && pass_link_service(policy, packet, now_ns, decision))
		return 0;
	/* an address stays cut off when its server goes from the policy */
	if (policy->flags & SETTINGS_UNKNOWN_ALLOW && !is_sender_quarantined(0, packet, now_ns) &&
	    !is_machine_quarantined(policy, packet, now_ns)) {
		pass(decision, REASON_UNKNOWN_ALLOWED, 0, 0);
		return 0;
	}
	drop(decision, REASON_UNKNOWN_SOURCE,
	     router || policy->flags & SETTINGS_UNKNOWN_QUIET ? DROP_QUIET : 0);
	/* A router tells the link of the addresses that it shares, asks for members of groups, and joins
	 * groups by devices that have no address yet. Advertisements from an address of no router are a
	 * false one's.
	 */
	if (policy->flags & SETTINGS_ROUTERS && is_for_link(packet) && !is_vrrp(packet) &&
	    find_mac(policy, 0, read_mac(packet->source_mac)) == MAC_OF_ROUTER)
		decision->flags |= DROP_QUIET;
	if (!is_link_local(packet) || packet->fragment_position == FRAGMENT_LATER ||
	    is_foreign_icmp(packet))
		return 0;
	need = find_need(policy, 0, policy->flags & SETTINGS_RANGES, packet->protocol,
			 decision->port);
	if (need && match_peer(policy, &need->quiet, &packet->destination))
		decision->flags |= DROP_QUIET;
	return 0;
}

static __always_inline int decide_in_order(struct xdp_md *ctx, struct verdict_context *context,
					   struct decision *decision)
{
	const struct packet *packet = context->packet;
	__u32 reply, first, cut_off;
	bool denied;
	__u8 flags;

	if (packet->malformed) {
		drop(decision, REASON_MALFORMED, 0);
		return STEP_NONE;
	}
	if (!packet->ip_version) {
		if (is_link_layer(packet->ethertype))
			pass(decision, REASON_LINK_LAYER, 0,
			     packet->ethertype == ETH_P_ARP ? EFFECT_LEARN_MAC : 0);
		else
			drop(decision, REASON_ETHERTYPE,
			     is_quiet_ethertype(context->policy, packet->ethertype) ? DROP_QUIET :
										      0);
		return STEP_NONE;
	}
	if (packet->source_routed) {
		drop(decision, REASON_SOURCE_ROUTE, 0);
		return STEP_NONE;
	}
	context->router =
		context->policy->flags & SETTINGS_ROUTERS && find_router(context->policy, packet);
	if (is_rogue_router(packet)) {
		drop(decision, REASON_ROGUE_ROUTER, context->router ? DROP_QUIET : 0);
		return STEP_NONE;
	}
	if (context->router && is_vrrp_advertisement(packet)) {
		pass(decision, REASON_ROUTER, 0, 0);
		return STEP_NONE;
	}
	if (is_neighbour_discovery(ctx, context)) {
		pass(decision, REASON_NEIGHBOUR, 0, EFFECT_LEARN_MAC);
		return STEP_NONE;
	}
	if (is_dhcp(context)) {
		pass(decision, REASON_DHCP, 0, 0);
		return STEP_NONE;
	}
	if (!context->server) {
		return context->router ? STEP_ROUTER : STEP_UNKNOWN_SOURCE;
	}
	if (is_spoofed(context->policy, context->server, packet)) {
		/* in mode observe a quarantine of the address's owner changes the verdict */
		if (!(context->policy->flags & SETTINGS_OBSERVE))
			decision->scope = SCOPE_PORT;
		drop(decision, REASON_SPOOFED, 0);
		return STEP_NONE;
	}

	fill_reply_key(&context->key, packet);
	reply = find_reply(context, decision);
	denied = reply && decision->verdict == VERDICT_DROP;
	first = find_first_fragment(packet, context->policy, context->now_ns);
	/* Expected of a datagram that was under way during a policy swap, so no alarm. A fragment that
	 * overtakes its first one is expected too, but so may one without a first look.
	 */
	flags = first == FIRST_OUTDATED       ? DROP_QUIET :
		first || packet->bad_fragment ? 0 :
						DROP_PRESUMED;
	if (first == FIRST_OUTDATED || first == FIRST_CONTRADICTED)
		first = 0;
	cut_off = find_sender_quarantine(context->policy, context->server, packet, context->now_ns);
	if (cut_off && (denied || !((reply | first) & RULE_MANAGEMENT))) {
		decision->server = cut_off;
		/* the rest of an answer is as quiet as its beginning */
		if (!packet->bad_fragment &&
		    drop_like_first(packet, context->now_ns, REASON_QUARANTINED, decision))
			return STEP_NONE;
		return reply ? STEP_QUARANTINED_REPLY : STEP_QUARANTINED;
	}
	if (packet->bad_fragment || (packet->fragment_position == FRAGMENT_LATER && !first)) {
		if (packet->bad_fragment || flags & DROP_QUIET ||
		    !drop_like_first(packet, context->now_ns, REASON_NONE, decision))
			drop(decision, REASON_FRAGMENT, flags);
		return STEP_NONE;
	}
	if (first) {
		pass(decision, REASON_LATER_FRAGMENT, first, EFFECT_COUNT_FRAGMENT);
		return STEP_NONE;
	}
	if (!reply)
		return STEP_FLOW;
	if (packet->fragment_position == FRAGMENT_FIRST && decision->verdict == VERDICT_PASS)
		decision->effects |= EFFECT_REMEMBER_FRAGMENT;
	return STEP_NONE;
}

/* Is a drop only counted, and the packet passed? A quarantine drops in mode observe too, for any
 * reason, and so does one of the machine that borrows an address, or has none. A spoofed frame, malformed
 * or not, never gets the mode of the address's owner. A global function: the verifier proves it once.
 */
__noinline int is_observed(const struct packet *packet, const struct policy *policy, __u64 now_ns)
{
	const struct server *server = NULL;

	if (!packet || !policy)
		return 0;
	if (packet->addressed)
		server = find_server(policy, &packet->source);
	if (packet->addressed && is_sender_quarantined(server ? server->id : 0, packet, now_ns))
		return 0;
	if (server && !is_spoofed(policy, server, packet)) {
		if (!(server->flags & SERVER_OBSERVE))
			return 0;
		return !find_sender_quarantine(policy, server, packet, now_ns);
	}
	return policy->flags & SETTINGS_OBSERVE && !is_machine_quarantined(policy, packet, now_ns);
}

/* Steps 1 to 9. Returns enum step, and what unpack_server() reads. A global function: the verifier
 * proves it once.
 */
__noinline int decide_steps(struct xdp_md *ctx, const struct packet *packet,
			    const struct policy *policy, __u64 now_ns, struct decision *decision)
{
	struct verdict_context context = {};
	int step;

	if (!packet || !policy || !decision)
		return STEP_NONE;
	context.packet = packet;
	context.policy = policy;
	context.now_ns = now_ns;
	if (packet->addressed)
		context.server = find_server(context.policy, &packet->source);
	if (context.server)
		decision->server = context.server->id;
	step = decide_in_order(ctx, &context, decision);
	if (context.server)
		step |= pack_server(context.server);
	return step;
}

/* Is the drop a server's own opening that raises no alarm, or that passes all the same? An outsider
 * can let his SYN cross that one too. Any other opening has raised its alarm.
 */
static __always_inline bool notes_dropped_opening(const struct packet *packet,
						  const struct decision *decision)
{
	if (!is_connection_request(packet))
		return false;
	if (decision->reason == REASON_RATE || decision->reason == REASON_DENIED)
		return true;
	return (decision->reason == REASON_NEW_FLOW || decision->reason == REASON_DESTINATION ||
		decision->reason == REASON_PROTOCOL || decision->reason == REASON_QUESTION) &&
	       (decision->flags & DROP_QUIET || decision->observed);
}

/* Whatever holds for all drops. A global function: the verifier proves it once. */
__noinline int complete_drop(const struct packet *packet, const struct policy *policy,
			     struct decision *decision)
{
	if (!packet || !policy || !decision)
		return 0;
	decision->effects &= EFFECTS_OF_QUESTIONS;
	if (is_elsewhere(policy, packet)) {
		drop(decision, REASON_ELSEWHERE, 0);
		/* one row a server, for such frames go to any port */
		decision->port = 0;
		decision->flags = 0;
		decision->scope = SCOPE_PACKET;
	} else if (decision->server && packet->fragment_position == FRAGMENT_FIRST) {
		/* later ones to this machine are not elsewhere, so that reason is none of theirs */
		decision->effects |= EFFECT_REFUSE_FRAGMENT;
	}
	if (notes_dropped_opening(packet, decision))
		decision->effects |= EFFECT_NOTE_OPENING;
	if (decision->observed) {
		decision->verdict = VERDICT_WOULD_DROP;
		decision->flags |= DROP_WOULD;
	}
	return 0;
}

/* `assume`: enum assumption. */
static __always_inline void decide(struct xdp_md *ctx, const struct packet *packet, __u64 now_ns,
				   __u32 assume, struct decision *decision)
{
	struct policy policy = live_policy(now_ns);
	__u32 found, step, asks = 0;

	policy.assume = assume;
	decision->generation = policy.generation;
	decision->edits = policy.edits;
	decision->protocol = packet->protocol;
	if (!packet->ip_version)
		decision->port = packet->ethertype;
	else if (is_icmp(packet))
		decision->port = packet->icmp_type;
	else
		decision->port = packet->destination_port;

	found = decide_steps(ctx, packet, &policy, now_ns, decision);
	if ((found & STEP_MASK) == STEP_FLOW)
		found = (found & ~STEP_MASK) |
			decide_flow(packet, &policy, now_ns, found, decision);
	step = found & STEP_MASK;
	if (decision->verdict != VERDICT_PASS || may_ask(packet, found))
		decision->observed = is_observed(packet, &policy, now_ns);
	/* In quarantine a reply has been found, and does not pass. */
	if (step == STEP_NONE && may_ask(packet, found) && decision->verdict == VERDICT_PASS) {
		step = judge_question(ctx, packet, &policy, decision);
		asks = step == STEP_STRAY;
	}
	if (!asks && load.asks_conntrack && may_be_handed_over(&policy, packet, decision, step)) {
		if (step == STEP_QUARANTINED)
			policy.assume |= ASSUME_CUT_OFF;
		if (find_handover(ctx, packet, &policy, now_ns, decision))
			step = STEP_NONE;
	}
	if (step == STEP_STRAY)
		decide_stray(packet, &policy, now_ns, found, decision);
	else if (step == STEP_QUARANTINED || step == STEP_QUARANTINED_REPLY)
		drop_quarantined(packet, &policy, now_ns, found, decision);
	else if (step != STEP_NONE)
		decide_unknown_source(packet, &policy, now_ns, step == STEP_ROUTER, decision);
	if (found & STEP_EDITED)
		decision->scope = SCOPE_PACKET;
	if (asks)
		name_question(decision);
	if (decision->verdict == VERDICT_DROP)
		complete_drop(packet, &policy, decision);
}

#endif
