/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Writes frames of every kind of traffic from a plan. Each frame is overwritten
 * whole, because the kernel reuses frames as the last receiver left them.
 *
 * IPv4 addresses are those reserved for benchmarks (RFC 2544): servers in
 * 198.18.0.0/16, peers in 198.19.0.0/16. IPv6 addresses are those reserved for
 * documentation: servers in 2001:db8:5::/64, peers in 2001:db8:6::/64.
 */
#ifndef BENCH_TRAFFIC_H
#define BENCH_TRAFFIC_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum kind {
	KIND_WORM = 0,        /* a server's SYN to `port` of any peer */
	KIND_SCATTER = 1,     /* a server's UDP datagram to any port of any peer */
	KIND_RANDOM_PORT = 2, /* a server's SYN to any port of any peer */
	KIND_REPLY = 3,       /* a server's segment in an open flow */
	KIND_OPENING = 4,     /* a peer's SYN, flow by flow */
	KIND_ANSWER = 5,      /* the server's SYN+ACK, flow by flow */
	KIND_COMPLETION = 6,  /* the peer's ACK of it, flow by flow */
	KIND_OUTBOUND = 7,    /* a server's SYN to `need` of any peer */
	KIND_MIX = 8,         /* replies, and `worms_in_1024` of KIND_WORM */
	/* IPv4 alone: */
	KIND_QUESTION = 9,    /* a server's question to its resolver, id by id */
	KIND_RESOLUTION = 10, /* the resolver's answer of four addresses, id by id */
	KIND_NAMED = 11, /* a server's SYN to `need` of an address among `flows` that answers had */
};

enum {
	WORDS_OF_ADDRESS = 8, /* 16-bit words, as checksums count */
	SERVER_NUMBER = 5000, /* a server's first sequence number */
	PEER_NUMBER = 1000,
	FIRST_PORT = 1024, /* ephemeral ports begin here */
	PORTS = 64000,
};

/* What to send. User space fills it in. `random`, `sent` and `next` advance with each frame. */
struct plan {
	__u64 random; /* never 0 */
	__u64 sent;
	__u64 next; /* the next flow, for kinds that go flow by flow */
	__u32 kind;
	__u32 version; /* 4 or 6 */
	__u32 servers;
	__u32 flows;
	__u32 worms_in_1024;
	__u16 port; /* the worm's */
	__u16 service;
	__u16 need;
	__u8 destination_mac[ETH_ALEN];
	__u8 source_mac[ETH_ALEN];
	__u8 padding[6];
};

/* One packet's choices, before they are bytes. */
struct choice {
	__u32 server;
	__u32 peer;
	__u16 source_port;
	__u16 destination_port;
	__u32 sequence;
	__u32 acknowledgment;
	__u8 tcp_flags; /* byte 13 of the header */
	bool udp;
	bool to_server;
	bool resolver;       /* is the peer */
	__u16 message_bytes; /* of DNS */
	__u16 id;
	__u32 first_address; /* of an answer */
};

enum {
	FLAG_SYN = 0x02,
	FLAG_ACK = 0x10,
};

/* xorshift64: a few instructions, where the helper would be a call. */
static __always_inline __u64 next_random(struct plan *plan)
{
	__u64 word = plan->random;

	word ^= word << 13;
	word ^= word >> 7;
	word ^= word << 17;
	plan->random = word;
	return word;
}

/* Maps 32 random bits to a number less than `below`. */
static __always_inline __u32 scale(__u32 random, __u32 below)
{
	return ((__u64)random * below) >> 32;
}

/* Flow number N always has the same two ends, and no other flow has both of them. */
static __always_inline void choose_flow(const struct plan *plan, __u32 flow, struct choice *choice)
{
	choice->server = flow % (plan->servers ?: 1);
	choice->peer = flow & 0xffff;
	choice->source_port = plan->service;
	choice->destination_port = FIRST_PORT + (flow >> 16);
}

