/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Handover: what the kernel's own table of flows knows of one that ours do not have. conntrackd carries that
 * table from one router of a pair to the other, and an attach in mid-traffic finds it filled.
 *
 * It is asked last, for packets that would be dropped, and before `pickup` takes one over. So it costs no
 * packet of a known flow anything. What it says counts for a live service alone, and once: then the flow is ours.
 */
#ifndef PORTCULLIS_HANDOVER_H
#define PORTCULLIS_HANDOVER_H

#include "edits.h"
#include "flow.h"
#include "name_grant.h"
#include "private.h"
#include "verdict.h"
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

enum {
	/* Questions in vain of one CPU in a second. Each takes up to 300 ns. */
	IN_VAIN_MAX = 10000,
	CONNTRACK_OF_PEER = 1, /* IP_CT_DIR_REPLY: who sends this packet did not open the flow */
	CONNTRACK_THIS_NETNS = -1, /* BPF_F_CURRENT_NETNS: of the NIC */
};

/* Parts of the kernel's own types. They need a definition each: libbpf takes a function whose types are only
 * declared for one that the kernel lacks.
 */
struct ip_ct_tcp {
	__u8 state;
} __attribute__((preserve_access_index));
union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));
struct nf_conn {
	unsigned long status;
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/* 12 bytes, for Linux 6.1 knows no more */
struct bpf_ct_opts___portcullis {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *ctx, struct bpf_sock_tuple *tuple,
					 __u32 tuple_size, struct bpf_ct_opts___portcullis *options,
					 __u32 options_size) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *entry) __ksym __weak;

/* Has conntrack this flow: opened by the peer, confirmed, answered, not about to go? Of the default zone and
 * the NIC's network namespace. A global function, for its own stack.
 */
__noinline int ask_conntrack(struct xdp_md *ctx, const struct flow_key *key)
{
	unsigned long wanted = IPS_CONFIRMED | IPS_SEEN_REPLY, status;
	struct bpf_ct_opts___portcullis options = { .netns_id = CONNTRACK_THIS_NETNS };
	struct bpf_sock_tuple tuple = {};
	struct nf_conn *entry;
	__u8 state;

	/* the compiler keeps the test, so without conntrack the verifier sees nothing of what follows */
	if (!key || !load.asks_conntrack)
		return 0;
	options.l4proto = key->protocol;
	if (is_mapped_ipv4(&key->server)) {
		tuple.ipv4.saddr = key->server.word_be[3];
		tuple.ipv4.daddr = key->peer.word_be[3];
		tuple.ipv4.sport = key->server_port_be;
		tuple.ipv4.dport = key->peer_port_be;
		entry = bpf_xdp_ct_lookup(ctx, &tuple, sizeof(tuple.ipv4), &options,
					  sizeof(options));
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, &key->server, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &key->peer, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = key->server_port_be;
		tuple.ipv6.dport = key->peer_port_be;
		entry = bpf_xdp_ct_lookup(ctx, &tuple, sizeof(tuple.ipv6), &options,
					  sizeof(options));
	}
	if (!entry)
		return 0;
	status = entry->status;
	state = entry->proto.tcp.state;
	bpf_ct_release(entry);
	if (key->protocol == IPPROTO_TCP) {
		wanted |= IPS_ASSURED;
		if (state != TCP_CONNTRACK_ESTABLISHED)
			return 0;
	}
	return options.dir == CONNTRACK_OF_PEER && (status & (wanted | IPS_DYING)) == wanted;
}

/* Is conntrack worth a question? Of a segment that is no opening and no reset, or of a datagram, that would
 * be dropped or taken over by `pickup`.
 */
static __always_inline bool may_be_handed_over(const struct policy *policy,
					       const struct packet *packet,
					       const struct decision *decision, __u32 step)
{
	if (!(policy->flags & SETTINGS_HANDOVER))
		return false;
	if (step != STEP_STRAY && step != STEP_QUARANTINED && decision->reason != REASON_PICKUP)
		return false;
	if (packet->fragment_position == FRAGMENT_LATER || packet->bad_fragment)
		return false;
	return packet->protocol == IPPROTO_UDP ||
	       (packet->protocol == IPPROTO_TCP && !(packet->tcp_flags & (TCP_SYN | TCP_RST)));
}

/* Do our own tables know the flow? They are senior, also where they know that it is over. */
static __always_inline bool is_known_flow(const struct flow_key *key, __u64 now_ns)
{
	const struct half_open *half;
	const struct flow *flow;

	if (key->protocol == IPPROTO_TCP) {
		half = bpf_map_lookup_elem(&half_open, key);
		if (half && is_within(half->opened_ns, now_ns, TIMEOUT_HALF_OPEN_S))
			return true;
		flow = bpf_map_lookup_elem(&established, key);
	} else {
		flow = bpf_map_lookup_elem(&datagrams, key);
	}
	if (!flow)
		return false;
	return is_alive(flow, key->protocol, now_ns) ||
	       is_known_over(flow, key->protocol, now_ns, read_state(STATE_TAKEOVER_NS));
}

/* Passes a packet of a flow that conntrack has, and returns whether it did. The decision is otherwise what it
 * was, but for the effects that count the question. A global function: the verifier proves it once.
 */
__noinline int find_handover(struct xdp_md *ctx, const struct packet *packet,
			     const struct policy *policy, __u64 now_ns, struct decision *decision)
{
	const struct server *server;
	__u32 rule, edit = 0;
	struct flow_key key;
	struct cpu *cpu;
	bool listed;

	if (!packet || !policy || !decision)
		return 0;
	server = find_server(policy, &packet->source);
	if (!server)
		return 0;
	rule = find_service(policy, server, packet->protocol, packet->source_port,
			    &packet->destination, &listed);
	if (has_edits(policy)) {
		edit = find_edit(policy->edits, server->id,
				 join_flow(EDIT_IN, packet->protocol, packet->source_port),
				 &packet->destination, now_ns);
		rule = permit_by_edit(rule, edit);
	}
	if (!rule || (policy->assume & ASSUME_CUT_OFF && !(rule & RULE_MANAGEMENT)))
		return 0;
	fill_reply_key(&key, packet);
	/* Conntrack's word is no proof that the peer opened it: with net.netfilter.nf_conntrack_tcp_loose it
	 * believes whoever is heard first.
	 */
	if (may_open_itself(policy, server, &key, now_ns, HOOK_XDP) || is_known_flow(&key, now_ns))
		return 0;
	cpu = find_cpu();
	if (!cpu)
		return 0;
	if (cpu->asked_in_vain >= IN_VAIN_MAX && cpu->asked_s == (__u32)(now_ns / SECOND_NS)) {
		decision->effects |= EFFECT_COUNT_REFUSED;
		return 0;
	}
	if (!ask_conntrack(ctx, &key)) {
		decision->effects |= EFFECT_COUNT_ASKED;
		return 0;
	}
	pass(decision, REASON_HANDOVER, rule,
	     EFFECT_OPEN_FLOW | EFFECT_SEE_USE | EFFECT_COUNT_ASKED);
	if (packet->fragment_position == FRAGMENT_FIRST)
		decision->effects |= EFFECT_REMEMBER_FRAGMENT;
	decision->server = server->id;
	decision->flags = 0;
	decision->observed = 0;
	return 1;
}

#endif
