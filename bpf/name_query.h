/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Questions that servers ask. The filter notes those that pass, and the tracker takes each with its answer.
 * A server may note what it likes: only an answer of the resolver grants anything.
 */
#ifndef PORTCULLIS_NAME_QUERY_H
#define PORTCULLIS_NAME_QUERY_H

#include "flow.h"
#include "name_question.h"

enum {
	QUERY_WAYS = 4,
	QUERY_TIMEOUT_S = 30,
	QUESTION_BYTES_MAX = 512, /* a power of two; header and question have 271 at most */
	QUERIES_OF_SEGMENT_MAX = 4,
	QUERY_FLAGS = 0xf800, /* QR and opcode of the header: 0 in a query */
};

/* The place in a server's share at which the search for a port and a number begins. */
static __always_inline __u32 find_first_place(__u32 port, __u32 number)
{
	return (port * 0x9e3779b1u ^ number * 0x85ebca6bu) >> 7;
}

/* Stores a query, in place of the same one, an empty one, or the oldest of four. */
__noinline int store_query(const struct packet *packet, __u32 server, __u16 id)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	struct share_key key = { .server = server };
	struct query *query, *best = NULL;
	__u32 first, room;

	if (!packet || !scratch)
		return 0;
	room = read_state(STATE_QUERY_ROOM);
	if (!room)
		return 0;
	first = find_first_place(packet->source_port, id);
	for (int i = 0; i < QUERY_WAYS; i++) {
		key.place = (first + i) & (room - 1);
		query = bpf_map_lookup_elem(&queries, &key);
		if (!query) {
			scratch->query.asked_ns = scratch->now_ns;
			scratch->query.hash = scratch->hash[0];
			scratch->query.resolver = packet->destination;
			scratch->query.server = server;
			scratch->query.port = packet->source_port;
			scratch->query.id = id;
			if (!bpf_map_update_elem(&queries, &key, &scratch->query, BPF_NOEXIST))
				add_name_count(NAME_QUERY_NOTED, 1);
			return 0;
		}
		if (query->port == packet->source_port && query->id == id &&
		    same_address(&query->resolver, &packet->destination)) {
			best = query;
			break;
		}
		if (!best || query->asked_ns < best->asked_ns)
			best = query;
	}
	if (!best)
		return 0;
	if (best->asked_ns && is_within(best->asked_ns, scratch->now_ns, QUERY_TIMEOUT_S) &&
	    (best->port != packet->source_port || best->id != id))
		add_name_count(NAME_QUERY_PUSHED, 1);
	/* While it is written it counts as answered. Two writers at once leave a query that nobody asked. Its
	 * hash says that no answer fits but one to that question.
	 */
	best->asked_ns = 0;
	barrier();
	best->hash = scratch->hash[0];
	best->resolver = packet->destination;
	best->port = packet->source_port;
	best->id = id;
	barrier();
	best->asked_ns = scratch->now_ns;
	add_name_count(NAME_QUERY_NOTED, 1);
	return 0;
}

/* Loads what may be a question from an offset of the frame, at most QUESTION_BYTES_MAX of it. False: it can't
 * be one.
 */
static __always_inline bool load_question(struct xdp_md *ctx, struct name_scratch *scratch,
					  __u32 offset, __u32 bytes)
{
	if (bytes < sizeof(struct dns_header) + 1 + QUESTION_TAIL_BYTES || offset > DEEPEST_HEADER)
		return false;
	if (bytes > QUESTION_BYTES_MAX)
		bytes = QUESTION_BYTES_MAX;
	/* 1 to QUESTION_BYTES_MAX, in words that Linux 6.1 understands */
	bytes -= 1;
	barrier_var(bytes);
	bytes = (bytes & (QUESTION_BYTES_MAX - 1)) + 1;
	if (bpf_xdp_load_bytes(ctx, offset, scratch->message, bytes))
		return false;
	scratch->message_bytes = bytes;
	return true;
}

