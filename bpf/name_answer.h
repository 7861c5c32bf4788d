/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers of resolvers, read on their way to a server: before the server has them, their addresses are
 * granted. An answer counts when it matches a query, once, and came by the right way. Only its answer section
 * is read, no pointer is followed, and over TCP a message begins where the one before it ended.
 */
#ifndef PORTCULLIS_NAME_ANSWER_H
#define PORTCULLIS_NAME_ANSWER_H

#include "name_learn.h"
#include "name_lookup.h"
#include "private.h"

enum {
	RECORD_STEPS_MAX = 256, /* labels of owners, and records */
	MESSAGES_MAX = 16,      /* in one packet, or in several that the kernel has put together */
	RECORD_BYTES = 10,      /* behind the owner: type, class, time to live, length */
	TYPE_A = 1,
	TYPE_AAAA = 28,
	ANSWER_MASK = 0xf80f, /* QR, opcode and rcode of the header's flags */
	ANSWER_FLAGS = 0x8000,
	ANSWER_CUT = 0x0200, /* TC */
	ERROR_MASK = 0x000f,
	STREAM_WAYS = 4,
};

/* Takes the address of a record. False: it is none. */
static __always_inline bool read_address(struct name_scratch *scratch, const __u8 *bytes,
					 __u32 type, __u32 length)
{
	struct address *address = &scratch->granted_key.address;

	if (type == TYPE_A && length == 4) {
		map_ipv4(address, *(const __be32 *)bytes);
		return true;
	}
	if (type != TYPE_AAAA || length != sizeof(*address))
		return false;
	__builtin_memcpy(address, bytes, sizeof(*address));
	return true;
}

/* A label of an owner, or the rest of a record. */
static long step_record(__u32 index __attribute__((unused)), struct name_loop *loop)
{
	struct name_scratch *scratch = loop->scratch;
	__u32 at = scratch->at, length, type, class, data;
	const __u8 *record;
	__u64 seconds;

	if (at >= scratch->message_bytes) {
		scratch->outcome = NAME_ANSWER_CUT;
		return 1;
	}
	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	length = scratch->message[at];
	if (length && length <= LABEL_BYTES_MAX) {
		scratch->at = at + length + 1;
		return 0;
	}
	/* the root, or a pointer, which ends an owner */
	if (length && length < 0xc0) {
		scratch->outcome = NAME_ANSWER_MALFORMED;
		return 1;
	}
	at += length ? 2 : 1;
	data = at + RECORD_BYTES;
	if (data > scratch->message_bytes) {
		scratch->outcome = NAME_ANSWER_CUT;
		return 1;
	}
	record = scratch->message + at;
	type = read_u16(record);
	class = read_u16(record + 2);
	seconds = (__u64)read_u16(record + 4) << 16 | read_u16(record + 6);
	length = read_u16(record + 8);
	if (data + length > scratch->message_bytes) {
		scratch->outcome = NAME_ANSWER_CUT;
		return 1;
	}
	scratch->at = data + length;
	if (class == CLASS_IN && (type == TYPE_A || type == TYPE_AAAA)) {
		if (!read_address(scratch, record + RECORD_BYTES, type, length)) {
			scratch->outcome = NAME_ANSWER_MALFORMED;
			return 1;
		}
		/* the highest bit counts as zero (RFC 2181, 8) */
		seconds = seconds >> 31 ? 0 : seconds * SECOND_NS;
		if (seconds < scratch->floor_ns)
			seconds = scratch->floor_ns;
		if (seconds > scratch->cap_ns)
			seconds = scratch->cap_ns;
		scratch->until_ns = scratch->now_ns + seconds + GRANT_GRACE_S * SECOND_NS;
		if (type == TYPE_AAAA && is_mapped_ipv4(&scratch->granted_key.address)) {
			if (scratch->name)
				refuse_address(scratch, true);
		} else {
			remember_lookup();
			if (scratch->name)
				grant_address();
		}
	}
	if (!--scratch->records) {
		scratch->outcome = NAME_ANSWER_READ;
		return 1;
	}
	return 0;
}

