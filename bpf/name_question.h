/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The question of a DNS message: its hash, and the name of the policy that it ends in. The message lies in
 * struct name_scratch. Its name is read without compression, as every question has it (RFC 1035, 4.1.2).
 *
 * The parts are global functions, which the verifier proves once each, and hand on to each other through the
 * scratch.
 */
#ifndef PORTCULLIS_NAME_QUESTION_H
#define PORTCULLIS_NAME_QUESTION_H

#include "load.h"
#include "policy.h"

enum {
	PORT_DNS = 53,
	DNS_HEADER_BYTES = 12,
	QUESTION_TAIL_BYTES = 4, /* type and class, behind the name */
	NAME_WIRE_BYTES_MAX = 255,
	LABEL_BYTES_MAX = 63,
	LABELS_MAX = 128,
	LENGTH_MARK = 0x80, /* see struct name_key */
	WORDS_OF_NAME_MAX = 32,
	CLASS_IN = 1,
};

static const __u64 LOW_BITS = 0x0101010101010101ULL;

/* RFC 1035, 4.1.1 */
struct dns_header {
	__be16 id_be;
	__be16 flags_be;
	__be16 questions_be;
	__be16 answers_be;
	__be16 authorities_be;
	__be16 additionals_be;
};

static __always_inline __u32 read_u16(const __u8 *bytes)
{
	return bytes[0] << 8 | bytes[1];
}

/* For a callback of bpf_loop(), which gets one pointer. */
struct name_loop {
	struct name_scratch *scratch;
};

static __always_inline struct name_scratch *find_scratch(__u32 hook)
{
	__u32 index = hook;

	return bpf_map_lookup_elem(&name_scratches, &index);
}

static __always_inline void add_name_count(__u32 index, __u64 count)
{
	__u64 *counter = bpf_map_lookup_elem(&name_counts, &index);

	if (counter)
		*counter += count;
}

static long step_label(__u32 index __attribute__((unused)), struct name_loop *loop)
{
	struct name_scratch *scratch = loop->scratch;
	__u32 at = scratch->at, length;

	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	length = scratch->message[at];
	if (!length) {
		scratch->name_bytes = at + 1 - DNS_HEADER_BYTES;
		return 1;
	}
	if (length > LABEL_BYTES_MAX)
		return 1;
	scratch->message[at] = length | LENGTH_MARK;
	scratch->labels++;
	at += length + 1;
	if (at >= scratch->message_bytes || at - DNS_HEADER_BYTES >= NAME_WIRE_BYTES_MAX)
		return 1;
	scratch->at = at;
	return 0;
}

/* Finds the end of the question's name, and marks its length bytes. */
__noinline int measure_name(__u32 hook)
{
	struct name_loop loop = { .scratch = find_scratch(hook) };

	if (!loop.scratch)
		return 0;
	loop.scratch->at = DNS_HEADER_BYTES;
	loop.scratch->name_bytes = 0;
	loop.scratch->labels = 0;
	bpf_loop(LABELS_MAX, step_label, &loop, 0);
	return 0;
}

/* Eight letters at once in lower case. Other bytes stay. */
static __always_inline __u64 lower_letters(__u64 word)
{
	__u64 seven = word & (0x7f * LOW_BITS);
	__u64 from_a = seven + (0x80 - 'A') * LOW_BITS, beyond_z = seven + (0x7f - 'Z') * LOW_BITS;

	return word | ((from_a ^ beyond_z) & ~word & (0x80 * LOW_BITS)) >> 2;
}

static __always_inline __u64 rotate(__u64 word, const __u32 bits)
{
	return word << bits | word >> (64 - bits);
}

/* A round of SipHash (Aumasson and Bernstein, 2012). */
static __always_inline void mix_hash(__u64 *hash)
{
	hash[0] += hash[1];
	hash[1] = rotate(hash[1], 13) ^ hash[0];
	hash[0] = rotate(hash[0], 32);
	hash[2] += hash[3];
	hash[3] = rotate(hash[3], 16) ^ hash[2];
	hash[0] += hash[3];
	hash[3] = rotate(hash[3], 21) ^ hash[0];
	hash[2] += hash[1];
	hash[1] = rotate(hash[1], 17) ^ hash[2];
	hash[2] = rotate(hash[2], 32);
}

static __always_inline void add_to_hash(struct name_scratch *scratch, __u64 word)
{
	__u64 hash[4] = { scratch->hash[0], scratch->hash[1], scratch->hash[2],
			  scratch->hash[3] ^ word };

	mix_hash(hash);
	scratch->hash[0] = hash[0] ^ word;
	scratch->hash[1] = hash[1];
	scratch->hash[2] = hash[2];
	scratch->hash[3] = hash[3];
}

