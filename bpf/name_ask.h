/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Questions of servers whose role has dns = "named". Of a resolver they may ask the names of the policy, and
 * what belongs to these. So no tunnel leads through a resolver that they may ask.
 *
 * All of it is read in struct name_scratch, by functions with their own stacks: no need has decided less.
 */
#ifndef PORTCULLIS_NAME_ASK_H
#define PORTCULLIS_NAME_ASK_H

#include "name_query.h"
#include "verdict.h"

enum {
	TYPE_NS = 2,
	TYPE_SOA = 6,
	TYPE_PTR = 12,
	TYPE_OPT = 41,
	TYPE_DS = 43,
	TYPE_DNSKEY = 48,
	/* Of the header's flags a question has RD, AD and CD alone (RFC 1035, 4.1.1; RFC 4035, 3). */
	QUESTION_FLAGS = 0x0130,
	OPT_BYTES = 11, /* root, type, class, time to live, length (RFC 6891, 6.1.2) */
};

enum asked {
	ASKED_ELSE = 0,
	ASKED_EXPECTED = 1, /* clients ask so by habit: refused quietly */
	ASKED_NAMED = 2,
};

/* The types by which a resolver that validates finds its way to a name (RFC 4035, 5). */
static __always_inline bool is_way_to_name(__u32 type)
{
	return type == TYPE_DS || type == TYPE_DNSKEY || type == TYPE_NS || type == TYPE_SOA;
}

/* Is the message in the scratch one question, with nothing behind it but EDNS? Returns the offset behind the
 * question, or 0.
 */
static __always_inline __u32 find_whole_question(struct name_scratch *scratch)
{
	const struct dns_header *header = (struct dns_header *)scratch->message;
	const __u8 *record;
	__u32 end, at;

	if (header->flags_be & bpf_htons((__u16)~QUESTION_FLAGS) ||
	    header->questions_be != bpf_htons(1) || header->answers_be || header->authorities_be ||
	    header->additionals_be & bpf_htons((__u16)~1))
		return 0;
	end = read_question(scratch, HOOK_XDP);
	if (!end || !header->additionals_be)
		return end == scratch->message_bytes ? end : 0;
	if (end + OPT_BYTES > scratch->message_bytes)
		return 0;
	at = end;
	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	record = scratch->message + at;
	return !record[0] && read_u16(record + 1) == TYPE_OPT &&
			       end + OPT_BYTES + read_u16(record + 9) == scratch->message_bytes ?
		       end :
		       0;
}

/* Eight bytes of the name, forwards and in lower case, into the key. */
static long step_forward(__u32 index, struct name_loop *loop)
{
	struct name_scratch *scratch = loop->scratch;
	__u32 from = scratch->at + index * 8;

	if (from >= DNS_HEADER_BYTES + scratch->name_bytes)
		return 1;
	barrier_var(from);
	from &= MESSAGE_BYTES - 1;
	index &= WORDS_OF_NAME_MAX - 1;
	*(__u64 *)(scratch->key.bytes + index * 8) =
		lower_letters(*(__u64 *)(scratch->message + from));
	return 0;
}

/* Has the rest of the question's name, from an offset of the message on, a name of the policy in front? The
 * flag is one of enum pattern_flag.
 */
__noinline int begins_with_name(__u32 offset, __u32 flag)
{
	struct name_loop loop = { .scratch = find_scratch(HOOK_XDP) };
	struct name_scratch *scratch = loop.scratch;
	const struct name_pattern *pattern;

	if (!scratch || offset >= DNS_HEADER_BYTES + scratch->name_bytes)
		return 0;
	scratch->at = offset;
	bpf_loop(WORDS_OF_NAME_MAX, step_forward, &loop, 0);
	pattern = find_pattern(scratch, DNS_HEADER_BYTES + scratch->name_bytes - 1 - offset);
	return pattern && pattern->flags & flag;
}

/* The bytes of a label of the message in the scratch, with its length byte; 0: it does not begin with `_`. */
static __always_inline __u32 measure_service_label(const struct name_scratch *scratch, __u32 at)
{
	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	return scratch->message[at + 1] == '_' ? (scratch->message[at] & ~LENGTH_MARK) + 1 : 0;
}

/* Are the first bytes of the name two labels like `_http._tcp`? */
static __always_inline bool is_service(const struct name_scratch *scratch, __u32 bytes)
{
	__u32 first = measure_service_label(scratch, DNS_HEADER_BYTES);
	__u32 second = first ? measure_service_label(scratch, DNS_HEADER_BYTES + first) : 0;

	return second && first + second == bytes;
}

