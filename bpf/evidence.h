/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keeps what `learn` asks a gate for: who opened what, and was answered. It is written while the policy observes, or
 * while somebody learns, and it decides nothing.
 *
 * A TCP connection was opened by whoever sent the SYN. The server's need counts when the other end has sent its
 * SYN+ACK, and the server's service when the peer has acknowledged that of the server. A datagram, a query of ICMP and a
 * packet of another protocol open what the first of them began, and count when the other end sends something.
 * src/learn/watch.rs goes by the same rules. Ports never say who opened.
 */
#ifndef PORTCULLIS_EVIDENCE_H
#define PORTCULLIS_EVIDENCE_H

#include "fast_path.h"
#include "track.h"

enum exchange_flag {
	EXCHANGE_FROM_SERVER = 1,
	EXCHANGE_REPLY = 2, /* the verdict says that the peer has opened it */
};

enum {
	/* How far beyond the SYN an acknowledgment may be, for data may come with it. A forged one hardly is. */
	ACKNOWLEDGED_MAX = 1 << 17,
};

static __always_inline bool is_keeping(const struct cpu *cpu)
{
	return !load.is_private && cpu && cpu->keeps_evidence;
}

/* Of TCP, what opens a connection is enough. */
static __always_inline bool may_be_evidence(const struct plain_frame *frame)
{
	return frame->protocol != IPPROTO_TCP || frame->tcp_flags & TCP_SYN;
}

static __always_inline void add_evidence(struct evidence *row, bool answered, __u64 now_ns)
{
	__sync_fetch_and_add(answered ? &row->answered : &row->asked, 1);
	row->last_ns = now_ns;
}

/* Finds or makes a row. NULL: the table is full. */
static __always_inline struct evidence *make_evidence(const struct evidence_key *key, __u64 now_ns)
{
	struct evidence *row = bpf_map_lookup_elem(&evidence, key);
	struct evidence fresh = { .first_ns = now_ns, .last_ns = now_ns };

	if (row)
		return row;
	fresh.nonce = bpf_get_prandom_u32();
	/* when another CPU has just added the row, this one finds it */
	bpf_map_update_elem(&evidence, key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&evidence, key);
}

/* Takes a place of a quota. */
static __always_inline bool take_place(struct evidence *owner, __u32 most)
{
	if (*(volatile __u32 *)&owner->rows >= most)
		return false;
	if (__sync_fetch_and_add(&owner->rows, 1) < most)
		return true;
	__sync_fetch_and_add(&owner->rows, -1);
	return false;
}

/* Counts in the row of server, service and peer, or in that of the service, or in that of the server. A global
 * function, for its own stack.
 */
__noinline int count_evidence(const struct evidence_key *opening, __u32 answered, __u64 now_ns)
{
	struct evidence *row, *service, *server;
	struct evidence_key key;

	if (!opening)
		return 0;
	key = *opening;
	row = bpf_map_lookup_elem(&evidence, &key);
	if (row) {
		add_evidence(row, answered, now_ns);
		return 0;
	}
	__builtin_memset(&key, 0, sizeof(key));
	key.server = opening->server;
	server = make_evidence(&key, now_ns);
	if (!server) {
		add_statistic(STATISTIC_EVIDENCE_LOST, 1);
		return 0;
	}
	key.port = opening->port;
	key.protocol = opening->protocol;
	key.direction = opening->direction;
	service = bpf_map_lookup_elem(&evidence, &key);
	if (!service && take_place(server, EVIDENCE_ROWS_MAX))
		service = make_evidence(&key, now_ns);
	if (!service) {
		add_evidence(server, answered, now_ns);
		return 0;
	}
	if (take_place(service, EVIDENCE_PEERS_MAX)) {
		if (take_place(server, EVIDENCE_ROWS_MAX)) {
			key.peer = opening->peer;
			row = make_evidence(&key, now_ns);
			if (row) {
				add_evidence(row, answered, now_ns);
				return 0;
			}
			__sync_fetch_and_add(&server->rows, -1);
		}
		__sync_fetch_and_add(&service->rows, -1);
	}
	add_evidence(service, answered, now_ns);
	return 0;
}

