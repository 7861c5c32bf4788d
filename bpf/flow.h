/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows that peers open. The upper half reads, for the verdict. The lower half writes, for
 * accounting and for the tracker.
 */
#ifndef PORTCULLIS_FLOW_H
#define PORTCULLIS_FLOW_H

#include "edits.h"
#include "heard.h"
#include "own_openings.h"
#include "use.h"

/* As in nf_conntrack_proto_*.c (Linux 6.1), seconds. */
enum timeout {
	TIMEOUT_ESTABLISHED_S = 432000,
	TIMEOUT_CLOSING_S = 120, /* FIN_WAIT and TIME_WAIT */
	TIMEOUT_RESET_S = 10,
	TIMEOUT_HALF_OPEN_S = 60,
	TIMEOUT_DATAGRAM_S = 30,
	TIMEOUT_DATAGRAM_ANSWERED_S = 120,
	TIMEOUT_OTHER_S = 600,
	TIMEOUT_OVER_S = 600, /* for so long a TCP flow that is over is known as such */
	TIMEOUT_ICMP_S = 30,
	TIMEOUT_FRAGMENT_S = 30,      /* net.ipv4.ipfrag_time */
	TIMEOUT_FRAGMENT_IPV6_S = 60, /* net.ipv6.ip6frag_time */
};

enum {
	/* The time of a flow is not written again within this time. */
	TOUCH_NS = 1000000000,
};

static const __u64 SECOND_NS = 1000000000;

static __always_inline bool is_within(__u64 since_ns, __u64 now_ns, __u32 seconds)
{
	/* signed: the coarse clock of another CPU may be a tick ahead */
	return (__s64)(now_ns - since_ns) < (__s64)(seconds * SECOND_NS);
}

static __always_inline __u32 flow_timeout_s(const struct flow *flow, __u8 protocol)
{
	__u32 flags = flow->flags;

	switch (protocol) {
	case IPPROTO_TCP:
		/* a peer's reset may be forged, so only the server's counts */
		if (flags & FLOW_RST_SERVER)
			return TIMEOUT_RESET_S;
		/* the peer's FIN alone may be forged, and the server answers a real one */
		if (flags & FLOW_FIN_SERVER)
			return TIMEOUT_CLOSING_S;
		/* the server alone vouches for it until the peer is heard */
		if (flags & FLOW_PICKED_UP)
			return TIMEOUT_CLOSING_S;
		return TIMEOUT_ESTABLISHED_S;
	case IPPROTO_UDP:
		return flags & FLOW_ANSWERED ? TIMEOUT_DATAGRAM_ANSWERED_S : TIMEOUT_DATAGRAM_S;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return TIMEOUT_ICMP_S;
	default:
		return TIMEOUT_OTHER_S;
	}
}

static __always_inline bool is_alive(const struct flow *flow, __u8 protocol, __u64 now_ns)
{
	return is_within(flow->last_ns, now_ns, flow_timeout_s(flow, protocol));
}

/* Is a flow known to be over? Then conntrack's opinion of it does not count, which may be older. What was
 * known before a takeover may be older still: the other router has seen the flow's addresses and ports used
 * again. A datagram's flow is over when it is idle, and conntrack may have seen more of it.
 */
static __always_inline bool is_known_over(const struct flow *flow, __u8 protocol, __u64 now_ns,
					  __u64 takeover_ns)
{
	/* its time was set back */
	if (flow->flags & FLOW_REVOKED)
		return is_within(flow->last_ns, now_ns, 2 * TIMEOUT_ESTABLISHED_S);
	return protocol == IPPROTO_TCP && is_within(flow->last_ns, now_ns, TIMEOUT_OVER_S) &&
	       (!takeover_ns || (__s64)(flow->last_ns - takeover_ns) > 0);
}

static __always_inline bool is_bare_syn(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool is_syn_ack(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

/* Does the packet ask for a connection: SYN, INIT of SCTP, Request of DCCP? */
static __always_inline bool is_connection_request(const struct packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return is_bare_syn(packet);
	case IPPROTO_SCTP:
		return packet->message_type == SCTP_INIT;
	case IPPROTO_DCCP:
		/* its number stands for a type that was not read, too */
		return packet->message_type == DCCP_REQUEST &&
		       packet->fragment_position != FRAGMENT_LATER;
	default:
		return false;
	}
}

/* Does the packet accept a connection? Only a listener sends it, or who has asked himself. */
static __always_inline bool is_acceptance(const struct packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return is_syn_ack(packet);
	case IPPROTO_SCTP:
		return packet->message_type == SCTP_INIT_ACK;
	case IPPROTO_DCCP:
		return packet->message_type == DCCP_RESPONSE;
	default:
		return false;
	}
}

