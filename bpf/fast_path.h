/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Two kinds of packets dominate on a busy day, and take this path: answers in flows that peers
 * opened, and openings to the same ports again and again, by a server or by a worm on it. Openings are
 * SYNs of TCP, and datagrams of UDP from ports that are no service. The path does without parse_frame()
 * and decide(), and comes to the same verdicts. All other packets take the full path.
 * docs/internals.md says how much this saves.
 */
#ifndef PORTCULLIS_FAST_PATH_H
#define PORTCULLIS_FAST_PATH_H

#include "account.h"
#include "elsewhere.h"
#include "link_scope.h"

enum {
	FULL_PATH = -1, /* the full path decides, for the fast path can't */
};

/* A TCP segment or UDP datagram without VLAN tags, IP options, extension headers or fragmentation.
 * All its headers lie in the linear part.
 */
struct plain_frame {
	struct address source;
	struct address destination;
	__u64 source_mac; /* see read_mac() */
	__u64 destination_mac;
	__be16 source_port_be;
	__be16 destination_port_be;
	__u8 protocol;
	__u8 tcp_flags;
};

struct fast_path {
	struct plain_frame frame;
	struct flow_key key;
	struct policy policy;
};

/* Reads the transport header at `from`. `left`: bytes of the IP packet from there on. */
static __always_inline bool read_plain_transport(void *from, void *end, __u32 left,
						 struct plain_frame *frame)
{
	if (frame->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = from;
		__u32 header;

		if (from + sizeof(*tcp) > end)
			return false;
		header = tcp->doff * 4;
		frame->tcp_flags = ((__u8 *)tcp)[13];
		if (header < sizeof(*tcp) || header > left || are_bogus_tcp_flags(frame->tcp_flags))
			return false;
		frame->source_port_be = tcp->source;
		frame->destination_port_be = tcp->dest;
		return true;
	}
	if (frame->protocol == IPPROTO_UDP) {
		struct udphdr *udp = from;
		__u32 length;

		if (from + sizeof(*udp) > end)
			return false;
		length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp) || length > left)
			return false;
		frame->tcp_flags = 0;
		frame->source_port_be = udp->source;
		frame->destination_port_be = udp->dest;
		return true;
	}
	return false;
}

/* Reads both MACs, of a frame that has at least 14 bytes. A load of eight bytes each, for one of six does not
 * exist, and clang would make six of it.
 */
static __always_inline void read_macs(const struct ethhdr *eth, struct plain_frame *frame)
{
	const __u8 *bytes = (const __u8 *)eth;

	frame->destination_mac = bpf_be64_to_cpu(*(const __be64 *)bytes) >> 16;
	frame->source_mac = bpf_be64_to_cpu(*(const __be64 *)(bytes + 4)) << 16 >> 16;
}

/* False: the frame is not plain. */
static __always_inline bool read_plain_frame(struct xdp_md *ctx, struct plain_frame *frame)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 linear = end - data;
	struct ethhdr *eth = data;
	__be16 ethertype;
	__u32 bytes;

	if (data + sizeof(*eth) + sizeof(struct iphdr) > end)
		return false;
	read_macs(eth, frame);
	ethertype =
		*(__be16 *)(data + 2 * ETH_ALEN); /* `eth` is packed, and would be read by bytes */

	if (ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);

		bytes = bpf_ntohs(ip->tot_len);
		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) ||
		    bytes < sizeof(*ip) || sizeof(*eth) + bytes > linear)
			return false;
		map_ipv4(&frame->source, ip->saddr);
		map_ipv4(&frame->destination, ip->daddr);
		frame->protocol = ip->protocol;
		return read_plain_transport(ip + 1, end, bytes - sizeof(*ip), frame);
	}
	if (ethertype == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end)
			return false;
		bytes = bpf_ntohs(ip->payload_len);
		if (ip->version != 6 || sizeof(*eth) + sizeof(*ip) + bytes > linear)
			return false;
		__builtin_memcpy(&frame->source, &ip->saddr, sizeof(frame->source));
		__builtin_memcpy(&frame->destination, &ip->daddr, sizeof(frame->destination));
		if (is_mapped_ipv4(&frame->source) || is_mapped_ipv4(&frame->destination))
			return false;
		frame->protocol = ip->nexthdr;
		return read_plain_transport(ip + 1, end, bytes, frame);
	}
	return false;
}

/* Counts a drop in its row; `index`: see locate_counts(). False: a sample is due, which only account()
 * sends. `hot`: of a kind without a row, else NULL.
 */