/* Does nobody answer such a packet: is it to a group, or a log line and the like? */
static __always_inline bool expects_no_answer(const struct packet *packet)
{
	const __be32 *word_be = packet->destination.word_be;

	if (packet->ip_version == 6 &&
	    (word_be[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
		return true;
	if (packet->ip_version == 4 &&
	    (word_be[3] == 0xffffffff ||
	     (word_be[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000)))
		return true;
	if (packet->protocol != IPPROTO_UDP)
		return false;
	switch (packet->destination_port) {
	case ONE_WAY_TRAP:
	case ONE_WAY_SYSLOG:
	case ONE_WAY_NETFLOW:
	case ONE_WAY_IPFIX:
	case ONE_WAY_SFLOW:
	case ONE_WAY_STATSD:
	case ONE_WAY_NETFLOW_OTHER:
	case ONE_WAY_GELF:
		return true;
	default:
		return false;
	}
}

/* The step is made by one CPU. */
static __always_inline bool make_step(struct exchange *exchange, __u32 from, __u32 to)
{
	return exchange->step == from &&
	       __sync_val_compare_and_swap(&exchange->step, from, to) == from;
}

/* A segment of TCP. Returns whether it makes the opening count. */
static __always_inline bool note_handshake(const struct packet *packet, const struct flow_key *key,
					   struct exchange *known, bool from_server, __u64 now_ns)
{
	__u8 flags = packet->tcp_flags;

	if (flags & TCP_RST || (flags & TCP_SYN && flags & TCP_FIN))
		return false;
	if (is_bare_syn(packet)) {
		struct exchange fresh = {
			.last_ns = now_ns,
			.sequence = packet->sequence,
			.step = EXCHANGE_ASKED,
			.by_server = from_server,
		};

		/* sent again */
		if (known && !!known->by_server == from_server &&
		    known->sequence == packet->sequence)
			return false;
		bpf_map_update_elem(&exchanges, key, &fresh, BPF_ANY);
		return false;
	}
	if (!known || !(flags & TCP_ACK))
		return false;
	if (from_server) {
		if (!(flags & TCP_SYN) || known->by_server || known->step == EXCHANGE_COUNTED)
			return false;
		known->sequence = packet->sequence;
		known->step = EXCHANGE_ACCEPTED;
		return false;
	}
	if (packet->acknowledgment - known->sequence - 1 >= ACKNOWLEDGED_MAX)
		return false;
	if (known->by_server)
		return flags & TCP_SYN && make_step(known, EXCHANGE_ASKED, EXCHANGE_COUNTED);
	return !(flags & TCP_SYN) && make_step(known, EXCHANGE_ACCEPTED, EXCHANGE_COUNTED);
}

/* As note_handshake(), of a packet without connections. `opens`: it may begin something. */
static __always_inline bool note_datagram(const struct flow_key *key, struct exchange *known,
					  __u32 flags, bool opens, __u64 now_ns)
{
	bool from_server = flags & EXCHANGE_FROM_SERVER, reply = flags & EXCHANGE_REPLY;

	if (!known) {
		struct exchange fresh = {
			.last_ns = now_ns,
			.step = reply ? EXCHANGE_COUNTED : EXCHANGE_ASKED,
			.by_server = from_server && !reply,
		};

		if (opens)
			bpf_map_update_elem(&exchanges, key, &fresh, BPF_ANY);
		return false;
	}
	known->last_ns = now_ns;
	return !!known->by_server != from_server &&
	       make_step(known, EXCHANGE_ASKED, EXCHANGE_COUNTED);
}

/* A packet of a server, or to it. `flags`: of enum exchange_flag. A global function, for its own stack. */
__noinline int note_exchange(const struct packet *packet, __u32 server, __u32 flags, __u64 now_ns)
{
	bool from_server = flags & EXCHANGE_FROM_SERVER, opens = true, counts;
	struct evidence_key opening = {};
	__u16 server_port, peer_port;
	struct exchange *known;
	struct flow_key key;
	bool tcp, icmp;

	if (!packet)
		return 0;
	tcp = packet->protocol == IPPROTO_TCP;
	icmp = is_icmp(packet);
	server_port = from_server ? packet->source_port : packet->destination_port;
	peer_port = from_server ? packet->destination_port : packet->source_port;
	if (icmp) {
		int request = packet->icmp_type;

		opens = is_icmp_request(packet->ip_version, packet->icmp_type);
		if (!opens)
			request = answered_icmp_request(packet->ip_version, packet->icmp_type);
		if (request < 0)
			return 0;
		server_port = packet->icmp_id;
		peer_port = request;
	}
	if (from_server)
		fill_flow_key(&key, &packet->source, &packet->destination, packet->protocol,
			      server_port, peer_port);
	else
		fill_flow_key(&key, &packet->destination, &packet->source, packet->protocol,
			      server_port, peer_port);
	known = bpf_map_lookup_elem(&exchanges, &key);
	if (known && !is_within(known->last_ns, now_ns,
				tcp ? TIMEOUT_HALF_OPEN_S : TIMEOUT_DATAGRAM_ANSWERED_S))
		known = NULL;
	opening.server = server;
	opening.peer = key.peer;
	opening.protocol = packet->protocol;
	if (!known && !tcp && from_server && !(flags & EXCHANGE_REPLY) && opens &&
	    expects_no_answer(packet)) {
		opening.direction = EDIT_OUT;
		opening.port = peer_port;
		count_evidence(&opening, 0, now_ns);
	}
	counts = tcp ? note_handshake(packet, &key, known, from_server, now_ns) :
		       note_datagram(&key, known, flags, opens, now_ns);
	if (!counts || !known)
		return 0;
	opening.direction = known->by_server ? EDIT_OUT : EDIT_IN;
	opening.port = icmp || known->by_server ? peer_port : server_port;
	count_evidence(&opening, 1, now_ns);
	return 0;
}

/* What would be dropped and passes is evidence as well, but for what is no opening of this server or goes
 * another way.
 */
static __always_inline bool is_of_server(const struct decision *decision)
{
	if (decision->verdict == VERDICT_PASS)
		return decision->server;
	return decision->verdict == VERDICT_WOULD_DROP && decision->server &&
	       decision->reason > REASON_SPOOFED && decision->reason != REASON_ELSEWHERE;
}

/* A global function, for its own stack. */
__noinline int keep_from_server(const struct packet *packet, const struct decision *decision,
				__u64 now_ns)
{
	bool reply;

	if (!packet || !decision || !is_of_server(decision) ||
	    packet->fragment_position == FRAGMENT_LATER || is_foreign_icmp(packet))
		return 0;
	/* of TCP see may_be_evidence() */
	if (packet->protocol == IPPROTO_TCP && !(packet->tcp_flags & TCP_SYN))
		return 0;
	reply = decision->reason == REASON_REPLY || decision->reason == REASON_PICKUP;
	return note_exchange(packet, decision->server,
			     EXCHANGE_FROM_SERVER | (reply ? EXCHANGE_REPLY : 0), now_ns);
}

/* As above. What a stranger of the link sends back into the DMZ is none, see is_stranger_of_link(). */
__noinline int keep_to_server(struct __sk_buff *skb, const struct packet *packet, __u64 now_ns)
{
	const struct server *server;
	struct policy policy;

	if (!packet || !packet->addressed || !packet->ported || packet->malformed ||
	    packet->fragment_position == FRAGMENT_LATER || is_foreign_icmp(packet))
		return 0;
	policy = live_policy(now_ns);
	if (is_stranger_of_link(skb, &policy, packet))
		return 0;
	server = find_server(&policy, &packet->destination);
	return server ? note_exchange(packet, server->id, 0, now_ns) : 0;
}

#endif