/* Does the packet end a connection at once? Every host answers so to what belongs to none (RFC 9293,
 * 3.10.7.1; RFC 9260, 8.4; RFC 4340, 8.3.1).
 */
static __always_inline bool is_reset(const struct packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return packet->tcp_flags & TCP_RST;
	case IPPROTO_SCTP:
		return packet->message_type == SCTP_ABORT ||
		       packet->message_type == SCTP_SHUTDOWN_COMPLETE;
	case IPPROTO_DCCP:
		return packet->message_type == DCCP_RESET;
	default:
		return false;
	}
}

/* A report or leave of IGMP, which no router forwards. A querier asks for it, and anybody may send his
 * query by unicast.
 */
static __always_inline bool is_group_report(const struct packet *packet)
{
	return packet->ip_version == 4 && packet->protocol == IPPROTO_IGMP &&
	       packet->hop_limit == 1 &&
	       (bpf_ntohl(packet->destination.word_be[3]) & 0xf0000000) == 0xe0000000 &&
	       (packet->message_type == IGMP_REPORT || packet->message_type == IGMP2_REPORT ||
		packet->message_type == IGMP2_LEAVE || packet->message_type == IGMP3_REPORT);
}

/* The type of the request that an ICMP message answers, or -1. */
static __always_inline int answered_icmp_request(__u8 ip_version, __u8 type)
{
	if (ip_version == 6) {
		switch (type) {
		case ICMP6_ECHO_REPLY:
			return ICMP6_ECHO_REQUEST;
		case ICMP6_INFORMATION_REPLY:
			return ICMP6_INFORMATION_QUERY;
		case ICMP6_EXTENDED_REPLY:
			return ICMP6_EXTENDED_REQUEST;
		default:
			return -1;
		}
	}
	switch (type) {
	case ICMP4_ECHO_REPLY:
		return ICMP4_ECHO_REQUEST;
	case ICMP4_TIMESTAMP_REPLY:
		return ICMP4_TIMESTAMP_REQUEST;
	case ICMP4_INFORMATION_REPLY:
		return ICMP4_INFORMATION_REQUEST;
	case ICMP4_MASK_REPLY:
		return ICMP4_MASK_REQUEST;
	case ICMP4_EXTENDED_REPLY:
		return ICMP4_EXTENDED_REQUEST;
	default:
		return -1;
	}
}

static __always_inline bool is_icmp_request(__u8 ip_version, __u8 type)
{
	if (ip_version == 6)
		return type == ICMP6_ECHO_REQUEST || type == ICMP6_INFORMATION_QUERY ||
		       type == ICMP6_EXTENDED_REQUEST;
	return type == ICMP4_ECHO_REQUEST || type == ICMP4_TIMESTAMP_REQUEST ||
	       type == ICMP4_INFORMATION_REQUEST || type == ICMP4_MASK_REQUEST ||
	       type == ICMP4_EXTENDED_REQUEST;
}

static __always_inline void fill_flow_key(struct flow_key *key, const struct address *server,
					  const struct address *peer, __u8 protocol,
					  __u16 server_port, __u16 peer_port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->server = *server;
	key->peer = *peer;
	key->protocol = protocol;
	key->server_port_be = bpf_htons(server_port);
	key->peer_port_be = bpf_htons(peer_port);
}

/* The key of the flow in which a packet from a server would be an answer. */
static __always_inline void fill_reply_key(struct flow_key *key, const struct packet *packet)
{
	__u16 server_port = packet->source_port, peer_port = packet->destination_port;

	if (is_icmp(packet)) {
		server_port = packet->icmp_id;
		peer_port = answered_icmp_request(packet->ip_version, packet->icmp_type);
	}
	fill_flow_key(key, &packet->source, &packet->destination, packet->protocol, server_port,
		      peer_port);
}

/* A flow that lives, from any of the tables. */
struct found_flow {
	bool found;
	bool unanswered; /* half-open, and no SYN+ACK was seen yet */
	__u32 rule;
	__u32 generation;
};

