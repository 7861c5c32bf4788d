/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The short way through, for what a busy day is made of: a worm that opens
 * connections to the same ports again and again, and answers in flows that peers
 * have opened. Whatever is found here is what parse_frame() and decide() would
 * find, and everything else is left to them. docs/performance.md says what it is worth.
 */
#ifndef PORTCULLIS_SHORTCUT_H
#define PORTCULLIS_SHORTCUT_H

#include "account.h"

/* A TCP segment or UDP datagram without tags, options, extension headers or
 * fragments, all of its headers in the linear part.
 */
struct plain {
	struct address source;
	struct address destination;
	__be16 source_port_be;
	__be16 destination_port_be;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 source_mac[ETH_ALEN];
};

struct shortcut {
	struct plain plain;
	struct flow_key key;
};

/* The transport header at `from`, with `left` bytes of the IP packet from there on. */
static __always_inline bool read_plain_transport(void *from, void *end, __u32 left,
						 struct plain *plain)
{
	if (plain->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = from;
		__u32 header;

		if (from + sizeof(*tcp) > end)
			return false;
		header = tcp->doff * 4;
		plain->tcp_flags = ((__u8 *)tcp)[13];
		if (header < sizeof(*tcp) || header > left || are_bogus_tcp_flags(plain->tcp_flags))
			return false;
		plain->source_port_be = tcp->source;
		plain->destination_port_be = tcp->dest;
		return true;
	}
	if (plain->protocol == IPPROTO_UDP) {
		struct udphdr *udp = from;
		__u32 length;

		if (from + sizeof(*udp) > end)
			return false;
		length = bpf_ntohs(udp->len);
		if (length < sizeof(*udp) || length > left)
			return false;
		plain->tcp_flags = 0;
		plain->source_port_be = udp->source;
		plain->destination_port_be = udp->dest;
		return true;
	}
	return false;
}

static __always_inline bool read_plain(struct xdp_md *ctx, struct plain *plain)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 linear = end - data;
	struct ethhdr *eth = data;
	__u32 bytes;

	if (data + sizeof(*eth) + sizeof(struct iphdr) > end)
		return false;
	__builtin_memcpy(plain->source_mac, eth->h_source, ETH_ALEN);

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);

		bytes = bpf_ntohs(ip->tot_len);
		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) ||
		    bytes < sizeof(*ip) || sizeof(*eth) + bytes > linear)
			return false;
		map_ipv4(&plain->source, ip->saddr);
		map_ipv4(&plain->destination, ip->daddr);
		plain->protocol = ip->protocol;
		return read_plain_transport(ip + 1, end, bytes - sizeof(*ip), plain);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(*eth);

		if ((void *)(ip + 1) > end)
			return false;
		bytes = bpf_ntohs(ip->payload_len);
		if (ip->version != 6 || sizeof(*eth) + sizeof(*ip) + bytes > linear)
			return false;
		__builtin_memcpy(&plain->source, &ip->saddr, sizeof(plain->source));
		__builtin_memcpy(&plain->destination, &ip->daddr, sizeof(plain->destination));
		if (is_mapped_ipv4(&plain->source) || is_mapped_ipv4(&plain->destination))
			return false;
		plain->protocol = ip->nexthdr;
		return read_plain_transport(ip + 1, end, bytes, plain);
	}
	return false;
}

/* The verdict on an opening that was found before. False: not known, or its row
 * is due for a sample, which is decide()'s and account()'s to do.
 */