static __always_inline void choose_worm(const struct plan *plan, __u64 random, __u16 port,
					struct choice *choice)
{
	choice->server = scale(random, plan->servers);
	choice->peer = (random >> 32) & 0xffff;
	choice->source_port = FIRST_PORT + ((random >> 48) * PORTS >> 16);
	choice->destination_port = port;
	choice->sequence = SERVER_NUMBER;
	choice->tcp_flags = FLAG_SYN;
}

static __always_inline void choose_reply(const struct plan *plan, __u64 random,
					 struct choice *choice)
{
	choose_flow(plan, scale(random, plan->flows), choice);
	choice->sequence = SERVER_NUMBER + 1;
	choice->acknowledgment = PEER_NUMBER + 1;
	choice->tcp_flags = FLAG_ACK;
}

static __always_inline void turn_around(struct choice *choice)
{
	__u16 port = choice->source_port;

	choice->source_port = choice->destination_port;
	choice->destination_port = port;
	choice->to_server = true;
}

static __always_inline __u32 take_flow(struct plan *plan)
{
	__u64 flow = plan->next;

	plan->next = flow + 1 < plan->flows ? flow + 1 : 0;
	return flow;
}

enum {
	RESOLVER = 0x7f000035, /* 127.0.0.53: of this machine, so that its answers count */
	QUESTION_PORT = 40053,
	ADDRESSES_OF_ANSWER = 4,
	PEERS = 0xc6130000, /* 198.19.0.0 */
};

/* A question about deb.vendor.example: type A, class IN. */
struct dns_question {
	__be16 id;
	__be16 flags;
	__be16 counts[4];
	__u8 name[20];
	__be16 type_and_class[2];
};

struct dns_record {
	__be16 words[6]; /* the question's name, A, IN, 60 seconds, 4 bytes */
	__be32 address;
};

static __always_inline bool write_message(void *at, void *end, const struct choice *choice)
{
	struct dns_question *question = at;
	struct dns_record *record = at + sizeof(*question);
	bool answers = choice->message_bytes > sizeof(*question);

	if ((void *)(question + 1) > end)
		return false;
	question->id = bpf_htons(choice->id);
	question->flags = bpf_htons(answers ? 0x8180 : 0x0100);
	question->counts[0] = bpf_htons(1);
	question->counts[1] = bpf_htons(answers ? ADDRESSES_OF_ANSWER : 0);
	question->counts[2] = 0;
	question->counts[3] = 0;
	__builtin_memcpy(question->name, "\3deb\6vendor\7example", sizeof(question->name));
	question->type_and_class[0] = bpf_htons(1);
	question->type_and_class[1] = bpf_htons(1);
	if (!answers)
		return true;
	if ((void *)(record + ADDRESSES_OF_ANSWER) > end)
		return false;
	for (int i = 0; i < ADDRESSES_OF_ANSWER; i++) {
		record[i].words[0] = bpf_htons(0xc00c);
		record[i].words[1] = bpf_htons(1);
		record[i].words[2] = bpf_htons(1);
		record[i].words[3] = 0;
		record[i].words[4] = bpf_htons(60);
		record[i].words[5] = bpf_htons(4);
		record[i].address = bpf_htonl(PEERS | ((choice->first_address + i) & 0xffff));
	}
	return true;
}

static __always_inline void choose_message(struct plan *plan, struct choice *choice, bool answers)
{
	choice->udp = true;
	choice->resolver = true;
	choice->id = take_flow(plan);
	choice->source_port = QUESTION_PORT;
	choice->destination_port = 53;
	choice->message_bytes = sizeof(struct dns_question);
	if (!answers)
		return;
	turn_around(choice);
	choice->message_bytes += ADDRESSES_OF_ANSWER * sizeof(struct dns_record);
	/* of so many: `servers`, a power of two */
	choice->first_address = ADDRESSES_OF_ANSWER * plan->sent & (plan->servers - 1);
}