/* What the message in the scratch asks for: enum asked. */
__noinline int classify_question(void)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	const struct name_pattern *pattern;
	__u32 end, at, type, bytes, first;
	bool is_way;

	if (!scratch)
		return ASKED_ELSE;
	end = find_whole_question(scratch);
	at = end - QUESTION_TAIL_BYTES;
	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	if (!end || read_u16(scratch->message + at + 2) != CLASS_IN)
		return ASKED_ELSE;
	type = read_u16(scratch->message + at);
	is_way = is_way_to_name(type);
	bytes = scratch->name_bytes - 1;
	/* the root is above every name */
	if (!bytes)
		return is_way ? ASKED_NAMED : ASKED_ELSE;
	pattern = find_pattern(scratch, bytes);
	if (pattern && pattern->bytes == bytes) {
		if (pattern->exact || (is_way && pattern->flags & PATTERN_PARENT))
			return ASKED_NAMED;
	} else if (pattern) {
		if (pattern->below ||
		    (pattern->exact && is_service(scratch, bytes - pattern->bytes)))
			return ASKED_NAMED;
		if (type == TYPE_PTR && pattern->flags & PATTERN_REVERSE)
			return ASKED_EXPECTED;
	}
	first = (scratch->message[DNS_HEADER_BYTES] & ~LENGTH_MARK) + 1;
	return begins_with_name(DNS_HEADER_BYTES, PATTERN_FRONT) ||
			       begins_with_name(DNS_HEADER_BYTES + first, PATTERN_FRONT_OF_BELOW) ?
		       ASKED_EXPECTED :
		       ASKED_ELSE;
}

/* Loads the datagram's message. False: it has none that could be whole. What stands behind the datagram in its
 * IP packet would leave as well.
 */
static __always_inline bool load_whole_message(struct xdp_md *ctx, const struct packet *packet,
					       struct name_scratch *scratch)
{
	__u32 bytes = packet->left - sizeof(struct udphdr);
	struct udphdr udp;

	return packet->fragment_position == FRAGMENT_NONE && packet->left > sizeof(struct udphdr) &&
	       bytes <= QUESTION_BYTES_MAX &&
	       !load_bytes(ctx, HOOK_XDP, packet->offset, &udp, sizeof(udp)) &&
	       bpf_ntohs(udp.len) == packet->left &&
	       load_question(ctx, scratch, packet->offset + sizeof(struct udphdr), bytes);
}

/* Is the datagram an answer? A resolver asks nobody again because of one. */
static __always_inline bool is_dns_answer(struct xdp_md *ctx, const struct packet *packet)
{
	struct dns_header header;

	return packet->left >= sizeof(struct udphdr) + sizeof(header) &&
	       !load_bytes(ctx, HOOK_XDP, packet->offset + sizeof(struct udphdr), &header,
			   sizeof(header)) &&
	       header.flags_be & bpf_htons(0x8000);
}

/* Judges what a server whose role has dns = "named" sends to port 53, and what would pass. Returns enum step:
 * STEP_STRAY for what no need permits, for only a whole question about a name is what the need is for. A
 * global function, as drop_stray().
 */
__noinline int judge_question(struct xdp_md *ctx, const struct packet *packet,
			      const struct policy *policy, struct decision *decision)
{
	struct name_scratch *scratch = find_scratch(HOOK_XDP);
	int asked = ASKED_ELSE;
	bool replies;

	if (!packet || !policy || !decision || !scratch)
		return STEP_STRAY;
	/* it may go to a resolver, or past them */
	decision->scope = SCOPE_PACKET;
	scratch->slot = policy->slot;
	replies = decision->reason == REASON_REPLY || decision->reason == REASON_PICKUP;
	if (!find_resolver(policy, &packet->destination) ||
	    (replies && (packet->protocol == IPPROTO_TCP || is_dns_answer(ctx, packet))))
		asked = ASKED_NAMED;
	else if (packet->protocol == IPPROTO_UDP && load_whole_message(ctx, packet, scratch))
		asked = classify_question();
	if (asked == ASKED_NAMED) {
		decision->observed = 0;
		return STEP_NONE;
	}
	/* no need decides, but the role */
	decision->rule = 0;
	if (asked == ASKED_EXPECTED || replies) {
		/* a visitor may have sent what is answered here in a resolver's name */
		drop(decision, REASON_QUESTION, DROP_QUIET);
		decision->port = PORT_DNS;
		return STEP_NONE;
	}
	return STEP_STRAY;
}

/* What judge_question() has refused, and what answers nobody: a need is for it, but not for what it asks. */
static __always_inline void name_question(struct decision *decision)
{
	decision->scope = SCOPE_PACKET;
	if (decision->reason == REASON_DESTINATION || decision->reason == REASON_NEW_FLOW)
		decision->reason = REASON_QUESTION;
}

/* Does the packet ask, if it may pass? `flags`: of its server. */
static __always_inline bool may_ask(const struct packet *packet, __u32 flags)
{
	return flags & SERVER_NAMED && packet->destination_port == PORT_DNS &&
	       (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP);
}

#endif