/* Remembers the addresses of the answer section, which begins at scratch->at, and grants them if it is for a name of
 * the policy.
 */
__noinline int read_records(void)
{
	struct name_loop loop = { .scratch = find_scratch(HOOK_SKB) };

	if (!loop.scratch)
		return NAME_ANSWER_MALFORMED;
	loop.scratch->outcome = NAME_ANSWER_CUT;
	bpf_loop(RECORD_STEPS_MAX, step_record, &loop, 0);
	return loop.scratch->outcome;
}

/* Is the message in the scratch, whose question is read, an answer to a query for a name of the policy? Then the
 * query is taken, and the scratch gets the name. Returns enum name_count.
 */
__noinline int match_query(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct query *query;
	__u64 asked_ns;
	__u32 name;

	if (!scratch)
		return NAME_ANSWER_MALFORMED;
	/* First, for the filter has noted no question about other names. */
	name = find_name(HOOK_SKB);
	if (!name || !needs_name(scratch->slot, scratch->profile, name))
		return NAME_ANSWER_OTHER;
	query = find_query(scratch, ((struct dns_header *)scratch->message)->id_be);
	if (!query)
		return NAME_ANSWER_NO_QUERY;
	asked_ns = query->asked_ns;
	if (query->hash != scratch->hash[0])
		return NAME_ANSWER_QUESTION;
	/* one answer each */
	if (!asked_ns || __sync_val_compare_and_swap(&query->asked_ns, asked_ns, 0) != asked_ns)
		return NAME_ANSWER_NO_QUERY;
	scratch->name = name;
	return NAME_ANSWER_READ;
}

/* Reads the message in the scratch, and returns what came of it: enum name_count. */
__noinline int read_message(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct dns_header *header;
	int found, read;
	__u32 end;

	if (!scratch || scratch->message_bytes < sizeof(*header) + 1 + QUESTION_TAIL_BYTES)
		return NAME_ANSWER_MALFORMED;
	header = (struct dns_header *)scratch->message;
	if ((header->flags_be & bpf_htons(ANSWER_MASK)) != bpf_htons(ANSWER_FLAGS))
		return header->flags_be & bpf_htons(ERROR_MASK) ? NAME_ANSWER_NEGATIVE :
								  NAME_ANSWER_MALFORMED;
	if (header->questions_be != bpf_htons(1))
		return NAME_ANSWER_MALFORMED;
	if (!header->answers_be)
		return NAME_ANSWER_NEGATIVE;
	end = read_question(scratch, HOOK_SKB);
	if (!end)
		return NAME_ANSWER_MALFORMED;
	scratch->name = 0;
	scratch->remembered = 0;
	found = match_query();
	/* not the coarse clock: a share's longest unused row is found by it */
	scratch->now_ns = load.is_private ? private_run.now_ns : bpf_ktime_get_ns();
	scratch->granted_key.server = scratch->grantee;
	scratch->at = end;
	scratch->records = bpf_ntohs(header->answers_be);
	if (scratch->name && header->flags_be & bpf_htons(ANSWER_CUT))
		add_name_count(NAME_ANSWER_CUT, 1);
	read = read_records();
	return found == NAME_ANSWER_READ ? read : found;
}

/* Loads a message from an offset of the frame, and reads it. */
static __always_inline void load_message(struct __sk_buff *skb, struct name_scratch *scratch,
					 __u32 offset, __u32 bytes)
{
	if (!bytes)
		return;
	if (bytes > MESSAGE_BYTES)
		bytes = MESSAGE_BYTES;
	/* 1 to MESSAGE_BYTES, in words that Linux 6.1 understands */
	bytes -= 1;
	barrier_var(bytes);
	bytes = (bytes & (MESSAGE_BYTES - 1)) + 1;
	if (bpf_skb_load_bytes(skb, offset, scratch->message, bytes))
		return;
	scratch->message_bytes = bytes;
	add_name_count(read_message(), 1);
}