static __always_inline void choose(struct plan *plan, struct choice *choice)
{
	__u64 random = next_random(plan);

	switch (plan->kind) {
	case KIND_WORM:
		choose_worm(plan, random, plan->port, choice);
		break;
	case KIND_SCATTER:
		choose_worm(plan, random, FIRST_PORT + scale(next_random(plan), PORTS), choice);
		choice->udp = true;
		break;
	case KIND_RANDOM_PORT:
		choose_worm(plan, random, FIRST_PORT + scale(next_random(plan), PORTS), choice);
		break;
	case KIND_REPLY:
		choose_reply(plan, random, choice);
		break;
	case KIND_OPENING:
		choose_flow(plan, take_flow(plan), choice);
		turn_around(choice);
		choice->sequence = PEER_NUMBER;
		choice->tcp_flags = FLAG_SYN;
		break;
	case KIND_ANSWER:
		choose_flow(plan, take_flow(plan), choice);
		choice->sequence = SERVER_NUMBER;
		choice->acknowledgment = PEER_NUMBER + 1;
		choice->tcp_flags = FLAG_SYN | FLAG_ACK;
		break;
	case KIND_COMPLETION:
		choose_flow(plan, take_flow(plan), choice);
		turn_around(choice);
		choice->sequence = PEER_NUMBER + 1;
		choice->acknowledgment = SERVER_NUMBER + 1;
		choice->tcp_flags = FLAG_ACK;
		break;
	case KIND_OUTBOUND:
		choose_worm(plan, random, plan->need, choice);
		break;
	case KIND_QUESTION:
		choose_message(plan, choice, false);
		break;
	case KIND_RESOLUTION:
		choose_message(plan, choice, true);
		break;
	case KIND_NAMED: /* `servers` is the number of ports */
		choose_worm(plan, random, plan->need, choice);
		choice->server = 0;
		choice->peer = scale(random >> 32, plan->flows);
		choice->source_port = FIRST_PORT + scale(next_random(plan), plan->servers) % PORTS;
		break;
	default: /* KIND_MIX: the high bits choose the flow */
		if ((random & 1023) < plan->worms_in_1024)
			choose_worm(plan, next_random(plan), plan->port, choice);
		else
			choose_reply(plan, random >> 32, choice);
	}
}

/* Folds a sum into 16 bits and complements it. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 sum_of(__be32 word)
{
	return (word & 0xffff) + (word >> 16);
}

/* Sets `sum` to the part of the transport checksum that covers the addresses. */
static __always_inline bool write_ipv4(void *at, void *end, const struct choice *choice,
				       __u16 l4_bytes, __u64 *sum)
{
	struct iphdr *ip = at;
	__be32 server = bpf_htonl(0xc6120000 | choice->server); /* 198.18.0.0 */
	__be32 peer = bpf_htonl(choice->resolver ? RESOLVER : PEERS | choice->peer);
	__be16 length = bpf_htons(sizeof(*ip) + l4_bytes);
	__u8 protocol = choice->udp ? IPPROTO_UDP : IPPROTO_TCP;
	__u64 header;

	if ((void *)(ip + 1) > end)
		return false;
	*sum = sum_of(server) + sum_of(peer);
	header = *sum + bpf_htons(0x4500) + length + bpf_htons(64 << 8 | protocol);
	*(__be16 *)at = bpf_htons(0x4500);
	ip->tot_len = length;
	ip->id = 0;
	ip->frag_off = 0;
	ip->ttl = 64;
	ip->protocol = protocol;
	ip->check = fold(header);
	ip->saddr = choice->to_server ? peer : server;
	ip->daddr = choice->to_server ? server : peer;
	return true;
}

static __always_inline void write_ipv6_address(struct in6_addr *address, __u16 subnet, __u32 host)
{
	address->s6_addr32[0] = bpf_htonl(0x20010db8);
	address->s6_addr32[1] = bpf_htonl((__u32)subnet << 16);
	address->s6_addr32[2] = 0;
	address->s6_addr32[3] = bpf_htonl(host + 1); /* ::0 is the anycast address of routers */
}