static __always_inline bool count_cached_drop(struct xdp_md *ctx, const struct plain_frame *frame,
					      struct cpu *cpu, __u32 index,
					      union cached_result result, __u64 now_ns,
					      const struct hot_kind *hot)
{
	struct row_counts *counts = bpf_map_lookup_elem(&ledger_counts, &index);
	__u32 reason = result.reason, bytes;
	struct counter *counter = bpf_map_lookup_elem(&counters, &reason);

	/* of kinds without a row each has its turn */
	if (!counter || !counts || (now_ns >= counts->due_ns && !(hot && was_sampled(hot))))
		return false;
	/* a frame to another host may have to be counted as `elsewhere` */
	if (!is_own_mac(frame->destination_mac) && read_state(STATE_OWN_MAC))
		return false;
	if (hot)
		add_statistic(STATISTIC_LEDGER_FULL, 1);
	bytes = frame_length(ctx, HOOK_XDP);
	/* in this order, which keeps less on the stack */
	add_to_counter(counter, bytes);
	count_in_row(cpu, index, counts, &frame->source, &frame->destination, bytes, now_ns);
	return true;
}

/* Counts a drop of a kind that has no row. False: the full path has to look, for the kind may be hot, or a
 * sample of it may be due.
 */
static __always_inline bool count_in_rest(struct xdp_md *ctx, const struct plain_frame *frame,
					  const struct ledger_key *kind, __u32 index,
					  union cached_result result, __u64 now_ns)
{
	__u32 number = find_row_number(index), destinations;
	const struct ledger_row *row = bpf_map_lookup_elem(&ledger_rows, &number);
	struct hot_kind *hot = find_hot_kind(kind, now_ns);
	struct cpu *cpu = find_cpu();

	if (!row || !hot || !cpu)
		return false;
	destinations = add_destination(cpu, hot, &frame->destination);
	if (destinations >= HOT_DESTINATIONS && destinations >= row->hot_destinations)
		return false;
	return count_cached_drop(ctx, frame, cpu, index, result, now_ns, hot);
}

static __always_inline void fill_plain_key(struct flow_key *key, const struct plain_frame *frame)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->server = frame->source;
	key->peer = frame->destination;
	key->server_port_be = frame->source_port_be;
	key->peer_port_be = frame->destination_port_be;
	key->protocol = frame->protocol;
}

/* Has a peer sent a datagram to this port before, although it is no service? Then the drop has another reason.
 * Not inlined, for its own stack.
 */
static __noinline int answers_unlisted(struct fast_path *path, __u64 now_ns)
{
	const struct plain_frame *frame = &path->frame;

	if (!may_be_unlisted(&frame->source, frame->source_port_be, now_ns))
		return 0;
	fill_plain_key(&path->key, frame);
	return was_opened_unlisted(&path->key, now_ns);
}

/* Drops an opening to a port that no need of its server has, if the server's quota of ledger rows
 * is used up and the kind has no row. Returns XDP_DROP, or FULL_PATH, or 0: nothing is known. Not
 * inlined, for its own stack: the filter's is full.
 */
static __noinline int drop_over_quota(struct xdp_md *ctx, struct fast_path *path, __u32 epoch,
				      __u64 now_ns)
{
	const struct plain_frame *frame = &path->frame;
	const struct policy *policy = &path->policy;
	struct ledger_key kind = {
		.port = bpf_ntohs(frame->destination_port_be),
		.protocol = frame->protocol,
		.reason = REASON_NEW_FLOW,
	};
	union cached_result result = { .reason = REASON_NEW_FLOW, .overflow = 1 };
	const struct cached_quota *entry = locate_cached_quota(&frame->source);
	__u32 index, profile, ranges;

	if (!entry)
		return 0;
	index = *(volatile __u32 *)&entry->index;
	barrier();
	kind.server = entry->server;
	profile = entry->profile;
	ranges = entry->ranges;
	barrier();
	if (entry->epoch != (epoch & ~1U) || !same_address(&entry->source, &frame->source))
		return 0;
	barrier();
	if (*(volatile __u32 *)&entry->index != index)
		return 0;

	if (may_have_row(&kind) || find_need(policy, profile, ranges, kind.protocol, kind.port))
		return 0;
	/* The entry holds for any MAC, and a quarantine perhaps for this one: in the tables of quarantines,
	 * or by the policy.
	 */
	if (policy->flags & SETTINGS_BOUND && read_state(STATE_QUARANTINES))
		return 0;
	if (is_quarantined(kind.server, &frame->source, frame->source_mac, now_ns))
		return 0;
	if (has_edits(policy) &&
	    find_edit(policy->edits, kind.server, join_flow(EDIT_OUT, kind.protocol, kind.port),
		      &frame->destination, now_ns))
		return FULL_PATH;
	return count_in_rest(ctx, frame, &kind, index, result, now_ns) ? XDP_DROP : FULL_PATH;
}