/* Notes the question of the message at an offset of the frame, if a need of the server has its name. */
__noinline int note_question(struct xdp_md *ctx, const struct packet *packet, __u32 offset,
			     __u32 bytes)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	struct dns_header *header;
	__u32 name;

	if (!packet || !scratch || !load_question(ctx, scratch, offset, bytes))
		return 0;
	header = (struct dns_header *)scratch->message;
	if (header->flags_be & bpf_htons(QUERY_FLAGS) || header->questions_be != bpf_htons(1) ||
	    !read_question(scratch, HOOK_XDP))
		return 0;
	name = find_name(HOOK_XDP);
	if (!name || !needs_name(scratch->slot, scratch->profile, name))
		return 0;
	return store_query(packet, scratch->server, header->id_be);
}

/* Over TCP a message stands behind its length. Some send both in one segment, and some in two. A segment may
 * hold several.
 */
static __always_inline void note_segment(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 left = packet->sequence_end - packet->sequence - !!(packet->tcp_flags & TCP_FIN);
	__u32 offset = packet->offset, bytes;
	__u8 header_words[1];
	__be16 length_be;

	if (packet->tcp_flags & TCP_SYN ||
	    load_bytes(ctx, HOOK_XDP, offset + 12, header_words, sizeof(header_words)))
		return;
	offset += (header_words[0] >> 4) * 4;
	/* its length may have come before */
	note_question(ctx, packet, offset, left);
	for (int i = 0; i < QUERIES_OF_SEGMENT_MAX; i++) {
		if (left <= sizeof(length_be) ||
		    load_bytes(ctx, HOOK_XDP, offset, &length_be, sizeof(length_be)))
			return;
		bytes = bpf_ntohs(length_be);
		if (bytes > left - sizeof(length_be)) {
			/* the rest of a long query comes later */
			note_question(ctx, packet, offset + sizeof(length_be),
				      left - sizeof(length_be));
			return;
		}
		note_question(ctx, packet, offset + sizeof(length_be), bytes);
		offset += sizeof(length_be) + bytes;
		left -= sizeof(length_be) + bytes;
	}
}

/* Has the filter let pass what may be a question to a resolver? */
static __always_inline bool may_be_query(const struct packet *packet,
					 const struct decision *decision)
{
	return packet->destination_port == PORT_DNS && packet->fragment_position == FRAGMENT_NONE &&
	       (decision->reason == REASON_NEED || decision->reason == REASON_OWN_CONNECTION) &&
	       (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP);
}

/* Notes what a packet asks its resolver. A global function, for its own stack. */
__noinline int note_queries(struct xdp_md *ctx, const struct packet *packet,
			    const struct decision *decision, __u64 now_ns)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	struct policy policy = live_policy(now_ns);
	const struct server *server;

	if (!packet || !decision || !scratch || policy.generation != decision->generation)
		return 0;
	server = find_resolver(&policy, &packet->destination) ?
			 find_server(&policy, &packet->source) :
			 NULL;
	if (!server)
		return 0;
	scratch->slot = policy.slot;
	scratch->server = server->id;
	scratch->profile = server->flags & SERVER_FORWARDS ? 0 : server->profile;
	scratch->now_ns = now_ns;
	if (packet->protocol == IPPROTO_TCP)
		note_segment(ctx, packet);
	else if (packet->left > sizeof(struct udphdr))
		note_question(ctx, packet, packet->offset + sizeof(struct udphdr),
			      packet->left - sizeof(struct udphdr));
	return 0;
}

/* The query that the answer in the scratch belongs to, by port, resolver and id; NULL: there is none. */
static __always_inline struct query *find_query(const struct name_scratch *scratch, __u16 id)
{
	struct share_key key = { .server = scratch->server };
	__u32 room = read_state(STATE_QUERY_ROOM), first;

	if (!room)
		return NULL;
	first = find_first_place(scratch->port, id);
	for (int i = 0; i < QUERY_WAYS; i++) {
		struct query *query;

		key.place = (first + i) & (room - 1);
		query = bpf_map_lookup_elem(&queries, &key);
		if (!query)
			return NULL;
		if (query->port == scratch->port && query->id == id &&
		    same_address(&query->resolver, &scratch->resolver))
			return query->asked_ns && is_within(query->asked_ns, scratch->now_ns,
							    QUERY_TIMEOUT_S) ?
				       query :
				       NULL;
	}
	return NULL;
}

#endif