static __always_inline bool write_ipv6(void *at, void *end, const struct choice *choice,
				       __u16 l4_bytes, __u64 *sum)
{
	struct ipv6hdr *ip = at;

	if ((void *)(ip + 1) > end)
		return false;
	*(__be32 *)at = bpf_htonl(0x60000000);
	ip->payload_len = bpf_htons(l4_bytes);
	ip->nexthdr = choice->udp ? IPPROTO_UDP : IPPROTO_TCP;
	ip->hop_limit = 64;
	write_ipv6_address(&ip->saddr, choice->to_server ? 6 : 5,
			   choice->to_server ? choice->peer : choice->server);
	write_ipv6_address(&ip->daddr, choice->to_server ? 5 : 6,
			   choice->to_server ? choice->server : choice->peer);
	*sum = 2 * sum_of(bpf_htonl(0x20010db8)) + bpf_htons(5) + bpf_htons(6) +
	       sum_of(bpf_htonl(choice->server + 1)) + sum_of(bpf_htonl(choice->peer + 1));
	return true;
}

static __always_inline bool write_tcp(void *at, void *end, const struct choice *choice, __u64 sum)
{
	struct tcphdr *tcp = at;
	__be16 flags = bpf_htons(0x5000 | choice->tcp_flags), window = bpf_htons(65535);

	if ((void *)(tcp + 1) > end)
		return false;
	tcp->source = bpf_htons(choice->source_port);
	tcp->dest = bpf_htons(choice->destination_port);
	tcp->seq = bpf_htonl(choice->sequence);
	tcp->ack_seq = bpf_htonl(choice->acknowledgment);
	*(__be16 *)(at + 12) = flags;
	tcp->window = window;
	tcp->urg_ptr = 0;
	tcp->check = fold(sum + bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(*tcp)) + tcp->source +
			  tcp->dest + sum_of(tcp->seq) + sum_of(tcp->ack_seq) + flags + window);
	return true;
}

static __always_inline bool write_udp(void *at, void *end, const struct choice *choice, __u64 sum)
{
	struct udphdr *udp = at;
	__be16 length = bpf_htons(sizeof(*udp) + choice->message_bytes);

	if ((void *)(udp + 1) > end)
		return false;
	udp->source = bpf_htons(choice->source_port);
	udp->dest = bpf_htons(choice->destination_port);
	udp->len = length;
	if (choice->message_bytes) {
		udp->check = 0; /* none (RFC 768) */
		return write_message(udp + 1, end, choice);
	}
	udp->check = fold(sum + bpf_htons(IPPROTO_UDP) + 2 * length + udp->source + udp->dest);
	return true;
}

/* Writes the plan's next frame. False if the frame handed in is too short. */
static __always_inline bool write_frame(void *data, void *end, struct plan *plan)
{
	struct ethhdr *ethernet = data;
	struct choice choice = {};
	__u16 l4_bytes;
	__u64 sum;
	void *l4;

	if ((void *)(ethernet + 1) > end)
		return false;
	choose(plan, &choice);
	l4_bytes =
		choice.udp ? sizeof(struct udphdr) + choice.message_bytes : sizeof(struct tcphdr);
	__builtin_memcpy(ethernet->h_dest, plan->destination_mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, plan->source_mac, ETH_ALEN);
	if (plan->version == 4) {
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		if (!write_ipv4(ethernet + 1, end, &choice, l4_bytes, &sum))
			return false;
		l4 = (void *)(ethernet + 1) + sizeof(struct iphdr);
	} else {
		ethernet->h_proto = bpf_htons(ETH_P_IPV6);
		if (!write_ipv6(ethernet + 1, end, &choice, l4_bytes, &sum))
			return false;
		l4 = (void *)(ethernet + 1) + sizeof(struct ipv6hdr);
	}
	plan->sent++;
	return choice.udp ? write_udp(l4, end, &choice, sum) : write_tcp(l4, end, &choice, sum);
}

#endif