/* `absent`: a look-up in `established` or `datagrams` has just found nothing. */
static __always_inline struct found_flow find_flow(const struct flow_key *key, __u64 now_ns,
						   bool absent)
{
	struct found_flow found = {};
	struct flow *flow;

	if (key->protocol == IPPROTO_TCP) {
		struct half_open *half;

		flow = absent ? NULL : bpf_map_lookup_elem(&established, key);
		if (!flow || !is_alive(flow, IPPROTO_TCP, now_ns)) {
			half = bpf_map_lookup_elem(&half_open, key);
			if (half && is_within(half->opened_ns, now_ns, TIMEOUT_HALF_OPEN_S)) {
				found.found = true;
				found.unanswered = !half->syn_acks;
				found.rule = half->rule;
				found.generation = half->generation;
			}
			return found;
		}
	} else if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6) {
		flow = bpf_map_lookup_elem(&icmp_queries, key);
	} else {
		flow = absent ? NULL : bpf_map_lookup_elem(&datagrams, key);
	}
	if (!flow || !is_alive(flow, key->protocol, now_ns))
		return found;
	found.found = true;
	found.rule = flow->rule;
	found.generation = flow->generation;
	return found;
}

/* Did the peer try to open this flow, although the port is no service for it? */
static __always_inline bool was_opened_unlisted(const struct flow_key *key, __u64 now_ns)
{
	struct opening *opening = bpf_map_lookup_elem(&unlisted, key);
	__u32 timeout_s =
		key->protocol == IPPROTO_TCP ? TIMEOUT_HALF_OPEN_S : TIMEOUT_DATAGRAM_ANSWERED_S;

	return opening && is_within(opening->opened_ns, now_ns, timeout_s);
}

/* ---- writers ---------------------------------------------------------- */

static __always_inline void add_statistic(__u32 index, __u64 count)
{
	__u64 *statistic = bpf_map_lookup_elem(&statistics, &index);

	if (statistic)
		*statistic += count;
}

static __always_inline __u32 find_unlisted_place(const struct address *server, __be16 port_be)
{
	return UNLISTED_PLACE + ((hash_address(server) >> 40 ^ port_be) & (UNLISTED_PLACES - 1));
}

/* May a datagram from this port answer one that a peer sent there, although the port is no service? Most
 * can't, and it takes one look at an array to know that.
 */
static __always_inline bool may_be_unlisted(const struct address *server, __be16 port_be,
					    __u64 now_ns)
{
	__u32 index = find_unlisted_place(server, port_be);
	const __u64 *noted_ns = bpf_map_lookup_elem(&datagram_ports, &index);

	/* the place is up to TOUCH_NS older than its rows */
	return !noted_ns || is_within(*noted_ns, now_ns, TIMEOUT_DATAGRAM_ANSWERED_S + 2);
}