/* Eight bytes of the name: backwards, in lower case, into the key and into the hash. */
static long step_word(__u32 index, struct name_loop *loop)
{
	struct name_scratch *scratch = loop->scratch;
	__u32 bytes = scratch->name_bytes - 1, done = index * 8, left = bytes - done, from;
	__u64 word, marks;

	if (done >= bytes)
		return 1;
	from = DNS_HEADER_BYTES + left - 8;
	barrier_var(from);
	from &= MESSAGE_BYTES - 1;
	index &= WORDS_OF_NAME_MAX - 1;
	word = __builtin_bswap64(lower_letters(*(__u64 *)(scratch->message + from)));
	*(__u64 *)(scratch->key.bytes + index * 8) = word;
	if (left < 8)
		word &= ((__u64)1 << left * 8) - 1;
	marks = word >> 7 & LOW_BITS;
	scratch->high_bytes += marks * LOW_BITS >> 56;
	add_to_hash(scratch, word);
	return 0;
}

/* Fills the key and the hash of the question, whose name has been measured. */
__noinline int fold_question(__u32 hook)
{
	struct name_loop loop = { .scratch = find_scratch(hook) };
	struct name_scratch *scratch = loop.scratch;
	__u64 secret = read_state(STATE_NAME_SECRET);
	__u32 at;

	if (!scratch)
		return 0;
	scratch->high_bytes = 0;
	scratch->hash[0] = secret ^ 0x736f6d6570736575ULL;
	scratch->hash[1] = ~secret ^ 0x646f72616e646f6dULL;
	scratch->hash[2] = secret ^ 0x6c7967656e657261ULL;
	scratch->hash[3] = ~secret ^ 0x7465646279746573ULL;
	bpf_loop(WORDS_OF_NAME_MAX, step_word, &loop, 0);
	at = DNS_HEADER_BYTES + scratch->name_bytes;
	barrier_var(at);
	at &= MESSAGE_BYTES - 1;
	add_to_hash(scratch, (__u64)scratch->name_bytes << 56 | *(__u32 *)(scratch->message + at));
	scratch->hash[2] ^= 0xff;
	add_to_hash(scratch, 0);
	add_to_hash(scratch, 0);
	add_to_hash(scratch, 0);
	scratch->hash[0] ^= scratch->hash[1] ^ scratch->hash[2] ^ scratch->hash[3];
	return 0;
}

/* Reads the question into the scratch: its hash is hash[0], and its key stands ready. Returns the offset
 * behind it, or 0 if it can't be read.
 */
static __always_inline __u32 read_question(struct name_scratch *scratch, const enum hook hook)
{
	__u32 end;

	measure_name(hook);
	end = DNS_HEADER_BYTES + scratch->name_bytes + QUESTION_TAIL_BYTES;
	if (!scratch->name_bytes || end > scratch->message_bytes)
		return 0;
	fold_question(hook);
	return end;
}

/* The longest pattern that the first bytes of the key in the scratch begin with, or NULL. A label with other
 * bytes than ASCII is in no name.
 */
static __always_inline const struct name_pattern *find_pattern(struct name_scratch *scratch,
							       __u32 bytes)
{
	__u32 slot = scratch->slot;
	void *table;

	if (scratch->high_bytes != scratch->labels || !bytes || bytes >= NAME_WIRE_BYTES_MAX)
		return NULL;
	table = bpf_map_lookup_elem(&name_patterns, &slot);
	scratch->key.prefix_bits = bytes * 8;
	return table ? bpf_map_lookup_elem(table, &scratch->key) : NULL;
}

/* The most specific name of the policy that the question is, or is below of; 0: none. */
__noinline __u32 find_name(__u32 hook)
{
	struct name_scratch *scratch = find_scratch(hook);
	const struct name_pattern *pattern;
	__u32 bytes;

	if (!scratch)
		return 0;
	bytes = scratch->name_bytes - 1;
	pattern = find_pattern(scratch, bytes);
	if (!pattern)
		return 0;
	return pattern->bytes == bytes ? pattern->exact : pattern->below;
}

/* Has the profile a need with this name? Profile 0: has any? */
static __always_inline bool needs_name(__u32 slot, __u32 profile, __u32 name)
{
	struct name_need_key key = { .profile = profile, .name = name };
	void *table = bpf_map_lookup_elem(&name_needs, &slot);

	return table && bpf_map_lookup_elem(table, &key);
}

static __always_inline const struct resolver *find_resolver(const struct policy *policy,
							    const struct address *address)
{
	__u32 slot = policy->slot;
	struct address key = *address; /* a copy: Linux 6.1 wants the key on the stack */
	void *table;

	if (!(policy->flags & SETTINGS_RESOLVERS))
		return NULL;
	table = bpf_map_lookup_elem(&resolvers, &slot);
	return table ? bpf_map_lookup_elem(table, &key) : NULL;
}

#endif