/* The kernel may have put several datagrams together. Each but the last has gso_size bytes. */
__noinline int read_datagrams(struct __sk_buff *skb, const struct packet *packet)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	__u32 offset, left, bytes, each = skb->gso_size;
	struct udphdr udp;

	if (!packet || !scratch || packet->left <= sizeof(udp) ||
	    load_bytes(skb, HOOK_SKB, packet->offset, &udp, sizeof(udp)))
		return 0;
	left = packet->left - sizeof(udp);
	bytes = bpf_ntohs(udp.len) - sizeof(udp);
	if (packet->fragment_position == FRAGMENT_NONE && bytes < left)
		left = bytes;
	offset = packet->offset + sizeof(udp);
	for (int i = 0; i < MESSAGES_MAX; i++) {
		bytes = each && left > each ? each : left;
		load_message(skb, scratch, offset, bytes);
		offset += bytes;
		left -= bytes;
		if (!left)
			break;
	}
	return 0;
}

/* By this the one of several is found that goes: what is over goes before what is open. */
static __always_inline __u64 find_stream_age(const struct stream *stream)
{
	return stream->lost || stream->ended ? 0 : stream->opened_ns;
}

/* The stream of the answer in the scratch, or NULL. `vacant`: or one whose place it may have. */
static __noinline struct stream *find_stream(struct name_scratch *scratch, bool vacant)
{
	struct share_key key = { .server = scratch->server };
	__u32 room = read_state(STATE_STREAM_ROOM), first = find_first_place(scratch->port, 0);
	struct stream *stream, *oldest = NULL;

	if (!room)
		return NULL;
	for (int i = 0; i < STREAM_WAYS; i++) {
		key.place = (first + i) & (room - 1);
		stream = bpf_map_lookup_elem(&streams, &key);
		if (!stream) {
			if (!vacant)
				return NULL;
			__builtin_memset(&scratch->stream, 0, sizeof(scratch->stream));
			scratch->stream.server = scratch->server;
			bpf_map_update_elem(&streams, &key, &scratch->stream, BPF_NOEXIST);
			return bpf_map_lookup_elem(&streams, &key);
		}
		if (stream->port == scratch->port &&
		    same_address(&stream->resolver, &scratch->resolver))
			return stream;
		if (!oldest || find_stream_age(stream) < find_stream_age(oldest))
			oldest = stream;
	}
	return vacant ? oldest : NULL;
}

/* The resolver's SYN says where its first message begins. */
static __always_inline void open_stream(struct name_scratch *scratch, __u32 sequence)
{
	struct stream *stream = find_stream(scratch, true);

	if (!stream)
		return;
	/* sent again, perhaps late */
	if (stream->opened_ns && stream->first == sequence && stream->port == scratch->port &&
	    same_address(&stream->resolver, &scratch->resolver))
		return;
	stream->lost = 1;
	barrier();
	stream->resolver = scratch->resolver;
	stream->port = scratch->port;
	stream->first = sequence;
	stream->next = sequence + 1;
	stream->opened_ns = scratch->now_ns;
	stream->ended = 0;
	barrier();
	stream->lost = 0;
}

static __always_inline void lose_stream(struct stream *stream)
{
	stream->lost = 1;
	add_name_count(NAME_STREAM_LOST, 1);
}