/* As count_in_rest(), for a cached verdict. Not inlined, for its own stack. */
static __noinline bool count_known_rest(struct xdp_md *ctx, const struct plain_frame *frame,
					__u32 index, __u32 word, __u64 now_ns)
{
	union cached_result result = { .word = word };
	const struct ledger_row *row;
	struct ledger_key kind;
	__u32 number = find_row_number(index);

	row = bpf_map_lookup_elem(&ledger_rows, &number);
	if (!row)
		return false;
	kind = row->kind;
	kind.port = bpf_ntohs(frame->destination_port_be);
	kind.protocol = frame->protocol;
	return count_in_rest(ctx, frame, &kind, index, result, now_ns);
}

/* An opening passes by a cached verdict. Not inlined, for its own stack. */
static __noinline int note_known_pass(struct fast_path *path, __u32 server, __u32 use, __u64 now_ns)
{
	add_use(use, 1, now_ns);
	if (path->frame.protocol != IPPROTO_TCP)
		return 0;
	fill_plain_key(&path->key, &path->frame);
	add_own_opening(&path->key, server, now_ns);
	return 0;
}

/* As notes_dropped_opening(): an opening is dropped quietly by a cached verdict. `index`: of its counts. */
static __noinline int note_quiet_drop(struct fast_path *path, __u32 index, __u64 now_ns)
{
	__u32 number = find_row_number(index);
	const struct ledger_row *row = bpf_map_lookup_elem(&ledger_rows, &number);

	if (!row)
		return 0;
	fill_plain_key(&path->key, &path->frame);
	note_own_opening(&path->key, row->kind.server, now_ns);
	return 0;
}

/* Is a datagram from this port surely no answer in a flow that a peer opened to a service? */
static __always_inline bool is_unserved(const struct policy *policy, __be16 port_be)
{
	__u16 port = bpf_ntohs(port_be);
	__u32 index = policy->slot * PORT_WORDS + (port >> 6);
	const __u64 *word = bpf_map_lookup_elem(&datagram_ports, &index);

	if (!word || !(*word >> (port & 63) & 1))
		return false;
	if (!has_edits(policy))
		return true;
	index = (SLOTS + (policy->edits & EDITS_SLOT_MASK) - 1) * PORT_WORDS + (port >> 6);
	word = bpf_map_lookup_elem(&datagram_ports, &index);
	return word && *word >> (port & 63) & 1;
}

/* The cached verdict on an opening, as an XDP action, or FULL_PATH. `epoch`: see tag_epoch(). */
static __always_inline int lookup_cached(struct xdp_md *ctx, struct fast_path *path,
					 struct cpu *cpu, __u32 epoch, __u64 now_ns)
{
	const struct plain_frame *frame = &path->frame;
	__u16 port = bpf_ntohs(frame->destination_port_be);
	union cached_result result;
	bool counted;

	if (!probe_bucket(cpu, &frame->source, frame->source_mac, port, epoch, &result)) {
		/* goes first: of a server that calls every port, few openings are cached */
		int action = drop_over_quota(ctx, path, epoch, now_ns);

		if (action)
			return action;
		result.word = search_bucket(cpu, &frame->source, frame->source_mac, port, epoch);
		if (!result.word)
			return FULL_PATH;
	}

	if (result.reason < REASON_ETHERTYPE) {
		__u32 index = REASON_NEED;
		struct counter *counter = bpf_map_lookup_elem(&counters, &index);

		/* Looked up each time: a quarantine counts from its first write on, and the epoch
		 * changes with its last.
		 */
		if (!counter ||
		    is_quarantined(result.server, &frame->source, frame->source_mac, now_ns))
			return FULL_PATH;
		add_to_counter(counter, frame_length(ctx, HOOK_XDP));
		note_known_pass(path, result.server, result.use, now_ns);
		return XDP_PASS;
	}

	if (result.reason == REASON_QUARANTINED) {
		__u32 number = find_row_number(result.index);
		const struct ledger_row *row = bpf_map_lookup_elem(&ledger_rows, &number);

		/* the quarantine may be over */
		if (!row ||
		    !is_quarantined(row->kind.server, &frame->source, frame->source_mac, now_ns))
			return FULL_PATH;
	}
	counted = result.overflow ?
			  count_known_rest(ctx, frame, result.index, result.word, now_ns) :
			  count_cached_drop(ctx, frame, cpu, result.index, result, now_ns, NULL);
	if (!counted)
		return FULL_PATH;
	/* as notes_dropped_opening(): other drops that are cached are loud */
	if (!(epoch & 1) && result.quiet && result.reason == REASON_NEW_FLOW)
		note_quiet_drop(path, result.index, now_ns);
	return XDP_DROP;
}