static __always_inline bool drop_again(struct xdp_md *ctx, const struct plain *plain,
				       const struct policy *policy, __u64 now_ns)
{
	__u16 port = bpf_ntohs(plain->destination_port_be);
	struct known_drop *known = place_known_drop(&plain->source, port);
	union found_drop found;
	struct counter *counter;
	struct ledger_row *row;
	__u32 index, bytes;

	if (!known)
		return false;
	/* Read before the key is compared and again behind that: should another
	 * packet on this CPU have interrupted us and taken the place, they differ.
	 */
	found.word = *(volatile __u64 *)&known->found.word;
	barrier();
	if (known->generation != policy->generation || known->port != port ||
	    !same_address(&known->source, &plain->source) ||
	    !same_mac(known->source_mac, plain->source_mac) ||
	    known->quarantine_changes != (__u32)read_state(STATE_QUARANTINE_CHANGES) ||
	    (known->until_ns && known->until_ns <= now_ns))
		return false;
	barrier();
	if (found.word != *(volatile __u64 *)&known->found.word)
		return false;

	row = bpf_map_lookup_elem(&ledger_rows, &found.row);
	index = found.reason;
	counter = bpf_map_lookup_elem(&counters, &index);
	if (!row || !counter)
		return false;
	if (!(found.flags & DROP_QUIET) && now_ns >= row->sampled_ns + SAMPLE_INTERVAL_NS)
		return false;
	if (row->rest)
		add_tally(TALLY_LEDGER_FULL, 1);
	bytes = frame_length(ctx, HOOK_XDP);
	add_to_row(row, &plain->source, &plain->destination, bytes, now_ns);
	add_to_counter(counter, bytes);
	return true;
}

/* Is it an answer in a flow that the live policy permits, as it stands in the
 * table? Then the flow has been touched, as touch_flow() would. `assume` learns
 * when there is none.
 */
static __always_inline bool pass_reply(struct xdp_md *ctx, struct shortcut *shortcut,
				       const struct policy *policy, __u64 now_ns, __u32 *assume)
{
	const struct plain *plain = &shortcut->plain;
	struct flow_key *key = &shortcut->key;
	bool tcp = plain->protocol == IPPROTO_TCP;
	__u32 index = REASON_REPLY;
	struct counter *counter;
	struct flow *flow;

	__builtin_memset(key, 0, sizeof(*key));
	key->server = plain->source;
	key->peer = plain->destination;
	key->server_port_be = plain->source_port_be;
	key->peer_port_be = plain->destination_port_be;
	key->protocol = plain->protocol;
	if (tcp)
		flow = bpf_map_lookup_elem(&established, key);
	else
		flow = bpf_map_lookup_elem(&datagrams, key);
	if (!flow) {
		*assume = ASSUME_NO_FLOW;
		return false;
	}
	if (!is_alive(flow, plain->protocol, now_ns) || flow->generation != policy->generation ||
	    !flow->server)
		return false;
	if (!(flow->rule & RULE_MANAGEMENT) && find_quarantine(flow->server, now_ns))
		return false;
	counter = bpf_map_lookup_elem(&counters, &index);
	if (!counter)
		return false;
	add_to_counter(counter, frame_length(ctx, HOOK_XDP));
	if (!tcp)
		add_flow_flags(flow, FLOW_ANSWERED);
	if (!tcp || !(flow->flags & FLOW_RST_PEER))
		refresh_flow(flow, now_ns);
	return true;
}

/* XDP_DROP or XDP_PASS, or -1: the long way. `assume` is for decide(). */
static __always_inline int take_shortcut(struct xdp_md *ctx, struct shortcut *shortcut,
					 __u64 now_ns, __u32 *assume)
{
	const struct plain *plain = &shortcut->plain;
	struct policy policy = live_policy();

	if (!policy.generation)
		return -1;
	if (plain->protocol == IPPROTO_TCP && plain->tcp_flags & TCP_SYN)
		return !(plain->tcp_flags & TCP_ACK) &&
				       drop_again(ctx, plain, &policy, now_ns) ?
			       XDP_DROP :
			       -1;
	/* what a server's MAC and VLAN are is the server's to say; ends of flows are rare */
	if (!(policy.flags & SETTINGS_STRICT) || policy.flags & SETTINGS_BOUND ||
	    plain->tcp_flags & (TCP_FIN | TCP_RST))
		return -1;
	return pass_reply(ctx, shortcut, &policy, now_ns, assume) ? XDP_PASS : -1;
}

#endif