__noinline int read_segment(struct __sk_buff *skb, const struct packet *packet)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	__u32 offset, left, next, skip, bytes;
	__u8 header_words[1];
	struct stream *stream;
	__be16 length_be;

	if (!packet || !scratch)
		return 0;
	if (packet->tcp_flags & TCP_SYN) {
		if (packet->tcp_flags & TCP_ACK)
			open_stream(scratch, packet->sequence);
		return 0;
	}
	left = packet->sequence_end - packet->sequence - !!(packet->tcp_flags & TCP_FIN);
	stream = find_stream(scratch, false);
	if (!stream)
		return 0;
	/* what is still under way is read all the same */
	if (packet->tcp_flags & (TCP_FIN | TCP_RST))
		stream->ended = 1;
	if (stream->lost || !left || packet->tcp_flags & TCP_RST ||
	    load_bytes(skb, HOOK_SKB, packet->offset + 12, header_words, sizeof(header_words)))
		return 0;
	offset = packet->offset + (header_words[0] >> 4) * 4;
	for (int i = 0; i < MESSAGES_MAX; i++) {
		next = stream->next;
		skip = next - packet->sequence;
		/* The message began in a segment that was not seen, or not yet. */
		if ((__s32)skip < 0)
			return 0;
		/* in the middle of a message, or all of it was read before */
		if (skip >= left)
			return 0;
		if (left - skip <= sizeof(length_be) ||
		    bpf_skb_load_bytes(skb, offset + skip, &length_be, sizeof(length_be))) {
			lose_stream(stream);
			return 0;
		}
		bytes = bpf_ntohs(length_be);
		skip += sizeof(length_be);
		if (__sync_val_compare_and_swap(&stream->next, next,
						packet->sequence + skip + bytes) != next)
			return 0;
		if (bytes > left - skip) {
			bytes = left - skip;
			add_name_count(NAME_ANSWER_CUT, 1);
		}
		load_message(skb, scratch, offset + skip, bytes);
	}
	return 0;
}

/* Did the packet come by the way that leads to the resolver? */
static __always_inline bool came_right(const struct resolver *resolver, __u32 interface)
{
	if (!interface)
		return resolver->flags & RESOLVER_LOCAL;
	for (int i = 0; i < RESOLVER_INTERFACES_MAX; i++)
		if (resolver->interface[i] == interface)
			return true;
	return false;
}

/* Can the packet be an answer to a server? */
static __always_inline bool may_be_answer(const struct packet *packet)
{
	return packet->source_port == PORT_DNS && packet->ported && !packet->malformed &&
	       !packet->bad_fragment &&
	       (packet->protocol == IPPROTO_UDP ||
		(packet->protocol == IPPROTO_TCP && packet->fragment_position == FRAGMENT_NONE)) &&
	       packet->fragment_position != FRAGMENT_LATER;
}

/* Notes in the scratch whose answer it is. Returns whether it counts. */
__noinline int is_answer(struct __sk_buff *skb, const struct packet *packet, __u64 now_ns)
{
	struct name_scratch *scratch = find_scratch(HOOK_SKB);
	struct policy policy = live_policy(now_ns);
	const struct resolver *resolver;
	const struct settings *settings;
	const struct server *server;
	__u32 slot = policy.slot;

	if (!packet || !scratch)
		return 0;
	resolver = find_resolver(&policy, &packet->source);
	server = resolver ? find_server(&policy, &packet->destination) : NULL;
	settings = bpf_map_lookup_elem(&policies, &slot);
	if (!resolver || !server || !settings)
		return 0;
	scratch->slot = slot;
	scratch->server = server->id;
	scratch->grantee = server->flags & SERVER_FORWARDS ? 0 : server->id;
	scratch->profile = server->flags & SERVER_FORWARDS ? 0 : server->profile;
	scratch->resolver = packet->source;
	scratch->port = packet->destination_port;
	scratch->interface = skb->ingress_ifindex;
	scratch->now_ns = now_ns;
	scratch->floor_ns = settings->name_floor_s * SECOND_NS;
	scratch->cap_ns = settings->name_cap_s * SECOND_NS;
	scratch->checked = (__u64)policy.generation << 32 | (__u32)read_state(STATE_OWN_NETWORKS);
	if (!came_right(resolver, scratch->interface)) {
		add_name_count(NAME_ANSWER_INTERFACE, 1);
		note_name_event(scratch, NAME_EVENT_FORGED, &packet->source);
		return 0;
	}
	return 1;
}

/* Reads what a resolver answers a server. */
static __always_inline void read_answers(struct __sk_buff *skb, const struct packet *packet,
					 __u64 now_ns)
{
	if (!is_answer(skb, packet, now_ns))
		return;
	if (packet->protocol == IPPROTO_UDP)
		read_datagrams(skb, packet);
	else
		read_segment(skb, packet);
}

#endif