/* What an answer writes once a second for its flow, or with the first of all. Not inlined, for its own stack. */
static __noinline int renew_reply(const struct fast_path *path, struct flow *flow,
				  bool answers_first, __u64 now_ns)
{
	if (path->key.protocol != IPPROTO_TCP && is_due(flow, now_ns))
		remember_request(&path->key, flow->server, now_ns);
	note_use(path->policy.generation, flow->rule, answers_first, now_ns);
	refresh_flow(flow, now_ns);
	return 0;
}

/* Passes an answer in a flow that the live policy has permitted before, and refreshes the flow as
 * touch_flow() does. False: the full path decides. `assume` then says whether the look-up of the
 * flow can be left out.
 */
static __always_inline bool pass_reply(struct xdp_md *ctx, struct fast_path *path,
				       const struct policy *policy, __u64 now_ns, __u32 *assume)
{
	const struct plain_frame *frame = &path->frame;
	struct flow_key *key = &path->key;
	bool tcp = frame->protocol == IPPROTO_TCP, answers_first;
	__u32 index = REASON_REPLY;
	struct counter *counter;
	struct flow *flow;

	fill_plain_key(key, frame);
	if (tcp)
		flow = bpf_map_lookup_elem(&established, key);
	else
		flow = bpf_map_lookup_elem(&datagrams, key);
	if (!flow) {
		*assume = ASSUME_NO_FLOW;
		return false;
	}
	if (!is_alive(flow, frame->protocol, now_ns) || flow->generation != policy->generation ||
	    !flow->server)
		return false;
	if (!(flow->rule & RULE_MANAGEMENT) &&
	    is_quarantined(flow->server, &key->server, frame->source_mac, now_ns))
		return false;
	if (has_edits(policy) &&
	    find_edit(policy->edits, flow->server,
		      join_flow(EDIT_IN, frame->protocol, bpf_ntohs(frame->source_port_be)),
		      &key->peer, now_ns) &
		    EDIT_DENIES)
		return false;
	counter = bpf_map_lookup_elem(&counters, &index);
	if (!counter)
		return false;
	add_to_counter(counter, frame_length(ctx, HOOK_XDP));
	answers_first = !tcp && add_flow_flags(flow, FLOW_ANSWERED);
	if (answers_first || is_due(flow, now_ns))
		renew_reply(path, flow, answers_first, now_ns);
	return true;
}

/* XDP_DROP or XDP_PASS, or FULL_PATH. `assume` is for decide(), `epoch` for
 * account().
 */
static __always_inline int try_fast_path(struct xdp_md *ctx, struct fast_path *path,
					 struct cpu *cpu, __u64 now_ns, __u32 *assume, __u32 *epoch)
{
	const struct plain_frame *frame = &path->frame;
	struct policy *policy = &path->policy;
	bool opens = false;

	*policy = live_policy(now_ns);
	if (!policy->generation)
		return FULL_PATH;
	if (frame->protocol == IPPROTO_TCP && frame->tcp_flags & TCP_SYN) {
		if (frame->tcp_flags & TCP_ACK)
			return FULL_PATH;
		opens = true;
	} else if (frame->protocol == IPPROTO_UDP) {
		/* a client's message passes as DHCP, also in a flow that its server has opened */
		if (policy->flags & SETTINGS_DHCP &&
		    (frame->destination_port_be == bpf_htons(PORT_DHCP4_SERVER) ||
		     frame->destination_port_be == bpf_htons(PORT_DHCP6_SERVER)))
			return FULL_PATH;
		opens = is_unserved(policy, frame->source_port_be) &&
			!answers_unlisted(path, now_ns);
		/* what looks like an answer may ask, see judge_question(), and a query has to be noted, see
		 * note_queries()
		 */
		if (frame->destination_port_be == bpf_htons(PORT_DNS) &&
		    policy->flags & (opens ? SETTINGS_NAMED | SETTINGS_NAMES : SETTINGS_NAMED))
			return FULL_PATH;
	}
	if (opens) {
		*epoch = read_epoch(cpu, policy);
		if (!*epoch)
			return FULL_PATH;
		*epoch = tag_epoch(*epoch, frame->protocol);
		return lookup_cached(ctx, path, cpu, *epoch, now_ns);
	}
	/* MACs and VLANs are compared on the full path alone, and ends of flows are rare */
	if (!(policy->flags & SETTINGS_STRICT) || policy->flags & SETTINGS_BOUND ||
	    frame->tcp_flags & (TCP_FIN | TCP_RST))
		return FULL_PATH;
	return pass_reply(ctx, path, policy, now_ns, assume) ? XDP_PASS : FULL_PATH;
}

#endif