static __always_inline void note_unlisted(const struct flow_key *key, __u64 now_ns)
{
	struct opening fresh = { .opened_ns = now_ns };
	struct opening *opening;

	if (key->protocol == IPPROTO_UDP) {
		__u32 index = find_unlisted_place(&key->server, key->server_port_be);
		__u64 *noted_ns = bpf_map_lookup_elem(&datagram_ports, &index);

		/* before the row: whoever sees the row also sees this */
		if (noted_ns && (__s64)(now_ns - *noted_ns) > TOUCH_NS)
			*noted_ns = now_ns;
		barrier();
	}
	opening = bpf_map_lookup_elem(&unlisted, key);
	if (opening)
		opening->opened_ns = now_ns;
	else if (bpf_map_update_elem(&unlisted, key, &fresh, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
}

static __always_inline void make_established(const struct flow_key *key, __u32 generation,
					     __u32 rule, __u32 server, __u32 flags, __u64 now_ns)
{
	struct flow flow = {
		.last_ns = now_ns,
		.generation = generation,
		.rule = rule,
		.flags = flags,
		.server = server,
	};

	if (bpf_map_update_elem(&established, key, &flow, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
}

/* As make_established(), of a datagram's flow that its server answers. */
static __always_inline void make_answered(const struct flow_key *key, __u32 generation, __u32 rule,
					  __u32 server, __u64 now_ns)
{
	struct flow flow = {
		.last_ns = now_ns,
		.generation = generation,
		.rule = rule,
		.flags = FLOW_ANSWERED,
		.server = server,
	};

	if (bpf_map_update_elem(&datagrams, key, &flow, BPF_ANY))
		add_statistic(STATISTIC_FLOW_LOST, 1);
	remember_request(key, server, now_ns);
}

/* Returns whether this packet is the one that set them: of several CPUs one does. */
static __always_inline bool add_flow_flags(struct flow *flow, __u32 flags)
{
	/* atomic: the other direction may be on another CPU */
	return (flow->flags & flags) != flags &&
	       (__sync_fetch_and_or(&flow->flags, flags) & flags) != flags;
}

static __always_inline bool is_due(const struct flow *flow, __u64 now_ns)
{
	return (__s64)(now_ns - flow->last_ns) > TOUCH_NS;
}

static __always_inline void refresh_flow(struct flow *flow, __u64 now_ns)
{
	if (is_due(flow, now_ns))
		flow->last_ns = now_ns;
}

/* Notes that the policy of this generation permits the flow, by this rule and to this server. */
static __always_inline void renew_flow(struct flow *flow, __u32 generation, __u32 rule,
				       __u32 server)
{
	/* one word, so that no reader takes an old policy's server for the new policy's */
	union {
		struct {
			__u32 generation;
			__u32 server;
		};
		__u64 word;
	} permit = { .generation = generation, .server = server };

	if (flow->generation == generation && flow->server)
		return;
	flow->rule = rule;
	barrier();
	*(volatile __u64 *)&flow->generation = permit.word;
}

/* The flags of a flow that a segment of the server sets. */
static __always_inline __u32 ended_by_server(const struct packet *packet)
{
	return (packet->tcp_flags & TCP_FIN ? FLOW_FIN_SERVER : 0) |
	       (packet->tcp_flags & TCP_RST ? FLOW_RST_SERVER : 0);
}

/* A reply passed: its flow lives on under the policy that permitted it. */
static __always_inline void touch_flow(const struct flow_key *key, const struct packet *packet,
				       const struct decision *decision, __u64 now_ns)
{
	__u32 generation = noted_generation(decision->generation, decision->rule);
	bool due, answers_first = false;
	struct flow *flow;

	if (key->protocol == IPPROTO_TCP)
		flow = bpf_map_lookup_elem(&established, key);
	else if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6)
		flow = bpf_map_lookup_elem(&icmp_queries, key);
	else
		flow = bpf_map_lookup_elem(&datagrams, key);

	/* a flow whose time is over stays so: then the half-open flow let the reply pass */
	if (!flow || !is_alive(flow, key->protocol, now_ns)) {
		struct half_open *half;

		if (key->protocol != IPPROTO_TCP)
			return;
		half = bpf_map_lookup_elem(&half_open, key);
		if (!half)
			return;
		if (half->generation != generation) {
			half->rule = decision->rule;
			half->generation = generation;
		}
		/* data right after the SYN+ACK (RFC 7413), which the first ACK may cover */
		if (half->syn_acks && packet->tcp_flags & TCP_ACK &&
		    (__s32)(packet->sequence_end - half->sequence_end) > 0)
			half->sequence_end = packet->sequence_end;
		return;
	}
	renew_flow(flow, generation, decision->rule, decision->server);
	due = is_due(flow, now_ns);
	if (key->protocol == IPPROTO_TCP) {
		add_flow_flags(flow, ended_by_server(packet));
	} else {
		answers_first = add_flow_flags(flow, FLOW_ANSWERED);
		if (due)
			remember_request(key, decision->server, now_ns);
	}
	if (due || answers_first)
		note_use(decision->generation, decision->rule, answers_first, now_ns);
	refresh_flow(flow, now_ns);
}

/* Keeps the number that the peer has to acknowledge before its flow is established. */
static __always_inline void note_syn_ack(const struct flow_key *key, const struct packet *packet)
{
	struct half_open *half = bpf_map_lookup_elem(&half_open, key);
	__u32 sequence = packet->sequence;

	if (!half || (half->syn_acks && half->sequence[0] == sequence))
		return;
	half->sequence[1] = half->syn_acks ? half->sequence[0] : sequence;
	half->sequence[0] = sequence;
	half->sequence_end = packet->sequence_end;
	half->syn_acks = 1;
}

/* Does the peer's ACK prove that it received a SYN+ACK? It may acknowledge that one, or data that
 * followed it.
 */
static __always_inline bool acknowledges(const struct half_open *half, __u32 acknowledgment)
{
	__u32 sent = half->sequence_end - half->sequence[0];
	__u32 acknowledged = acknowledgment - half->sequence[0];

	if (!half->syn_acks)
		return false;
	return (acknowledged > 0 && acknowledged <= sent) ||
	       acknowledgment == half->sequence[1] + 1;
}

#endif
